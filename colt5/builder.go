package colt5

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// layer is the recordable part of a module: its weights and the steps of a call.
type layer interface {
	record(b *builder)
}

// builder records the steps of a program into a plan. It records several times: first without a command list, to lay out
// the workspace, then with one. Without a command list it needs no device, which is how Memory predicts what a call
// needs.
type builder struct {
	arena
	*node     // whose steps are recorded
	caps      vk.Caps
	read      map[tableKey]vk.Range // tables that the steps read
	constants uint64                // their bytes
	groups    int                   // of rows, see limitGroups
	drops     bool                  // a step of the plan is dropout
	program   *program              // of the node
	computed  []allocation          // the workspace of the program's values, where they are in the workspace

	kept        map[*node][]allocation      // what the backward passes of nodes need, see save
	activations map[activationKey][]operand // what their layers need, see keep
	layers      int                         // of the forward pass so far, see nextLayer
	keeping     bool                        // the layer keeps its activations

	lists     map[*node][]allocation // logits and lists of routers that they need
	routers   map[routerKey]*routerState
	gradients *gradientState // of the backward pass; nil: it has not begun

	ctx  context.Context // of the call that makes the plan
	plan *plan
	list *vk.CommandList // nil while the workspace is laid out
	err  error           // the first one; nothing is recorded after it
}

// allocation is an extent of the workspace. Its Range is absent while the workspace is laid out.
type allocation struct {
	vk.Range
	extent
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// dim is the value of one of the call's symbolic dimensions.
func (b *builder) dim(symbol int) int { return b.call.dim(symbol) }

// tokenCount is one of the call's token counts.
func (b *builder) tokenCount(field string) int {
	for _, c := range b.call.counts {
		if c.field == field {
			return c.value()
		}
	}
	b.fail(fmt.Errorf("internal error: the call has no token count %q", field))
	return 1
}

// given reports whether the call has an argument.
func (b *builder) given(name string) bool {
	a := b.call.find(name)
	return a != nil && a.tensor != nil
}

// arg is the range of one of the call's tensors, absent if the call has none or the workspace is laid out.
func (b *builder) arg(name string) vk.Range {
	for i := range b.call.args {
		if b.call.args[i].name == name {
			if b.list == nil || b.call.args[i].tensor == nil {
				return vk.Range{}
			}
			return b.valueRange(b.values[i])
		}
	}
	b.fail(fmt.Errorf("internal error: the call has no argument %q", name))
	return vk.Range{}
}

// argOrWorkspace is the range of an optional output, or, if the call has none, workspace for it.
func (b *builder) argOrWorkspace(name string, sizes ...int) vk.Range {
	if b.given(name) {
		return b.arg(name)
	}
	return b.floats(sizes...).Range
}

// isU8 reports whether the call has an argument of dtype u8.
func (b *builder) isU8(name string) bool {
	return b.given(name) && b.call.find(name).tensor.dtype == U8
}

// wantsRouting reports whether the call wants routing records.
func (b *builder) wantsRouting() bool { return b.call.routing != nil }

// alloc allocates workspace, until its release.
func (b *builder) alloc(bytes uint64) allocation {
	if b.err != nil {
		return allocation{}
	}
	e := b.arena.alloc(bytes)
	if e.size != bytes {
		b.fail(fmt.Errorf("internal error: a step allocates %d bytes of workspace, but %d were planned", bytes, e.size))
	}
	if b.peak >= maxBytes { // long before the sum of sizes, each of 2^56 bytes at most, wraps
		b.fail(fmt.Errorf("%w: the workspace has 2^60 bytes or more", vk.ErrOutOfMemory))
	}
	if b.list == nil || bytes == 0 {
		return allocation{extent: e}
	}
	return allocation{b.plan.workspace.Range().Slice(e.offset, e.size), e}
}

// floats allocates a tensor of 4-byte elements.
func (b *builder) floats(sizes ...int) allocation {
	return b.alloc(b.floatBytes(sizes...))
}

// floatBytes is the size of a tensor of 4-byte elements, 0 after a failure.
func (b *builder) floatBytes(sizes ...int) uint64 {
	bytes := uint64(4)
	for _, n := range sizes {
		high, low := bits.Mul64(bytes, uint64(n))
		if high != 0 || low > 1<<56 {
			b.fail(fmt.Errorf("%w: a step needs %v elements", vk.ErrOutOfMemory, sizes))
			return 0
		}
		bytes = low
	}
	return bytes
}

// release marks workspace as not needed by later steps.
func (b *builder) release(list ...allocation) {
	for _, m := range list {
		b.arena.releaseLater(m.extent)
	}
}

// rows is count rows of a tensor, from the first on.
func rows(r vk.Range, first, count, rowBytes int) vk.Range {
	if r.IsZero() {
		return r
	}
	return r.Slice(uint64(first)*uint64(rowBytes), uint64(count)*uint64(rowBytes))
}

// fill records that every 32-bit word of r becomes word.
func (b *builder) fill(r vk.Range, word uint32) {
	if b.err == nil && b.list != nil {
		b.fail(b.list.Fill(r, word))
	}
}

// copy records a copy.
func (b *builder) copy(to, from vk.Range) {
	if b.err == nil && b.list != nil {
		b.fail(b.list.Copy(to, from))
	}
}

// table is a constant tensor of count elements that steps read. newTable computes it when the plan is recorded, unless
// another plan of the module has it.
func (b *builder) table(key tableKey, count int, newTable func() []float32) vk.Range {
	if r, ok := b.read[key]; ok {
		return r
	}
	b.constants += 4 * uint64(count)
	var r vk.Range
	if b.err == nil && b.list != nil {
		t, err := b.kernels.tables.share(b.ctx, b.kernels.dev, key, newTable)
		if err != nil {
			b.fail(err)
			return r
		}
		b.plan.tables, r = append(b.plan.tables, t), t.buffer.Range()
	}
	b.read[key] = r
	return r
}

// record adds the dispatches of a kernel to the plan. The kernel is compiled when it is first needed.
func record[C comparable, A any, K interface {
	closer
	Record(*vk.CommandList, A) error
}](b *builder, newKernel func(*vk.Device, C) (K, error), c C, a A) {
	if b.err != nil || b.list == nil {
		return
	}
	k, err := kernel(b.kernels, newKernel, c)
	if err == nil {
		err = k.Record(b.list, a)
	}
	b.fail(err)
}

// recordSelect records a top-k selection, with its scratch memory.
func (b *builder) recordSelect(c pipelines.SelectConfig, a pipelines.SelectArgs) {
	segments := max(a.Windows, 1)
	if a.BlockSize > 0 {
		segments = (a.N-1)/a.BlockSize + 1
	}
	if b.limitSelection(a.Rows, a.N, segments); b.err != nil {
		return
	}
	scratch := b.alloc(pipelines.SelectScratch(b.caps, c, a.Rows, a.N, a.K, a.BlockSize, a.Windows))
	a.Scratch = scratch.Range
	record(b, pipelines.NewSelect, c, a)
	b.release(scratch)
}

// recordCoorDescent records a coordinate descent, with its scratch memory.
func (b *builder) recordCoorDescent(c pipelines.CoorDescentConfig, a pipelines.CoorDescentArgs) {
	if b.limitRow(a.N); b.err != nil {
		return
	}
	scratch := b.alloc(pipelines.CoorDescentScratch(b.caps, a.Rows, a.N, a.BlockSize, a.Windows))
	a.Scratch = scratch.Range
	record(b, pipelines.NewCoorDescent, c, a)
	b.release(scratch)
}

// phases are the parts of a branch, in order.
type phases []func()

// recordInterleaved records the first phases of all branches, then the second ones, and so on. Phases of the same
// position have no barrier between them unless one needs the other's results, so that branches overlap.
func recordInterleaved(branches ...phases) {
	for i, more := 0, true; more; i++ {
		more = false
		for _, p := range branches {
			if i < len(p) {
				p[i]()
				more = true
			}
		}
	}
}

// restart begins another recording, with a workspace in which releases are deferred up to limit, or that is planned.
func (b *builder) restart(limit uint64, planned ...extent) {
	b.arena, b.constants, b.groups, b.drops, b.read = arena{limit: limit, planned: planned}, 0, 0, false, map[tableKey]vk.Range{}
}

// layOut lays out the workspace: first as tightly as possible, then up to a tenth larger, so that independent steps
// seldom share memory. The workspace of a run with a backward pass is planned; before, the steps that add to each gradient are
// counted. Another one is laid out with deferred
// releases, which fragment it: if large allocations then exceed the tenth, less is deferred, or nothing.
func (b *builder) layOut(p *program) {
	if p.backward != nil {
		b.restart(0)
		p.backward.summed = nil
		p.record(b)
	}
	b.restart(0)
	var all lifetimes
	if p.backward != nil {
		b.arena.lifetimes = &all
	}
	p.record(b)
	tight := b.peak
	if planned, peak := all.plan(); peak > 0 && peak <= tight+tight/10 {
		b.arena = arena{peak: peak, planned: planned}
		return
	}
	for _, share := range []uint64{10, 40} {
		b.restart(tight + tight/share)
		if p.record(b); b.peak <= tight+tight/10 {
			return
		}
	}
	b.arena = arena{peak: tight}
}
