package colt5

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// This file predicts the memory of a call without a device.

// Memory is what a call of a module needs of a device, in bytes.
type Memory struct {
	Weights   uint64 // parameters, and their copies in the module's precision
	Inputs    uint64
	Outputs   uint64
	Workspace uint64 // memory between the steps, constant tables included
	Gradients uint64 // of parameters; only of Graph.TrainingMemory
}

// Total is the sum.
func (m Memory) Total() uint64 { return m.Weights + m.Inputs + m.Outputs + m.Workspace + m.Gradients }

// dimSize is the size of a symbolic dimension.
type dimSize struct{ symbol, size int }

// measure returns what a call with these dimensions needs, without a device. Optional arguments count as absent.
func (c call) measure(name string, caps vk.Caps, config config, dims ...dimSize) (Memory, error) {
	op := name + "Config.Memory"
	k := checker{op: op}
	if err := firstError(config.check(k), k.precision(config.precision())); err != nil {
		return Memory{}, err
	}
	if err := config.precision().Supported(caps); err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: Precision: %w", op, err)
	}
	for _, d := range dims {
		if d.size < 1 || d.size > math.MaxInt32 {
			return Memory{}, fmt.Errorf("colt5: %s: %c is %d, want 1 to %d", op, dimLetters[-1-d.symbol], d.size, math.MaxInt32)
		}
		c.bind(d.symbol, d.size)
	}
	if err := c.checkPatches(); err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: %w", op, err)
	}
	w := weights{precision: config.precision()}
	layer := config.build(&w)
	if w.err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: %w", op, w.err)
	}
	m := Memory{Weights: w.bytes()}
	if m.Weights >= maxBytes {
		return Memory{}, fmt.Errorf("colt5: %s: %w: the weights have 2^60 bytes or more", op, vk.ErrOutOfMemory)
	}
	for _, a := range c.args.list() {
		n, err := c.bytes(a)
		switch {
		case err != nil:
			return Memory{}, fmt.Errorf("colt5: %s: %w", op, err)
		case a.kind == input:
			m.Inputs += n
		case a.kind == output:
			m.Outputs += n
		}
	}
	b := &builder{caps: caps}
	b.layOut(singleNode(c, layer, config.precision(), nil))
	if b.err != nil {
		return Memory{}, fmt.Errorf("colt5: %s: %w", op, b.err)
	}
	m.Workspace = b.peak + b.constants
	return m, nil
}

// bytes is the size of an argument in bytes. Kernels index the tokens of a batch by an int32.
func (c *call) bytes(a arg) (uint64, error) {
	tokens, elements := 1.0, 1.0
	for _, n := range a.lead {
		elements *= float64(n)
	}
	for _, n := range a.shape[:a.shape.rank()] {
		if n < 0 {
			n = c.dim(n)
			tokens *= float64(n)
		}
		elements *= float64(n)
	}
	if tokens > math.MaxInt32 {
		return 0, fmt.Errorf("%s has %.0f tokens, want %d at most", a.name, tokens, math.MaxInt32)
	}
	if elements > 1<<56 {
		return 0, fmt.Errorf("%w: %s has %.3g elements", vk.ErrOutOfMemory, a.name, elements)
	}
	return uint64(elements) * uint64(a.dtype.Size()), nil
}
