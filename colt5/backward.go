package colt5

import (
	"errors"
	"fmt"

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

	needed  []bool // the gradient of the value is needed
	reached []bool // the value has a gradient that is not 0: an upstream one, or one from a node that uses it
	nodes   []bool // the node has a backward pass

	firstUse map[elementsOf]int // first node with a backward pass that uses a parameter
}

// gradient is the memory of a gradient. It is absent, with wanted still true, while the workspace is laid out.
type gradient struct {
	vk.Range
	wanted bool // false: it is not needed (of an input or a parameter), or it is 0 (of a result)

	start *gradientStart // what the memory does not hold yet; nil: nothing
}

// rows is count rows of the gradient, from the first on, of rowBytes each. All rows keep what the gradient starts from; before
// a part of them is used, it must have begun.
func (g gradient) rows(first, count, rowBytes int) gradient {
	if g.start == nil || g.start.begun {
		g.Range = rows(g.Range, first, count, rowBytes)
	}
	return g
}

// gradientStart is what a gradient is before the first step adds to it. A step that writes all of it, take, adds what is here
// itself; before any other step, begin writes it to the memory.
type gradientStart struct {
	zero  bool
	from  vk.Range // without zero
	begun bool
}

// startingAt is workspace for a gradient that is the sum of from and what is added to it.
func startingAt(m allocation, from vk.Range) gradient {
	return gradient{m.Range, true, &gradientStart{from: from}}
}

// startingAtZero is workspace for a gradient that starts at 0.
func startingAtZero(m allocation) gradient {
	return gradient{m.Range, true, &gradientStart{zero: true}}
}

// begin writes what a gradient starts from, unless that has been done.
func (b *builder) begin(g gradient) {
	if g.start == nil || g.start.begun {
		return
	}
	g.start.begun = true
	if b.list == nil || b.err != nil {
		return
	}
	if g.start.zero {
		b.fill(g.Range, 0)
	} else {
		b.copy(g.Range, g.start.from)
	}
}

// take is what a step that writes all of a gradient adds to its own result: add false: nothing, else the tensor base, which may
// be the gradient itself.
func (b *builder) take(g gradient) (base vk.Range, add bool) {
	if g.start == nil || g.start.begun {
		return g.Range, true
	}
	g.start.begun = true
	return g.start.from, !g.start.zero
}

// parameterGradient is the sums of a parameter's gradient for each batch item: [items, elements].
type parameterGradient struct {
	memory allocation
	direct bool // there is one item: memory is the final place
	items  int
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
	b.gradients = &gradientState{
		values: map[int]allocation{}, parameters: map[elementsOf]*parameterGradient{}, starts: map[int]*gradientStart{},
	}
	if pass.arena >= 0 && b.list != nil {
		b.fill(b.plan.bindings[pass.arena].Range(), 0)
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
}

// upstream is the gradient of a result of the call. It is not wanted if it is 0.
func (b *builder) upstream(name string) gradient {
	for i, a := range b.call.args.list() {
		if a.name == name && a.tensor != nil {
			return b.readGradient(b.values[i])
		}
	}
	return gradient{}
}

func (b *builder) readGradient(v int) gradient {
	p := b.program
	root := p.root(v)
	if !p.backward.reached[root] {
		return gradient{}
	}
	_, accumulated := b.gradients.values[root]
	_, isResult := p.backward.results[root]
	if external, ok := p.backward.upstream[v]; ok && !accumulated && !isResult && root == v {
		if b.list == nil {
			return gradient{wanted: true}
		}
		return gradient{Range: b.plan.bindings[external].Range(), wanted: true}
	}
	return b.valueGradient(v)
}

// inputGradient is the gradient of an input of the call, to which the backward pass adds. It is not wanted if nothing
// needs it.
func (b *builder) inputGradient(name string) gradient {
	g := b.startedGradient(name)
	b.begin(g)
	return g
}

// startedGradient is inputGradient for backward passes whose steps take what the gradient starts from, or begin it.
func (b *builder) startedGradient(name string) gradient {
	for i, a := range b.call.args.list() {
		if a.name == name && a.tensor != nil && a.tensor.dtype == F32 && b.program.backward.needed[b.program.root(b.values[i])] {
			if v := b.values[i]; b.program.values[v].of < 0 {
				return b.rootGradient(v)
			}
			return b.valueGradient(b.values[i])
		}
	}
	return gradient{}
}

// rootGradient is the accumulated gradient of a value that is no view. It starts from the upstream gradient, or 0.
func (b *builder) rootGradient(v int) gradient {
	p, pass := b.program, b.program.backward
	start := b.gradients.starts[v]
	known := start != nil
	if !known {
		up, ok := pass.upstream[v]
		if start = (&gradientStart{zero: !ok}); ok && b.list != nil && b.err == nil {
			start.from = b.plan.bindings[up].Range()
		}
		b.gradients.starts[v] = start
	}
	g := gradient{wanted: true, start: start}
	if external, ok := pass.results[v]; ok {
		if b.list != nil && b.err == nil {
			g.Range = b.plan.bindings[external].Range()
		}
		return g
	}
	if !known {
		b.gradients.values[v] = b.alloc(p.values[v].bytes)
	}
	g.Range = b.gradients.values[v].Range
	return g
}

// valueGradient is the accumulated gradient of a value, with what it starts from.
func (b *builder) valueGradient(v int) gradient {
	p, root := b.program, b.program.root(v)
	g := b.rootGradient(root)
	b.begin(g)
	for at := v; at != root && !g.IsZero(); at = p.values[at].of {
		// Offsets of nested views add up.
		g.Range = g.Slice(p.values[at].offset, g.Size()-p.values[at].offset)
	}
	if v != root && !g.IsZero() {
		g.Range = g.Slice(0, p.values[v].bytes)
	}
	return g
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
// must be those of earlier uses.
func (b *builder) parameter(w *Tensor) gradient {
	pass := b.program.backward
	offset, ok := pass.offsets[w.elements()]
	if !ok {
		return gradient{}
	}
	items, bytes := b.items(), uint64(w.size())
	g := b.gradients.parameters[w.elements()]
	if g == nil {
		g = &parameterGradient{items: items, direct: items == 1}
		b.gradients.parameters[w.elements()] = g
		switch {
		case !g.direct:
			g.memory = b.alloc(uint64(items) * bytes)
			b.fill(g.memory.Range, 0)
		case b.list != nil && b.err == nil:
			g.memory.Range = b.plan.bindings[pass.arena].Range().Slice(offset, bytes)
		}
	}
	if g.items != items {
		b.fail(errors.New("a parameter is used by calls with different numbers of batch items, which a backward pass does not support"))
	}
	return gradient{Range: g.memory.Range, wanted: true}
}

// finishParameter adds the gradients of the batch items.
func (b *builder) finishParameter(w *Tensor) {
	g := b.gradients.parameters[w.elements()]
	if g == nil || g.direct {
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

// add records y += x, for count elements.
func (b *builder) add(y, x vk.Range, count int) { b.addTo(y, y, x, count) }

// addTo records y = base + x, for count elements.
func (b *builder) addTo(y, base, x vk.Range, count int) {
	b.limitSum(count)
	record(b, pipelines.NewAdd, pipelines.AddConfig{}, pipelines.AddArgs{A: base, B: x, Y: y, N: count})
}

// plus is g with x added to what it starts from, [count]: the gradient of a residual. The caller begins it when all else has
// been added.
func (b *builder) plus(g gradient, x vk.Range, count int) gradient {
	if !g.wanted {
		return g
	}
	base, add := b.take(g)
	if !add {
		g.start = &gradientStart{from: x}
		return g
	}
	b.addTo(g.Range, base, x, count)
	return g
}

// addGradient records g += x, for count elements.
func (b *builder) addGradient(g gradient, x vk.Range, count int) {
	if !g.wanted {
		return
	}
	if base, add := b.take(g); add {
		b.addTo(g.Range, base, x, count)
	} else {
		b.copy(g.Range, x)
	}
}

// countBackward adds the steps of a node's backward pass, those since first, to the statistics of the plan.
func (b *builder) countBackward(first nodeWork) {
	if b.name != "" {
		b.node.name += " backward"
	}
	b.countNode(first)
}
