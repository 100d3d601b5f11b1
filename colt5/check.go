package colt5

import (
	"context"
	"errors"
	"fmt"
	"math"
)

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
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

// checker checks the fields of a configuration. Each error names the operation, the field, its value and what was wanted.
// The parts of a block or a ViT are checked as configurations of their own, but an error names the field that the caller
// has set: names has the caller's names where they differ.
type checker struct {
	op     string
	prefix string // of field names: the struct that holds the fields
	names  map[string]string
}

// in checks a struct that is a field of the configuration.
func (k checker) in(prefix string) checker { return checker{k.op, k.prefix + prefix, nil} }

// renamed checks a part whose fields have other names in the caller's configuration.
func (k checker) renamed(names map[string]string) checker { return checker{k.op, k.prefix, names} }

func (k checker) name(field string) string {
	if name, ok := k.names[field]; ok {
		field = name
	}
	return k.prefix + field
}

func (k checker) errorf(field, format string, args ...any) error {
	return fmt.Errorf("colt5: %s: %s "+format, append([]any{k.op, k.name(field)}, args...)...)
}

func (k checker) between(field string, v, least, most int) error {
	if v < least || v > most {
		return k.errorf(field, "is %d, want %d to %d", v, least, most)
	}
	return nil
}

func (k checker) atLeast(field string, v, least int) error {
	return k.between(field, v, least, math.MaxInt32)
}

func (k checker) aboveZero(field string, v float64) error {
	if !(v > 0) || v > math.MaxFloat32 {
		return k.errorf(field, "is %v, want a positive number", v)
	}
	return nil
}

// mustBeZero checks a field that has no effect in this configuration.
func (k checker) mustBeZero(field string, v int, why string) error {
	if v != 0 {
		return k.errorf(field, "is %d, want 0: %s", v, why)
	}
	return nil
}

// rate checks the rate of a dropout.
func (k checker) rate(field string, v float64) error {
	if checkRate(v) != nil {
		return k.errorf(field, "is %v, want at least 0 and below 1", v)
	}
	return nil
}

// depth bounds the number of layers: a mistyped depth would exhaust the host's memory.
func (k checker) depth(depth int) error {
	return k.between("Depth", depth, 1, maxDepth)
}

// precision checks the Precision of a configuration.
func (k checker) precision(p DType) error {
	if p > BF16 {
		return k.errorf("Precision", "is %v, want f32, f16 or bf16", p)
	}
	return nil
}

// coorDescent checks the schedule of coordinate descent.
func (k checker) coorDescent(iters int, eps, epsInit, epsDecay float64) error {
	if err := firstError(k.between("NIters", iters, 1, maxIters), k.within("Eps", eps, minEps, maxEps), k.aboveZero("EpsDecay", epsDecay)); err != nil {
		return err
	}
	if epsDecay > 1 {
		return k.errorf("EpsDecay", "is %v, want at most 1", epsDecay)
	}
	if epsInit != 0 {
		return k.within("EpsInit", epsInit, minEps, maxEps)
	}
	return nil
}

// within checks a real number.
func (k checker) within(field string, v, least, most float64) error {
	if !(v >= least && v <= most) {
		return k.errorf(field, "is %v, want a positive number, %g to %g", v, least, most)
	}
	return nil
}

// dim checks the size of a row.
func (k checker) dim(field string, v int) error { return k.between(field, v, 1, maxRow) }

// hidden checks a multiplier of a feedforward, and the hidden size that follows from it.
func (k checker) hidden(field string, dim int, mult float64) error {
	if err := k.aboveZero(field, mult); err != nil {
		return err
	}
	if hidden := float64(dim) * mult; hidden < 1 || hidden >= maxRow+1 {
		return fmt.Errorf("colt5: %s: %s * %s is %.6g, want 1 to %d", k.op, k.name("Dim"), k.name(field), hidden, maxRow)
	}
	return nil
}

// heads checks the heads of an attention. branch is what the names of its fields start with: Light, Heavy or nothing.
func (k checker) heads(branch string, heads, dimHead int) error {
	return firstError(k.between(branch+"Heads", heads, 1, maxHeads), k.between(branch+"DimHead", dimHead, 1, maxDimHead))
}

// heavy checks the heavy branch of an attention. routesField is the name of the field with its number of routes.
func (k checker) heavy(branch string, c heavyConfig, routesField string, routes int) error {
	if err := k.heads(branch, c.heads, c.dimHead); err != nil {
		return err
	}
	if routes < 1 || c.heads%routes != 0 {
		return k.errorf(routesField, "is %d, want a divisor of %s, %d", routes, k.name(branch+"Heads"), c.heads)
	}
	return k.evenHeads(branch+"DimHead", c.dimHead, "RotaryEmb", c.rotary)
}

// evenHeads checks that the size of a head is even if the rotary position embedding is on, which rotates pairs of elements.
func (k checker) evenHeads(field string, dimHead int, rotaryField string, rotary bool) error {
	if rotary && dimHead%2 != 0 {
		return k.errorf(field, "is %d, want an even number with %s", dimHead, k.name(rotaryField))
	}
	return nil
}

// window checks the size of a window of a sequence.
func (k checker) window(field string, v int) error { return k.between(field, v, 1, maxWindow) }

// halved checks a window size that is halved.
func (k checker) halved(field string, v int) error {
	if err := k.between(field, v, 2, 2*maxWindow); err != nil {
		return err
	}
	if v%2 != 0 {
		return k.errorf(field, "is %d, want an even number: it is halved", v)
	}
	return nil
}

// patch checks the side of an image patch.
func (k checker) patch(field string, side int) error {
	return k.between(field, side, 1, maxPatch)
}

// checkPatches checks that an image of so many units consists of whole patches. field names the side of a patch.
func checkPatches(height, width int, units, field string, side int) error {
	if height%side != 0 || width%side != 0 {
		return fmt.Errorf("the image is %d by %d %s, want multiples of %s, %d", height, width, units, field, side)
	}
	return nil
}
