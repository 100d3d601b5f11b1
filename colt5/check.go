package colt5

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// The checks of configuration fields. Each error names the operation, the field, its value and what was wanted.

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func needDevice(op string, dev *vk.Device) error {
	if dev == nil {
		return fmt.Errorf("colt5: %s: the device is nil", op)
	}
	return nil
}

var errNilContext = errors.New("the context is nil, want context.Background() or another one")

func needContext(op string, ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("colt5: %s: %w", op, errNilContext)
	}
	return nil
}

func atLeast(op, field string, v, least int) error {
	if v < least || v > math.MaxInt32 {
		return fmt.Errorf("colt5: %s: %s is %d, want %d to %d", op, field, v, least, math.MaxInt32)
	}
	return nil
}

func aboveZero(op, field string, v float64) error {
	if !(v > 0) || v > math.MaxFloat32 {
		return fmt.Errorf("colt5: %s: %s is %v, want a positive number", op, field, v)
	}
	return nil
}

// mustBeZero checks a field that has no effect in this configuration.
func mustBeZero(op, field string, v int, why string) error {
	if v != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want 0: %s", op, field, v, why)
	}
	return nil
}

// checkDepth bounds the number of layers: a mistyped depth would exhaust the host's memory.
func checkDepth(op string, depth int) error {
	const most = 1 << 14
	if depth < 1 || depth > most {
		return fmt.Errorf("colt5: %s: Depth is %d, want 1 to %d", op, depth, most)
	}
	return nil
}

// checkPrecision checks the Precision of a configuration.
func checkPrecision(op string, p DType) error {
	if p > BF16 {
		return fmt.Errorf("colt5: %s: Precision is %v, want f32, f16 or bf16", op, p)
	}
	return nil
}

// checkCoorDescent checks the schedule of coordinate descent.
func checkCoorDescent(op string, iters int, eps, epsInit, epsDecay float64) error {
	if err := firstError(atLeast(op, "NIters", iters, 1), aboveZero(op, "Eps", eps), aboveZero(op, "EpsDecay", epsDecay)); err != nil {
		return err
	}
	if epsDecay > 1 {
		return fmt.Errorf("colt5: %s: EpsDecay is %v, want at most 1", op, epsDecay)
	}
	if epsInit != 0 {
		return aboveZero(op, "EpsInit", epsInit)
	}
	return nil
}

// checkHidden checks a multiplier of a feedforward, and the hidden size that follows from it.
func checkHidden(op, field string, dim int, mult float64) error {
	if err := aboveZero(op, field, mult); err != nil {
		return err
	}
	if hidden := float64(dim) * mult; hidden < 1 || hidden > math.MaxInt32 {
		return fmt.Errorf("colt5: %s: Dim * %s is %.6g, want 1 to %d", op, field, hidden, math.MaxInt32)
	}
	return nil
}

// checkHeads checks the heads of an attention; prefix is what its field names start with.
func checkHeads(op, prefix string, heads, dimHead int) error {
	if err := firstError(atLeast(op, prefix+"Heads", heads, 1), atLeast(op, prefix+"DimHead", dimHead, 1)); err != nil {
		return err
	}
	const mostHeads = 1 << 16 // a limit of the attention kernels
	if heads > mostHeads {
		return fmt.Errorf("colt5: %s: %sHeads is %d, want at most %d", op, prefix, heads, mostHeads)
	}
	if dimHead > 128 {
		return fmt.Errorf("colt5: %s: %sDimHead is %d, want at most 128", op, prefix, dimHead)
	}
	return nil
}

// checkHeavy checks the heavy branch of an attention; routesField is the name of the field with its number of routes.
func checkHeavy(op, prefix string, c heavyConfig, routesField string, routes int) error {
	if err := firstError(checkHeads(op, prefix, c.heads, c.dimHead), atLeast(op, routesField, routes, 1)); err != nil {
		return err
	}
	if c.heads%routes != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want a divisor of %sHeads, %d", op, routesField, routes, prefix, c.heads)
	}
	if c.rotary && c.dimHead%2 != 0 {
		return fmt.Errorf("colt5: %s: %sDimHead is %d, want an even number with RotaryEmb", op, prefix, c.dimHead)
	}
	return nil
}

// checkHalved checks a window size that is halved.
func checkHalved(op, field string, v int) error {
	if err := atLeast(op, field, v, 2); err != nil {
		return err
	}
	if v%2 != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want an even number: it is halved", op, field, v)
	}
	return nil
}

// checkPatch checks the side of an image patch.
func checkPatch(op string, side int) error {
	if side < 1 || side > 1024 {
		return fmt.Errorf("colt5: %s: LightWindowSize is %d, want 1 to 1024", op, side)
	}
	return nil
}

// checkPatches checks that an image consists of whole patches.
func checkPatches(height, width, side int) error {
	if height%side != 0 || width%side != 0 {
		return fmt.Errorf("the image is %d by %d pixels, want multiples of LightWindowSize, %d", height, width, side)
	}
	return nil
}
