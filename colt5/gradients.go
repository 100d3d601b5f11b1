package colt5

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
)

// Gradients is the memory for the gradients of parameters: one flat f32 tensor, so that clipping, scaling and optimising
// are a few steps over it. Graph.Run writes it, see [Backward].
type Gradients struct {
	serial  uint64 // distinguishes it in the keys of plans
	flat    *Tensor
	list    []gradientOf           // in the order of their memory
	offsets map[elementsOf]uint64  // of a parameter's gradient, in bytes
	by      map[elementsOf]*Tensor // the gradient of a parameter
}

// gradientOf is a gradient under the name of its parameter.
type gradientOf struct {
	Parameter
	of elementsOf // of the parameter
}

var gradientSerials atomic.Uint64

// gradientAlignment is the multiple of bytes at which the gradient of a parameter starts.
const gradientAlignment = 16

// NewGradients makes the memory for the gradients of parameters: those of one or of several modules. A tensor that occurs
// more than once, because modules share it, has one gradient under its first name. The elements are undefined until a run
// writes them.
func NewGradients(dev *vk.Device, parameters []Parameter) (*Gradients, error) {
	g, bytes, err := layOutGradients(dev, parameters)
	if err != nil {
		return nil, fmt.Errorf("colt5: NewGradients: %w", err)
	}
	buffer, err := dev.NewBuffer("gradients", bytes)
	if err != nil {
		return nil, fmt.Errorf("colt5: NewGradients: %w", err)
	}
	return g.in(&Tensor{dtype: F32, shape: []int{int(bytes / 4)}, memory: buffer.Range(), storage: newStorage(buffer)}), nil
}

// NewGradientsAt is NewGradients in the elements of a tensor: each gradient from a multiple of 4 elements on.
func NewGradientsAt(flat *Tensor, parameters []Parameter) (*Gradients, error) {
	g, bytes, err := layOutGradients(flat.Device(), parameters)
	if err == nil && (flat.dtype != F32 || len(flat.shape) != 1 || uint64(flat.size()) != bytes) {
		err = fmt.Errorf("the tensor is %v, want f32[%d]", flat, bytes/4)
	}
	if err != nil {
		return nil, fmt.Errorf("colt5: NewGradientsAt: %w", err)
	}
	return g.in(flat), nil
}

// gradientBytes is the space of a parameter's gradient.
func gradientBytes(parameter *Tensor) uint64 {
	return (uint64(parameter.size()) + gradientAlignment - 1) &^ (gradientAlignment - 1)
}

// layOutGradients gives each parameter its place.
func layOutGradients(dev *vk.Device, parameters []Parameter) (g *Gradients, bytes uint64, err error) {
	g = &Gradients{serial: gradientSerials.Add(1), offsets: map[elementsOf]uint64{}}
	for _, p := range parameters {
		if !p.Tensor.hasMemory() || p.Tensor.Device() != dev || p.Tensor.dtype != F32 {
			return nil, 0, fmt.Errorf("parameter %s is %v, want an f32 parameter of a module on this device", errtext.Name(p.Name), p.Tensor)
		}
		key := p.Tensor.elements()
		if _, ok := g.offsets[key]; ok {
			continue
		}
		for _, other := range g.list {
			if p.Tensor.overlaps(other.Tensor) {
				return nil, 0, fmt.Errorf("parameters %s and %s share some of their elements, want all or none", errtext.Name(other.Name), errtext.Name(p.Name))
			}
		}
		g.offsets[key] = bytes
		g.list = append(g.list, gradientOf{p, key})
		bytes += gradientBytes(p.Tensor)
	}
	if bytes == 0 {
		return nil, 0, errors.New("there are no parameters, want at least one")
	}
	return g, bytes, nil
}

// in places the gradients in the elements of a tensor.
func (g *Gradients) in(flat *Tensor) *Gradients {
	placed := &Gradients{serial: g.serial, flat: flat, offsets: g.offsets, by: map[elementsOf]*Tensor{}}
	for _, p := range g.list {
		s := p.of
		flat.acquire()
		t := &Tensor{dtype: F32, shape: slices.Clone(p.Tensor.shape), memory: flat.memory.Slice(g.offsets[s], uint64(p.Tensor.size())), storage: flat.storage}
		placed.by[s] = t
		placed.list = append(placed.list, gradientOf{Parameter{Name: p.Name, Tensor: t}, s})
	}
	return placed
}

// At returns the same gradients in other memory, that of a tensor with as many elements as Flat: one of several micro-batches,
// for example. Runs that differ in the memory only share a plan.
func (g *Gradients) At(flat *Tensor) (*Gradients, error) {
	if g == nil || g.flat == nil {
		return nil, errors.New("colt5: Gradients.At: the gradients are the zero value, want those of NewGradients")
	}
	if !flat.hasMemory() || flat.dtype != F32 || !slices.Equal(flat.shape, g.flat.shape) {
		return nil, fmt.Errorf("colt5: Gradients.At: the tensor is %v, want %v", flat, g.flat)
	}
	return g.in(flat), nil
}

// List returns the gradients, in the order of their memory, under the names of their parameters.
func (g *Gradients) List() []Parameter {
	list := make([]Parameter, len(g.list))
	for i, p := range g.list {
		list[i] = p.Parameter
	}
	return list
}

// Of returns the gradient of a parameter, nil if it has none here.
func (g *Gradients) Of(parameter *Tensor) *Tensor {
	if parameter == nil || parameter.storage == nil {
		return nil
	}
	return g.by[parameter.elements()]
}

// Flat returns the tensor of all gradients: those of List, each from a multiple of 16 bytes on.
func (g *Gradients) Flat() *Tensor { return g.flat }

// Close frees the memory. Closing again, or nil, does nothing.
func (g *Gradients) Close() error {
	if g == nil {
		return nil
	}
	err := g.flat.Close()
	for _, p := range g.list {
		err = errors.Join(err, p.Tensor.Close())
	}
	return err
}

// Backward makes a run of a graph compute gradients too, in the same submit. With L a function of the outputs:
//
//	upstream dL/d output   ->   dL/d input, dL/d parameter
//
// The backward pass computes in float32, whatever the precision of a module. The gradients of the items of a batch are added
// in a balanced binary tree; everything else is added in an order that depends on the sizes of one item only. So results have
// the same bits from run to run. Nodes that share a parameter must have batches of the same number of items.
type Backward struct {
	// Upstream has the gradient of outputs, by their names, each with the shape of its output. The gradient of other
	// outputs is 0.
	Upstream map[string]*Tensor

	Inputs     map[string]*Tensor // by the names of f32 inputs: receives their gradients; nil: not wanted
	Parameters *Gradients         // receives the gradients of parameters; 0 for those that the run does not use; nil: not wanted

	// Recompute is activation checkpointing: the number of layers, from the first one on, that keep only their inputs and the
	// lists of their routers, and compute the rest again in the backward pass. Other layers also keep queries, keys, values
	// and results of attentions, and hidden activations. The blocks of a stack are layers, and so are other modules
	// with an attention or a feedforward. 0: all layers keep all; -1: none does. Results have the same bits.
	// Graph.TrainingMemory predicts what each number costs.
	Recompute int
}

// offsets is where the gradients of parameters are, in bytes.
func (b *Backward) offsets() map[elementsOf]uint64 {
	if b.Parameters == nil {
		return nil
	}
	return b.Parameters.offsets
}

// serial is the number of the memory for the gradients of parameters, 0 without.
func (b *Backward) serial() uint64 {
	if b == nil || b.Parameters == nil {
		return 0
	}
	return b.Parameters.serial
}

// collectBackward adds the tensors of a backward pass to those of a run: the upstream gradient of each output, the gradient
// of each input, and those of all parameters.
func (g *Graph) collectBackward(b *Backward) error {
	if b == nil {
		return nil
	}
	if _, err := recomputed("Backward.Recompute", b.Recompute); err != nil {
		return err
	}
	found := 0
	for i, out := range g.outputs {
		t := b.Upstream[out.name]
		if t != nil {
			found++
			if y := g.externals[len(g.inputs)+i].tensor; y != nil && !(t.dtype == y.dtype && slices.Equal(t.shape, y.shape)) {
				return fmt.Errorf("Backward.Upstream: %s is %v, want %v", errtext.Name(out.name), t, y)
			} else if y == nil {
				return fmt.Errorf("Backward.Upstream: %s is %v, want nil: the run leaves the output out", errtext.Name(out.name), t)
			}
		}
		if err := g.addExternal("Backward.Upstream: ", out.name, t, false); err != nil {
			return err
		}
	}
	if err := g.onlyNames("Backward.Upstream", b.Upstream, found, "outputs"); err != nil {
		return err
	}
	if found == 0 {
		return errors.New("Backward.Upstream is empty, want the gradient of at least one output")
	}
	found = 0
	for i, in := range g.inputs {
		t := b.Inputs[in.value.name]
		if t != nil {
			found++
			if x := g.externals[i].tensor; x == nil || x.dtype != F32 || t.dtype != F32 || !slices.Equal(t.shape, x.shape) {
				return fmt.Errorf("Backward.Inputs: %s is %v, want a tensor of the shape of the input, which is %v, and f32", errtext.Name(in.value.name), t, x)
			}
		}
		if err := g.addExternal("Backward.Inputs: ", in.value.name, t, true); err != nil {
			return err
		}
	}
	if err := g.onlyNames("Backward.Inputs", b.Inputs, found, "inputs"); err != nil {
		return err
	}
	var flat *Tensor
	if b.Parameters != nil {
		if flat = b.Parameters.flat; flat == nil {
			return errors.New("Backward.Parameters is the zero value, want what NewGradients makes")
		}
		for s := range b.Parameters.offsets {
			if !g.hasParameter(s) {
				return errors.New("Backward.Parameters has a parameter of no module of the graph, want those of its modules, made after Share")
			}
		}
	}
	return g.addExternal("Backward.", "Parameters", flat, true)
}

// onlyNames returns an error if tensors has more tensors than those of the found names, which are outputs or inputs.
func (g *Graph) onlyNames(what string, tensors map[string]*Tensor, found int, want string) error {
	count := 0
	for range present(tensors) {
		count++
	}
	if found == count {
		return nil
	}
	if err := g.unknownName(present(tensors)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s has %d names that are not of %s", what, count-found, want)
}

// present is the names that have a tensor.
func present(tensors map[string]*Tensor) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name, t := range tensors {
			if t != nil && !yield(name) {
				return
			}
		}
	}
}

func (g *Graph) hasParameter(e elementsOf) bool {
	for _, m := range g.modules {
		for _, w := range m.weights.list {
			if w.Tensor.elements() == e {
				return true
			}
		}
	}
	return false
}

// resolveBackward adds the backward pass to the program. given is the tensors of a run as collectBackward orders them.
func (g *Graph) resolveBackward(p *program, given []*Tensor, offsets map[elementsOf]uint64, recompute int) error {
	layers, err := recomputed("recompute", recompute)
	if err != nil {
		return err
	}
	pass := &backwardPass{upstream: map[int]int{}, results: map[int]int{}, arena: -1, offsets: offsets, recompute: layers}
	at := len(g.inputs) + len(g.outputs)
	add := func(name string, value *graphValue, to map[int]int) {
		e := externalValue{name: name}
		if t := given[at]; t != nil {
			e.bytes = uint64(t.size())
			if value != nil {
				to[value.index] = at
			} else {
				pass.arena = at
			}
		}
		p.externals = append(p.externals, e)
		at++
	}
	for _, out := range g.outputs {
		add("gradient of "+errtext.Name(out.name), out.value.value, pass.upstream)
	}
	for _, in := range g.inputs {
		add("gradient of "+errtext.Name(in.value.name), in.value, pass.results)
	}
	add("gradients of parameters", nil, nil)
	return p.analyse(pass)
}
