package colt5

import (
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// This file makes the program of a run: the nodes of a graph that its outputs need, for tensors of known shapes.

// resolve makes the program for tensors of known shapes: those of the inputs, then those of the outputs; nil is one that
// a run leaves out. The tensors need no memory. run has the options of the run.
func (g *Graph) resolve(given []*Tensor, run *call) (*program, error) {
	p := newProgram(len(g.values))
	known := make([]*Tensor, len(g.values)) // with the sizes of this run; nil: absent, or not computed
	for i, v := range g.inputs {
		t := given[i]
		name := errtext.Name(v.value.name)
		e := externalValue{name: name}
		if t != nil {
			if t.dtype != v.dtype || !sameKnownSizes(t.shape, v.shape) {
				return nil, fmt.Errorf("%s is %s, want %s", name, t, strings.TrimPrefix(v.String(), "the value "+name+" "))
			}
			e.bytes = uint64(t.size())
			known[v.value.index] = t
			p.values[v.value.index].bytes, p.values[v.value.index].external = e.bytes, len(p.externals)
		}
		p.externals = append(p.externals, e)
	}
	outputs := given[len(g.inputs):]
	for i, out := range g.outputs {
		e := externalValue{name: errtext.Name(out.name)}
		if outputs[i] != nil {
			e.bytes = uint64(outputs[i].size())
			p.values[out.value.value.index].external = len(p.externals)
		}
		p.externals = append(p.externals, e)
	}
	needed := g.needed(outputs)
	uses := g.uses(needed, outputs)
	if len(needed) == 0 {
		names := make([]string, len(g.outputs))
		for i, out := range g.outputs {
			names[i] = out.name
		}
		return nil, fmt.Errorf("no tensor is given for an output, want one for at least one of %s", listNames(names))
	}
	for _, n := range g.nodes {
		if needed[n] {
			if err := p.add(n, known, &g.kernels, run, uses); err != nil {
				return nil, fmt.Errorf("%s: %w", errtext.Name(n.name), err)
			}
		}
	}
	for i, out := range g.outputs {
		if t, v := outputs[i], known[out.value.value.index]; t != nil && (t.dtype != v.dtype || !slices.Equal(t.shape, v.shape)) {
			return nil, fmt.Errorf("%s is %v%s, want %v%s", errtext.Name(out.name), t.dtype, shapeString(t.shape), v.dtype, shapeString(v.shape))
		}
	}
	return p, nil
}

// sameKnownSizes compares a shape with one that has 0 for sizes that may be any.
func sameKnownSizes(got, want []int) bool {
	return slices.EqualFunc(got, want, func(a, b int) bool { return a == b || b == 0 })
}

// needed is the nodes that outputs need.
func (g *Graph) needed(outputs []*Tensor) map[*graphNode]bool {
	needed := map[*graphNode]bool{}
	var visit func(t *Tensor)
	visit = func(t *Tensor) {
		n := t.value.from
		if n == nil || needed[n] {
			return
		}
		needed[n] = true
		for _, a := range n.call.args.list() {
			if a.tensor != nil && !a.kind.written() {
				visit(a.tensor)
			}
		}
	}
	for i, out := range g.outputs {
		if outputs[i] != nil {
			visit(out.value)
		}
	}
	return needed
}

// uses counts the uses of every value in a run: by needed nodes, and as an output.
func (g *Graph) uses(needed map[*graphNode]bool, outputs []*Tensor) []int {
	uses := make([]int, len(g.values))
	for n := range needed {
		for _, a := range n.call.args.list() {
			if a.tensor != nil && !a.kind.written() {
				uses[a.tensor.value.index]++
			}
		}
	}
	for i, out := range g.outputs {
		if outputs[i] != nil {
			uses[out.value.value.index]++
		}
	}
	return uses
}

// add adds a node of a graph, with the tensors of this run. Its results become known.
func (p *program) add(from *graphNode, known []*Tensor, k *kernels, run *call, uses []int) error {
	n := &node{name: from.name, number: from.number, layer: from.layer, call: from.call, kernels: k}
	if from.module != nil {
		n.precision = from.module.precision
		for _, w := range from.module.weights.list {
			n.parameters = append(n.parameters, w.Tensor)
		}
	}
	c := &n.call
	c.dims, c.routing, c.replay, c.dropout = [numDims]int{}, run.routing, run.replay, run.dropout
	for i := range c.args.list() {
		a := &c.args[i]
		if a.tensor == nil {
			continue
		}
		index := a.tensor.value.index
		n.values[i] = index
		switch {
		case a.kind.written():
			known[index] = &Tensor{value: a.tensor.value}
		case known[index] == nil && !a.kind.optional():
			return fmt.Errorf("%s is %v, an input that is not given", a.name, a.tensor)
		}
		a.tensor = known[index]
	}
	if err := c.infer(n.layer); err != nil {
		return err
	}
	if p.addView(n) || p.addLoss(n, uses) {
		return nil
	}
	for i, a := range c.args.list() {
		if a.tensor == nil {
			continue
		}
		if a.kind.written() {
			bytes, err := c.bytes(a)
			if err != nil {
				return err
			}
			p.values[n.values[i]].bytes = bytes
		}
		root := &p.values[n.values[i]]
		for root.of >= 0 {
			root = &p.values[root.of]
		}
		root.last = len(p.nodes)
	}
	p.nodes = append(p.nodes, n)
	return nil
}

// viewer is an operation whose result may be a view of its input x: the part from a byte on.
type viewer interface {
	view(c *call) (offset uint64, ok bool)
}

// addView makes the result of an operation a view of its input where it can be one.
func (p *program) addView(n *node) bool {
	l, ok := n.layer.(viewer)
	if !ok {
		return false
	}
	y := &p.values[n.values[1]]
	offset, ok := l.view(&n.call)
	if !ok || y.external >= 0 {
		return false
	}
	y.of, y.offset, y.bytes = n.values[0], offset, uint64(n.call.args[1].tensor.size())
	return true
}
