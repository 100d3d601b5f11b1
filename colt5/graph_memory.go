package colt5

import (
	"context"
	"fmt"
	"maps"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
)

// Memory predicts what a run needs on a device with these capabilities, given the shapes of the inputs by name. Inputs
// without a shape are left out, and all outputs are wanted. A weight that modules share is counted once.
func (g *Graph) Memory(caps vk.Caps, inputs map[string][]int) (Memory, error) {
	if err := g.lock(context.Background()); err != nil {
		return Memory{}, g.fail("Memory", err)
	}
	defer g.leave()
	m, err := g.measure(caps, inputs, false, 0)
	if err != nil {
		return Memory{}, g.fail("Memory", err)
	}
	return m, nil
}

// TrainingMemory is Memory for a run with a backward pass that computes the gradients of all parameters, from upstream
// gradients of all outputs, and dropout where modules have it. Outputs includes the upstream gradients. recompute is that of
// [Backward]: 0 for no activation checkpointing.
func (g *Graph) TrainingMemory(caps vk.Caps, inputs map[string][]int, recompute int) (Memory, error) {
	if err := g.lock(context.Background()); err != nil {
		return Memory{}, g.fail("TrainingMemory", err)
	}
	defer g.leave()
	m, err := g.measure(caps, inputs, true, recompute)
	if err != nil {
		return Memory{}, g.fail("TrainingMemory", err)
	}
	return m, nil
}

func (g *Graph) measure(caps vk.Caps, inputs map[string][]int, training bool, recompute int) (m Memory, err error) {
	if err := g.fix(); err != nil {
		return m, err
	}
	given := make([]*Tensor, 0, len(g.inputs)+len(g.outputs))
	found := 0
	for _, v := range g.inputs {
		shape, ok := inputs[v.value.name]
		if !ok {
			given = append(given, nil)
			continue
		}
		found++
		if _, err := elements(v.dtype, shape); err != nil {
			return m, fmt.Errorf("%s: %w", errtext.Name(v.value.name), err)
		}
		t := &Tensor{dtype: v.dtype, shape: shape, value: v.value}
		given = append(given, t)
		m.Inputs = min(m.Inputs+uint64(t.size()), maxBytes)
	}
	if found < len(inputs) {
		return m, g.unknownName(maps.Keys(inputs))
	}
	for range g.outputs {
		given = append(given, nil)
	}
	sizes, err := g.outputShapes(given)
	if err != nil {
		return m, err
	}
	for i, t := range sizes {
		given[len(g.inputs)+i] = t
		m.Outputs = min(m.Outputs+uint64(t.size()), maxBytes)
	}
	p, err := g.resolve(given, &call{dropout: training})
	if err == nil && training {
		m.Outputs = min(2*m.Outputs, maxBytes)
		m.Gradients, err = g.measureGradients(p, given, recompute)
	}
	if err != nil {
		return m, err
	}
	b := &builder{caps: caps}
	if b.layOut(p); b.err != nil {
		return m, b.err
	}
	m.Workspace = b.peak + b.constants
	counted := map[elementsOf]bool{}
	for _, module := range g.modules {
		if err := module.lock(context.Background()); err != nil { // Share replaces the storages
			return m, err
		}
		m.Weights = min(m.Weights+module.weights.castBytes, maxBytes)
		for _, w := range module.weights.list {
			if e := w.Tensor.elements(); !counted[e] {
				counted[e] = true
				m.Weights = min(m.Weights+uint64(w.Tensor.size()), maxBytes)
			}
		}
		module.leave()
	}
	if max(m.Weights, m.Inputs, m.Outputs) >= maxBytes {
		return Memory{}, fmt.Errorf("%w: the weights, the inputs or the outputs have 2^60 bytes or more", vk.ErrOutOfMemory)
	}
	return m, nil
}

// measureGradients adds a backward pass to the program, with all gradients of parameters, and returns their size.
func (g *Graph) measureGradients(p *program, given []*Tensor, recompute int) (bytes uint64, err error) {
	offsets := map[elementsOf]uint64{}
	for _, m := range g.modules {
		for _, w := range m.weights.list {
			if _, ok := offsets[w.Tensor.elements()]; !ok {
				offsets[w.Tensor.elements()] = bytes
				bytes = min(bytes+gradientBytes(w.Tensor), maxBytes)
			}
		}
	}
	given = append(append([]*Tensor(nil), given...), given[len(g.inputs):]...) // the upstream gradients
	given = append(given, make([]*Tensor, len(g.inputs))...)
	given = append(given, &Tensor{dtype: F32, shape: []int{int(bytes / 4)}})
	return bytes, g.resolveBackward(p, given, offsets, recompute)
}

// outputShapes is tensors without memory of the outputs' shapes, for inputs of known shapes.
func (g *Graph) outputShapes(given []*Tensor) ([]*Tensor, error) {
	known := make([]*Tensor, len(g.values))
	for i, v := range g.inputs {
		known[v.value.index] = given[i]
		if t := given[i]; t != nil && !sameKnownSizes(t.shape, v.shape) {
			return nil, fmt.Errorf("%s is %v, want %v", errtext.Name(v.value.name), t, v)
		}
	}
	p := newProgram(len(g.values))
	list := make([]*Tensor, len(g.outputs))
	for i, out := range g.outputs {
		list[i] = out.value
	}
	needed := g.needed(list)
	for _, n := range g.nodes {
		if !needed[n] {
			continue
		}
		if err := p.add(n, known, nil, &call{}, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", errtext.Name(n.name), err)
		}
	}
	for i, out := range g.outputs {
		list[i] = known[out.value.value.index]
	}
	return list, nil
}
