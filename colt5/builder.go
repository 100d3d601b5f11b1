package colt5

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// builder makes a plan. What a module wires runs several times: first without a tape, to lay out the memory between the steps, then with one,
// to record them. Without a tape it needs no device, and tells what a call needs.
type builder struct {
	arena
	caps      vk.Caps
	precision DType
	kernels   *kernels
	inspect   bool
	constants uint64 // bytes of tables

	plan *plan
	list *vk.CommandList // nil while measuring
	err  error           // the first one; after it nothing is recorded
}

// memory is a piece of the workspace, and where it is; while measuring, it is nowhere.
type block struct {
	vk.Range
	extent
}

// take is memory between steps, until it is given back.
func (b *builder) alloc(bytes uint64) block {
	p := b.arena.alloc(bytes)
	if b.list == nil || bytes == 0 {
		return block{extent: p}
	}
	return block{b.plan.workspace.Range().Slice(p.offset, p.size), p}
}

// floats is take for a count of numbers of four bytes.
func (b *builder) floats(counts ...int) block {
	bytes := uint64(4)
	for _, n := range counts {
		high, low := bits.Mul64(bytes, uint64(n))
		if high != 0 || low > 1<<56 {
			b.fail(fmt.Errorf("%w: a step needs %v numbers", vk.ErrOutOfMemory, counts))
			return block{}
		}
		bytes = low
	}
	return b.alloc(bytes)
}

func (b *builder) release(list ...block) {
	for _, m := range list {
		b.arena.release(m.extent)
	}
}

// slot is the range of the i-th tensor of the call, absent if there is none.
func (b *builder) slot(i int) vk.Range {
	if b.list == nil || b.plan.slots[i] == nil {
		return vk.Range{}
	}
	return b.plan.slots[i].Range()
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// rows is a part of a tensor of rows: count of them, from the first on.
func rows(r vk.Range, first, count, rowBytes int) vk.Range {
	if r.IsZero() {
		return r
	}
	return r.Slice(uint64(first)*uint64(rowBytes), uint64(count)*uint64(rowBytes))
}

// fill records that every word of r becomes word.
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

// table is memory with numbers that the steps read. They are computed when the plan is recorded.
func (b *builder) table(name string, count int, make func() []float32) vk.Range {
	b.constants += 4 * uint64(count)
	if b.err != nil || b.list == nil {
		return vk.Range{}
	}
	buffer, err := b.list.Device().NewBuffer(name, 4*uint64(count))
	if err != nil {
		b.fail(err)
		return vk.Range{}
	}
	b.plan.constants = append(b.plan.constants, buffer)
	b.fail(b.list.Device().Upload(context.TODO(), vk.Transfer{Range: buffer.Range(), Data: vk.Bytes(make())}))
	return buffer.Range()
}

// record adds the dispatches of a room to the plan. Its kernel is made when it is first needed.
func record[C comparable, A any, K interface {
	closer
	Record(*vk.CommandList, A) error
}](b *builder, make func(*vk.Device, C) (K, error), c C, a A) {
	if b.err != nil || b.list == nil {
		return
	}
	k, err := kernel(b.kernels, make, c)
	if err == nil {
		err = k.Record(b.list, a)
	}
	b.fail(err)
}

// kernels are the kernels of a module, one for a config, compiled when they are first needed.
type kernels struct {
	dev  *vk.Device
	made map[any]closer
}

func kernel[C comparable, K closer](k *kernels, make func(*vk.Device, C) (K, error), c C) (K, error) {
	if have, ok := k.made[c]; ok { // the type of the config tells the room
		return have.(K), nil
	}
	made, err := make(k.dev, c)
	if err == nil {
		k.made[c] = made
	}
	return made, err
}

func (k *kernels) close() error {
	var err error
	for _, x := range k.made {
		err = errors.Join(err, x.Close())
	}
	return err
}

// stages are parts of a plan that come one after the other.
type phases []func()

// interleave wires the first stages of all lists, then the second ones, and so on: what stands side by side does not wait for each
// other, unless it must.
func recordInterleaved(lists ...phases) {
	for i, more := 0, true; more; i++ {
		more = false
		for _, l := range lists {
			if i < len(l) {
				l[i]()
				more = true
			}
		}
	}
}

// select_ records a choice, with its scratch memory.
func (b *builder) recordSelect(c pipelines.SelectConfig, a pipelines.SelectArgs) {
	scratch := b.alloc(pipelines.SelectScratch(b.caps, c, a.Rows, a.N, a.K, a.BlockSize, a.Windows))
	a.Scratch = scratch.Range
	record(b, pipelines.NewSelect, c, a)
	b.release(scratch)
}

// descent records a coordinate descent, with its scratch memory.
func (b *builder) recordCoorDescent(c pipelines.CoorDescentConfig, a pipelines.CoorDescentArgs) {
	scratch := b.alloc(pipelines.CoorDescentScratch(b.caps, a.Rows, a.N, a.BlockSize, a.Windows))
	a.Scratch = scratch.Range
	record(b, pipelines.NewCoorDescent, c, a)
	b.release(scratch)
}

// measure lays out the memory between the steps: as tight as it gets, then up to a tenth wider, so that steps that have nothing to do with
// each other seldom share memory. What rests cuts up the room for large pieces; if they come to lie beyond the tenth, less may rest, or nothing.
func (b *builder) measure(wire func(*builder)) {
	wire(b)
	tight := b.peak
	for _, share := range []uint64{10, 40} {
		b.arena, b.constants = arena{limit: tight + tight/share}, 0
		if wire(b); b.peak <= tight+tight/10 {
			return
		}
	}
	b.arena = arena{peak: tight}
}

// newPlan wires a plan for the tensors of a call; nil ones have no slot.
func newPlan(dev *vk.Device, k *kernels, name string, precision DType, profile, inspect bool, tensors []*Tensor, names []string, wire func(*builder)) (*plan, error) {
	b := &builder{caps: dev.Caps(), precision: precision, kernels: k, inspect: inspect}
	b.measure(wire)
	if b.err != nil {
		return nil, b.err
	}
	list, err := dev.NewCommandList(vk.CommandListConfig{Name: name, Profile: profile})
	if err != nil {
		return nil, err
	}
	p := &plan{list: list, profiled: profile, inspected: inspect}
	for i, t := range tensors {
		var s *vk.Binding
		if t != nil {
			s = list.NewBinding(names[i], t.memory.Size())
		}
		p.slots = append(p.slots, s)
	}
	if b.peak > 0 {
		if p.workspace, err = dev.NewBuffer(name+" workspace", b.peak); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	measured := b.arena.peak
	b.arena, b.constants, b.plan, b.list = arena{limit: b.arena.limit}, 0, p, list
	wire(b)
	if b.peak != measured && b.err == nil {
		b.err = fmt.Errorf("the plan took %d bytes where %d were measured", b.peak, measured)
	}
	if b.err != nil {
		return nil, errors.Join(b.err, p.close())
	}
	return p, nil
}
