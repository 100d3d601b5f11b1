package colt5

import (
	"github.com/colt5-vulkan/colt5/vk"
)

// program is what a plan records: nodes in order, and the tensors that they exchange. A module's own call is a program
// of one node.
type program struct {
	nodes     []*node
	values    []value
	externals []externalValue
	backward  *backwardPass // nil: inference
}

// node is a layer in a program.
type node struct {
	name      string // prefix of the names of its routers; "": a module's own call
	number    int    // of the graph's node
	layer     layer
	call      call // checked; the tensors may be without memory
	values    [maxArgs]int
	precision DType
	kernels   *kernels // nil: for the workspace alone

	parameters []*Tensor // of the layer; only where a backward pass needs them
}

// value is where a tensor of a program is: in one of the caller's tensors, in the workspace, or, for a view, in a part
// of another value.
type value struct {
	bytes    uint64
	external int    // index of the program's externals; -1: not the caller's
	of       int    // of a view: the value that it is a part of; -1: not a view
	offset   uint64 // of a view, in bytes
	last     int    // the last node that uses it or a view of it; -1: none
}

// externalValue describes a tensor of the caller. An absent one has no bytes.
type externalValue struct {
	name  string
	bytes uint64
}

// newProgram makes a program without nodes, with values that are in the workspace.
func newProgram(values int) *program {
	p := &program{values: make([]value, values)}
	for i := range p.values {
		p.values[i] = value{external: -1, of: -1, last: -1}
	}
	return p
}

// program is the program of one of the module's own calls.
func (m *base) program(c *call) *program {
	return singleNode(*c, m.layer, m.precision, &m.kernels)
}

// singleNode is the program of one call, whose tensors are all the caller's.
func singleNode(c call, l layer, precision DType, k *kernels) *program {
	n := &node{layer: l, call: c, precision: precision, kernels: k}
	p := &program{nodes: []*node{n}}
	for i, a := range c.args.list() {
		n.values[i] = i
		v, e := value{external: i, of: -1, last: -1}, externalValue{name: a.name}
		if a.tensor != nil {
			e.bytes = uint64(a.tensor.size())
		}
		v.bytes = e.bytes
		p.values, p.externals = append(p.values, v), append(p.externals, e)
	}
	return p
}

// record records the nodes. A result in the workspace is allocated before its node, and released after the last node
// that uses it.
func (p *program) record(b *builder) {
	b.program, b.kept, b.gradients = p, map[*node][]allocation{}, nil
	b.lists, b.routers = map[*node][]allocation{}, map[routerKey]*routerState{}
	b.activations, b.layers, b.keeping = map[activationKey][]operand{}, 0, false
	if b.computed == nil {
		b.computed = make([]allocation, len(p.values))
	}
	clear(b.computed)
	for i, n := range p.nodes {
		b.node = n
		for j, a := range n.call.args.list() {
			if v := &p.values[n.values[j]]; a.tensor != nil && a.kind.written() && v.external < 0 {
				b.computed[n.values[j]] = b.alloc(v.bytes)
			}
		}
		first := b.steps()
		n.layer.record(b)
		b.countNode(first)
		for v := range p.values {
			if p.values[v].last == i && p.backward == nil {
				b.release(b.computed[v])
			}
		}
	}
	if p.backward != nil {
		p.recordBackward(b)
	}
}

// valueRange is the memory of a value.
func (b *builder) valueRange(v int) vk.Range {
	switch v := b.program.values[v]; {
	case v.of >= 0:
		return b.valueRange(v.of).Slice(v.offset, v.bytes)
	case v.external >= 0:
		return b.plan.bindings[v.external].Range()
	}
	return b.computed[v].Range
}

// prefixed is a name in the node, with the name of the node before it in a graph.
func (b *builder) prefixed(name string) string {
	if b.name == "" {
		return name
	}
	return b.name + "." + name
}

// steps is the number of steps recorded so far, with their work.
func (b *builder) steps() (w nodeWork) {
	if b.list == nil || b.name == "" {
		return w
	}
	w.steps = b.list.Steps()
	w.flops, w.bytes = b.list.Work()
	return w
}

// nodeWork is a number of steps, and their work.
type nodeWork struct {
	steps        int
	flops, bytes float64
}

// countNode adds the steps of a graph's node, those since first, to the statistics of the plan.
func (b *builder) countNode(first nodeWork) {
	if b.list == nil || b.name == "" {
		return
	}
	now := b.steps()
	b.plan.stats.Nodes = append(b.plan.stats.Nodes, NodeStats{
		Name: b.name, FirstStep: first.steps, Steps: now.steps - first.steps, Flops: now.flops - first.flops, Bytes: now.bytes - first.bytes,
	})
}
