package colt5

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// backwardLayer is a layer with a backward pass. backward reads the values of the call, all of which are still there, and
// the gradients of its results. It adds to the gradients of its inputs and parameters.
type backwardLayer interface {
	layer
	backward(b *builder)
}

// backwardPass is what the backward pass of a program computes, by value.
type backwardPass struct {
	upstream map[int]int           // external with the gradient of a value
	results  map[int]int           // external that receives the gradient of a value
	arena    int                   // external that receives the gradients of parameters; -1: none
	offsets  map[elementsOf]uint64 // of the parameters whose gradients are wanted, in the arena

	recompute int // layers, from the first one on, that compute their activations again

	needed  []bool // the gradient of the value is needed
	reached []bool // the value has a gradient that is not 0: an upstream one, or one from a node that uses it
	nodes   []bool // the node has a backward pass

	firstUse map[elementsOf]int // first node with a backward pass that uses a parameter

	// summed are the parameters whose gradient one step computes, which adds the batch items itself; nil while the steps that
	// add to each gradient are counted.
	summed map[elementsOf]bool
}

// parameterGradient is the sums of a parameter's gradient for each batch item: [items, elements].
type parameterGradient struct {
	memory allocation
	direct bool // memory is the final place: there is one item, or one step adds the items
	items  int
	bytes  uint64 // of an item
	start  *gradientStart
}

// gradientState is the memory of gradients while a backward pass is recorded.
type gradientState struct {
	of         *node // the node of the forward pass
	values     map[int]allocation
	parameters map[elementsOf]*parameterGradient
	transposed []transposedWeight // for the node
	starts     map[int]*gradientStart
}

// analyse finds out which nodes have a backward pass, and which values need a gradient.
func (p *program) analyse(of *backwardPass) error {
	values := len(p.values)
	of.needed, of.reached, of.nodes = make([]bool, values), make([]bool, values), make([]bool, len(p.nodes))
	of.firstUse = map[elementsOf]int{}
	for v := range of.results {
		of.needed[v] = true
	}
	for _, n := range p.nodes {
		needs := false
		for _, w := range n.parameters {
			if _, ok := of.offsets[w.elements()]; ok {
				needs = true
			}
		}
		for i, a := range n.call.args.list() {
			if a.tensor != nil && !a.kind.written() && of.needed[p.root(n.values[i])] {
				needs = true
			}
		}
		for i, a := range n.call.args.list() {
			if a.tensor != nil && a.kind.written() && needs {
				of.needed[p.root(n.values[i])] = true
			}
		}
	}
	for v := range of.upstream {
		of.reached[p.root(v)] = true
	}
	for i := len(p.nodes) - 1; i >= 0; i-- {
		n := p.nodes[i]
		for j, a := range n.call.args.list() {
			if v := p.root(n.values[j]); a.tensor != nil && a.kind.written() && of.reached[v] && of.needed[v] {
				of.nodes[i] = true
			}
		}
		if !of.nodes[i] {
			continue
		}
		if _, ok := n.layer.(backwardLayer); !ok {
			return fmt.Errorf("%s has no backward pass", n.describe())
		}
		for j, a := range n.call.args.list() {
			if a.tensor != nil && !a.kind.written() && a.dtype == F32 {
				of.reached[p.root(n.values[j])] = true
			}
		}
		for _, w := range n.parameters {
			of.firstUse[w.elements()] = i
		}
	}
	p.backward = of
	return nil
}

// describe names a node in messages.
func (n *node) describe() string {
	if n.name == "" {
		return "the module"
	}
	return n.name
}

// root is the value that a view is a part of.
func (p *program) root(v int) int {
	for p.values[v].of >= 0 {
		v = p.values[v].of
	}
	return v
}

// training reports whether the node has a backward pass, for which its layer may keep intermediate results.
func (b *builder) training() bool {
	p := b.program
	if p.backward == nil {
		return false
	}
	for i, n := range p.nodes {
		if n == b.node {
			return p.backward.nodes[i]
		}
	}
	return false
}

// save keeps what the node's backward pass needs, and saved returns it. Memory is released after the backward pass.
func (b *builder) save(list ...allocation) { b.kept[b.node] = append(b.kept[b.node], list...) }

func (b *builder) saved() []allocation { return b.kept[b.gradients.of] }

// recordBackward records the backward pass of the nodes, the last one first.
func (p *program) recordBackward(b *builder) {
	pass := p.backward
	b.keeping = false
	b.gradients = &gradientState{
		values: map[int]allocation{}, parameters: map[elementsOf]*parameterGradient{}, starts: map[int]*gradientStart{},
	}
	for i := len(p.nodes) - 1; i >= 0; i-- {
		n := p.nodes[i]
		if pass.nodes[i] {
			again := *n
			again.call.routing = nil // routing records are those of the forward pass
			b.node, b.gradients.of = &again, n
			first := b.steps()
			n.layer.(backwardLayer).backward(b)
			for j, a := range n.call.args.list() { // a gradient that no step has added to
				if v := p.root(n.values[j]); a.tensor != nil && b.gradients.starts[v] != nil {
					b.begin(b.rootGradient(v))
				}
			}
			for _, t := range b.gradients.transposed {
				b.release(t.allocation)
			}
			b.gradients.transposed = nil
			for _, w := range n.parameters {
				if pass.firstUse[w.elements()] == i {
					b.finishParameter(w)
				}
			}
			b.countBackward(first)
			b.release(b.kept[n]...)
			b.release(b.lists[n]...)
		}
		for j, a := range n.call.args.list() {
			if v := n.values[j]; a.tensor != nil && a.kind.written() && p.values[v].of < 0 {
				b.release(b.computed[v], b.gradients.values[v])
			}
		}
	}
	for v := range pass.results { // of values that no node with a backward pass uses
		b.begin(b.rootGradient(v))
	}
	b.fillUnused()
	b.findSummed()
}

// findSummed finds the parameters whose gradient one step computes, if the steps have been counted for that.
func (b *builder) findSummed() {
	pass := b.program.backward
	if pass.summed != nil {
		return
	}
	pass.summed = map[elementsOf]bool{}
	for e, g := range b.gradients.parameters {
		several := func(s *gradientStart) bool { return s.steps != 1 }
		if s := g.start; s.summed != nil && !slices.ContainsFunc(s.summed, several) && 1 < g.items && g.items <= pipelines.MaxSumItems {
			pass.summed[e] = true
		}
	}
}

// sumsItems reports whether a step adds the batch items of the gradients of parameters itself, of all or none. It takes the
// gradients then, which have no rows for the items. The step asks if it could do so, for all items of the call.
func (b *builder) sumsItems(list ...*Tensor) bool {
	var starts []*gradientStart
	for _, w := range list {
		g := b.gradients.parameters[w.elements()]
		if g == nil {
			return false
		}
		starts = append(starts, g.start)
	}
	if b.program.backward.summed[list[0].elements()] {
		for _, w := range list {
			b.take(b.parameter(w))
		}
		return true
	}
	for _, s := range starts {
		s.summed = starts
	}
	return false
}

// fillUnused sets what no step writes of the gradients of parameters to 0: those without a gradient, and paddings.
func (b *builder) fillUnused() {
	pass := b.program.backward
	if pass.arena < 0 || b.list == nil || b.err != nil {
		return
	}
	var written []extent
	for e, g := range b.gradients.parameters {
		written = append(written, extent{pass.offsets[e], g.bytes})
	}
	slices.SortFunc(written, func(a, b extent) int { return cmp.Compare(a.offset, b.offset) })
	all, at := b.plan.bindings[pass.arena].Range(), uint64(0)
	for _, e := range append(written, extent{offset: all.Size()}) {
		if e.offset > at {
			b.fill(all.Slice(at, e.offset-at), 0)
		}
		at = e.offset + e.size
	}
}

// items is the number of batch items of the call: parts of the batch whose gradients of parameters are kept apart.
func (b *builder) items() int {
	if n := b.dim(dimB); n > 0 {
		return n
	}
	if lead := b.call.args[0].lead; len(lead) > 0 {
		return lead[0]
	}
	return 1
}

// parameter is the gradient of a parameter for each batch item, [items, elements], to which the backward pass adds. Items
// must be those of earlier uses. The first step that writes all of it need not add, see take.
func (b *builder) parameter(w *Tensor) gradient {
	pass := b.program.backward
	offset, ok := pass.offsets[w.elements()]
	if !ok {
		return gradient{}
	}
	items, bytes := b.items(), uint64(w.size())
	g := b.gradients.parameters[w.elements()]
	if g == nil {
		g = &parameterGradient{items: items, direct: items == 1 || pass.summed[w.elements()], bytes: bytes, start: &gradientStart{zero: true}}
		b.gradients.parameters[w.elements()] = g
		switch {
		case !g.direct:
			g.memory = b.alloc(uint64(items) * bytes)
		case b.list != nil && b.err == nil:
			g.memory.Range = b.plan.bindings[pass.arena].Range().Slice(offset, bytes)
		}
	}
	if g.items != items {
		b.fail(errors.New("a parameter is used by calls with different numbers of batch items, which a backward pass does not support"))
	}
	return g.gradient()
}

func (g *parameterGradient) gradient() gradient { return gradient{g.memory.Range, true, g.start} }

// finishParameter adds the gradients of the batch items.
func (b *builder) finishParameter(w *Tensor) {
	g := b.gradients.parameters[w.elements()]
	if g == nil {
		return
	}
	if !g.start.begun {
		b.begin(g.gradient())
	}
	if g.direct {
		return
	}
	pass := b.program.backward
	var y vk.Range
	if b.list != nil && b.err == nil {
		y = b.plan.bindings[pass.arena].Range().Slice(pass.offsets[w.elements()], uint64(w.size()))
	}
	count := w.size() / 4
	b.treeSum(g.memory.Range, y, g.items, count)
	b.release(g.memory)
}

// transposedWeight is the transpose of some rows of a weight.
type transposedWeight struct {
	allocation
	of           *Tensor
	first, count int
}

// transposed is the transpose [in, count] of a weight [out, in], or of its rows first .. first + count - 1; count 0: all.
// It stays until the end of the node, for later uses.
func (b *builder) transposed(w *Tensor, first, count int) vk.Range {
	if count == 0 {
		count = w.shape[0]
	}
	for _, t := range b.gradients.transposed {
		if t.of == w && t.first == first && t.count == count {
			return t.Range
		}
	}
	in := w.shape[1]
	t := b.floats(in, count)
	b.gradients.transposed = append(b.gradients.transposed, transposedWeight{t, w, first, count})
	var part allocation
	from := rows(w.memory, first, count, 4*in)
	if first*in%4 != 0 { // Permute reads from multiples of 16 bytes
		part = b.floats(count, in)
		b.copy(part.Range, from)
		from = part.Range
	}
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, pipelines.PermuteArgs{X: from, Y: t.Range, Shape: []int{in, count}, Strides: []int{1, in}})
	b.release(part)
	return t.Range
}

// countBackward adds the steps of a node's backward pass, those since first, to the statistics of the plan.
func (b *builder) countBackward(first nodeWork) {
	if b.name != "" {
		b.node.name += " backward"
	}
	b.countNode(first)
}
