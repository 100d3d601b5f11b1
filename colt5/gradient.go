package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

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

// empty reports whether the gradient is 0, and its memory has not been written.
func (g gradient) empty() bool { return g.start != nil && g.start.zero && !g.start.begun }

// gradientStart is what a gradient is before the first step adds to it. A step that writes all of it, take, adds what is here
// itself; before any other step, begin writes it to the memory.
type gradientStart struct {
	zero  bool
	from  vk.Range // without zero
	begun bool

	steps  int              // that add to the gradient
	summed []*gradientStart // those of the parameters of a step that could add the batch items; nil: there is none
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
	if g.start == nil {
		return
	}
	if g.start.steps++; g.start.begun {
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
	if g.start == nil {
		return g.Range, true
	}
	if g.start.steps++; g.start.begun {
		return g.Range, true
	}
	g.start.begun = true
	return g.start.from, !g.start.zero
}

// itemsOf is the rows of some items of a parameter's gradient, of rowBytes each.
func (b *builder) itemsOf(g gradient, first, items, rowBytes int) gradient {
	if items != b.items() {
		b.begin(g)
	}
	g.Range = rows(g.Range, first, items, rowBytes)
	return g
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
