package vk

// #include "native.h"
import "C"

import (
	"fmt"
	"slices"
	"sync"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// TapeConfig says how a tape is recorded.
type CommandListConfig struct {
	Name              string // for messages
	Profile           bool   // time every step, see Tape.Steps; the steps then run one after the other
	BarrierEverywhere bool   // a barrier before every step, needed or not: the results must not change
}

// Tape is a recorded list of dispatches, fills and copies, with the barriers that they need. Record it once, then run it as often as
// wanted: a run is one submit and one wait. What changes from run to run is bound to slots.
//
// A run goes through the steps by levels: a step's level is one more than the highest of the steps before it that it has to wait for. Steps of
// a level have no barrier between them, wherever they were recorded, so that branches overlap. With Profile or BarrierEverywhere the steps run as
// they were recorded.
//
// A tape belongs to the device that made it. Its methods may be called by several goroutines, one after the other; binding
// slots and running is a pair of calls, which the caller must keep together.
type CommandList struct {
	dev    *Device
	config CommandListConfig
	mu     sync.Mutex

	ops     []byte  // the steps' operations, as they were recorded
	patches []patch // places in the operations that a slot decides
	slots   []*Binding
	steps   []step
	own     map[*Buffer][]Access // what the steps touch, each once
	buffers []*Buffer

	order    []int  // the steps, as they run
	barriers []bool // whether a barrier stands before a step, by place in the order
	cuts     []int  // places in the order where another submit starts: only where the work would keep the device busy for long
	segments [][]byte
	sets     [2]commandSet // of command buffers, for as many bindings
	set      *commandSet   // the one of the last run
	fence    fence

	kernelPins   []*Kernel
	flops, bytes float64
	queries      uint64
	ticks        []uint64
	planted      int // for tests: the barrier that is left out, -1 for none

	ready   bool // recording has ended
	ran     bool // the last run was submitted whole
	stale   bool // the operations do not say what is bound
	pending bool // submitted and not waited for
	closed  bool
}

// patch is a place in the operations where the address of a slot stands (or its buffer and offset).
type patch struct {
	step, at int // at: from the start of the step's operation on
	segment  int // where that is: in this segment,
	start    int // from there on
	binding  *Binding
	offset   uint64
	pair     bool
}

// step is a dispatch, fill or copy.
type step struct {
	name       string
	accesses   []Access
	from, size int    // its operation
	unit       int    // the step that it is a part of, mostly itself
	kind       uint32 // C5_COMPUTE or C5_TRANSFER
	groups     uint64 // workgroups, 0 for fills and copies
	flops      float64
	bytes      float64
}

// Slot is a place on a tape for memory that is bound later, and again for later runs.
type Binding struct {
	list  *CommandList
	name  string
	size  uint64
	wrote bool
	bound Range
}

// Range stands for what will be bound.
func (s *Binding) Range() Range { return Range{binding: s, size: s.size} }

// Access is a range with what a dispatch does to it.
type Access struct {
	Range       Range
	read, write bool
}

// Read says that a dispatch reads r. A zero Range is an absent argument, address 0, here and in Write and ReadWrite.
func Read(r Range) Access { return Access{Range: r, read: true} }

// Write says that a dispatch writes r.
func Write(r Range) Access { return Access{Range: r, write: true} }

// ReadWrite says that a dispatch reads and writes r.
func ReadWrite(r Range) Access { return Access{Range: r, read: true, write: true} }

// Dispatch is one run of a kernel.
type Dispatch struct {
	Kernel                *Kernel
	Groups                [3]uint32 // workgroups
	Args                  []Access  // the addresses at the head of the push constants, in order
	Push                  []byte    // the push constants after them, see Scalars
	Flops                 float64   // floating-point operations, 0 where they do not matter
	Bytes                 float64   // memory that must be moved at least
	IndependentOfPrevious bool      // it goes on with the work of the dispatch recorded before: neither touches what the other writes, whatever Args say
}

// NewTape makes an empty tape.
func (d *Device) NewCommandList(c CommandListConfig) (*CommandList, error) {
	if err := d.enter("NewTape"); err != nil {
		return nil, err
	}
	defer d.leave()
	d.lists.Add(1)
	return &CommandList{dev: d, config: c, planted: -1}, nil
}

// Device is the tape's device.
func (t *CommandList) Device() *Device { return t.dev }

// Work is the sum of Flops and Bytes of all dispatches.
func (t *CommandList) Work() (flops, bytes float64) { return t.flops, t.bytes }

// Kernels names the kernels of the dispatches, in the order of their recording.
func (t *CommandList) Kernels() []string {
	var names []string
	for _, s := range t.steps {
		names = append(names, s.name)
	}
	return names
}

// NewSlot makes a slot for size bytes.
func (t *CommandList) NewBinding(name string, size uint64) *Binding {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Binding{list: t, name: name, size: size}
	t.slots = append(t.slots, s)
	return s
}

func (t *CommandList) fail(op string, err error) error {
	return fmt.Errorf("vk: tape %q: %s: %w", t.config.Name, op, err)
}

// recording checks that a step may be added.
func (t *CommandList) recording(op string, accesses []Access) error {
	if t.ready {
		return t.fail(op, fmt.Errorf("it has run, and cannot be recorded on any more"))
	}
	for i, a := range accesses {
		if a.Range.IsZero() {
			continue
		}
		if err := a.Range.valid(t.dev, t); err != nil {
			return t.fail(op, fmt.Errorf("argument %d %w", i, err))
		}
	}
	return nil
}

// Dispatch records a run of a kernel.
func (t *CommandList) Dispatch(d Dispatch) error {
	if err := t.begin("Dispatch"); err != nil {
		return err
	}
	defer t.end()
	if d.Kernel == nil {
		return t.fail("Dispatch", fmt.Errorf("Kernel is nil"))
	}
	op := "Dispatch " + d.Kernel.name
	if err := t.recording(op, d.Args); err != nil {
		return err
	}
	if err := t.fits(d); err != nil {
		return t.fail(op, err)
	}
	if n := len(t.steps); d.IndependentOfPrevious && (n == 0 || t.steps[n-1].kind != kindCompute) {
		return t.fail(op, fmt.Errorf("it is to be a part of the dispatch before, and there is none"))
	}
	if !d.Kernel.pin() {
		return t.fail(op, fmt.Errorf("the kernel is %w", ErrClosed))
	}
	t.kernelPins = append(t.kernelPins, d.Kernel)
	from := len(t.ops)
	t.ops = appendDispatch(t.ops, d.Kernel, d.Groups)
	copy(t.ops[from+dispatchHead+8*len(d.Args):], d.Push)
	for i, a := range d.Args {
		t.place(a.Range, from, dispatchHead+8*i, false)
	}
	unit := len(t.steps)
	if d.IndependentOfPrevious {
		unit = t.steps[unit-1].unit
	}
	groups := uint64(d.Groups[0]) * uint64(d.Groups[1]) * uint64(d.Groups[2])
	t.step(step{name: d.Kernel.name, accesses: slices.Clone(d.Args), from: from, unit: unit, kind: kindCompute, groups: groups, flops: d.Flops, bytes: d.Bytes})
	return nil
}

// fits checks a dispatch against the kernel and the device.
func (t *CommandList) fits(d Dispatch) error {
	if d.Kernel.dev != t.dev {
		return fmt.Errorf("the kernel is of another device")
	}
	if have := 8*len(d.Args) + len(d.Push); have != int(d.Kernel.push) {
		return fmt.Errorf("%d addresses and %d bytes make %d bytes of push constants, the kernel has %d", len(d.Args), len(d.Push), have, d.Kernel.push)
	}
	for i, n := range d.Groups {
		if limit := t.dev.info.Caps.MaxWorkgroupCount[i]; n == 0 || n > limit {
			return fmt.Errorf("%d workgroups, the device allows 1 to %d each", d.Groups, t.dev.info.Caps.MaxWorkgroupCount)
		}
	}
	return nil
}

// Fill records that every 32-bit word of r becomes word. Offset and size are multiples of 4.
func (t *CommandList) Fill(r Range, word uint32) error {
	if err := t.begin("Fill"); err != nil {
		return err
	}
	defer t.end()
	access := []Access{Write(r)}
	if err := t.transferable("Fill", access); err != nil {
		return err
	}
	if r.offset%4 != 0 || r.size%4 != 0 {
		return t.fail("Fill", fmt.Errorf("bytes [%d, +%d) are no whole words", r.offset, r.size))
	}
	from := len(t.ops)
	t.ops = appendFill(t.ops, 0, 0, r.size, word)
	t.place(r, from, 8, true)
	t.step(step{name: "fill", accesses: access, from: from, unit: len(t.steps), kind: kindTransfer, bytes: float64(r.size)})
	return nil
}

// Copy records a copy. The ranges are of one size and do not overlap.
func (t *CommandList) Copy(dst, src Range) error {
	if err := t.begin("Copy"); err != nil {
		return err
	}
	defer t.end()
	accesses := []Access{Write(dst), Read(src)}
	if err := t.transferable("Copy", accesses); err != nil {
		return err
	}
	if dst.size != src.size || dst.overlaps(src) {
		return t.fail("Copy", fmt.Errorf("%d bytes of %s to %d bytes of %s: the sizes differ, or they overlap", src.size, src.name(), dst.size, dst.name()))
	}
	from := len(t.ops)
	t.ops = appendCopy(t.ops, 0, 0, 0, 0, src.size)
	t.place(src, from, 8, true)
	t.place(dst, from, 24, true)
	t.step(step{name: "copy", accesses: accesses, from: from, unit: len(t.steps), kind: kindTransfer, bytes: 2 * float64(src.size)})
	return nil
}

func (t *CommandList) transferable(op string, accesses []Access) error {
	for i, a := range accesses {
		if a.Range.IsZero() {
			return t.fail(op, fmt.Errorf("argument %d is the zero Range", i))
		}
	}
	return t.recording(op, accesses)
}

// step notes a step whose operation was recorded.
func (t *CommandList) step(s step) {
	s.size = len(t.ops) - s.from
	t.steps = append(t.steps, s)
	t.flops += s.flops
	t.bytes += s.bytes
	for _, a := range s.accesses {
		if a.Range.binding != nil {
			a.Range.binding.wrote = a.Range.binding.wrote || a.write
		}
	}
}

// place writes the address of a range (or its buffer and offset) into the operation that starts at from and is about to be a step, or notes
// that a slot decides it.
func (t *CommandList) place(r Range, from, at int, pair bool) {
	switch {
	case r.binding != nil:
		t.patches = append(t.patches, patch{step: len(t.steps), at: at, binding: r.binding, offset: r.offset, pair: pair})
	case r.buf != nil:
		r.write(t.ops[from+at:], pair)
	}
}

func (r Range) write(ops []byte, pair bool) {
	if !pair {
		order.PutUint64(ops, r.address())
		return
	}
	order.PutUint64(ops, r.buf.block.buffer)
	order.PutUint64(ops[8:], r.buf.offset+r.offset)
}

// overlaps says whether two ranges of one buffer or slot share a byte. What is bound to different slots is compared when it is bound.
func (r Range) overlaps(o Range) bool {
	return !r.IsZero() && r.buf == o.buf && r.binding == o.binding && r.offset < o.offset+o.size && o.offset < r.offset+r.size
}

// Close frees the tape, after waiting for what it has submitted. Closing again does nothing.
func (t *CommandList) Close() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dev.life.RLock()
	defer t.dev.life.RUnlock()
	if t.closed {
		return nil
	}
	if err := t.wait(); err != nil {
		if !t.dev.lost.Load() {
			return t.fail("Close", err)
		}
		t.pending = false // nothing runs on a lost device
		t.unpin()
	}
	t.closed = true
	t.dev.lists.Add(-1)
	for _, k := range t.kernelPins {
		k.uses.Add(-1)
	}
	if t.dev.closed.Load() {
		return nil
	}
	for i := range t.sets {
		t.sets[i].destroy(t.dev)
	}
	t.fence.destroy(t.dev)
	vulkan.DestroyQueryPool(t.dev.handle, *(*vulkan.QueryPool)(unsafe.Pointer(&t.queries)), nil)
	return nil
}
