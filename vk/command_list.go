package vk

// #include "native.h"
import "C"

import (
	"context"
	"fmt"
	"slices"
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
	mu     mutex

	ops      []byte  // the steps' operations, as they were recorded
	patches  []patch // places in the operations that a slot decides
	bindings []*Binding
	steps    []step
	uses     map[*Buffer][]Access // what the steps touch, each once
	buffers  []*Buffer

	order    []int  // the steps, as they run
	barriers []bool // whether a barrier stands before a step, by place in the order
	cuts     []int  // places in the order where another submit starts: only where the work would keep the device busy for long
	segments [][]byte
	sets     [2]commandSet // of command buffers, for as many bindings
	set      *commandSet   // the one of the last run
	fence    fence

	pinned         []*Buffer // memory that the run in flight uses
	kernelPins     []*Kernel
	flops, bytes   float64
	queries        uint64
	timestamps     []uint64
	skippedBarrier int // for tests: the barrier that is left out, -1 for none

	ready   bool // recording has ended
	ran     bool // the last run was submitted whole
	stale   bool // the operations do not say what is bound
	pending bool // submitted and not waited for

	unfenced  bool // the submit failed midway: the run in flight has no fence yet
	abandoned bool // Close ran into an error; Device.Close tries again
	closed    bool
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
	workgroups uint64 // workgroups, 0 for fills and copies
	flops      float64
	bytes      float64
}

// Slot is a place on a tape for memory that is bound later, and again for later runs.
type Binding struct {
	list    *CommandList
	name    string
	size    uint64
	written bool
	bound   Range
}

// Range stands for what will be bound.
func (b *Binding) Range() Range { return Range{binding: b, size: b.size} }

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
	l := &CommandList{dev: d, config: c, mu: newMutex(), skippedBarrier: -1}
	d.lists.add(l)
	return l, nil
}

// Device is the tape's device.
func (l *CommandList) Device() *Device { return l.dev }

// Work is the sum of Flops and Bytes of all dispatches.
func (l *CommandList) Work() (flops, bytes float64) { return l.flops, l.bytes }

// Kernels names the kernels of the dispatches, in the order of their recording.
func (l *CommandList) Kernels() []string {
	var names []string
	for _, s := range l.steps {
		names = append(names, s.name)
	}
	return names
}

// NewSlot makes a slot for size bytes.
func (l *CommandList) NewBinding(name string, size uint64) *Binding {
	l.mu.lock()
	defer l.mu.unlock()
	s := &Binding{list: l, name: name, size: size}
	l.bindings = append(l.bindings, s)
	return s
}

func (l *CommandList) fail(op string, err error) error {
	return fmt.Errorf("vk: command list %q: %s: %w", l.config.Name, op, err)
}

// recording checks that a step may be added.
func (l *CommandList) recording(op string, accesses []Access) error {
	if l.ready {
		return l.fail(op, fmt.Errorf("it has run, and cannot be recorded on any more"))
	}
	for i, a := range accesses {
		if a.Range.IsZero() {
			continue
		}
		if err := a.Range.valid(l.dev, l); err != nil {
			return l.fail(op, fmt.Errorf("argument %d %w", i, err))
		}
	}
	return nil
}

// Dispatch records a run of a kernel.
func (l *CommandList) Dispatch(d Dispatch) error {
	if err := l.begin(context.Background(), "Dispatch"); err != nil {
		return err
	}
	defer l.end()
	if d.Kernel == nil {
		return l.fail("Dispatch", fmt.Errorf("Kernel is nil"))
	}
	op := "Dispatch " + d.Kernel.name
	if err := l.recording(op, d.Args); err != nil {
		return err
	}
	if err := l.fits(d); err != nil {
		return l.fail(op, err)
	}
	if n := len(l.steps); d.IndependentOfPrevious && (n == 0 || l.steps[n-1].kind != kindCompute) {
		return l.fail(op, fmt.Errorf("it is to be a part of the dispatch before, and there is none"))
	}
	if !d.Kernel.pin() {
		return l.fail(op, fmt.Errorf("the kernel is %w", ErrClosed))
	}
	l.kernelPins = append(l.kernelPins, d.Kernel)
	from := len(l.ops)
	l.ops = appendDispatch(l.ops, d.Kernel, d.Groups)
	copy(l.ops[from+dispatchHead+8*len(d.Args):], d.Push)
	for i, a := range d.Args {
		l.place(a.Range, from, dispatchHead+8*i, false)
	}
	unit := len(l.steps)
	if d.IndependentOfPrevious {
		unit = l.steps[unit-1].unit
	}
	groups := uint64(d.Groups[0]) * uint64(d.Groups[1]) * uint64(d.Groups[2])
	l.step(step{name: d.Kernel.name, accesses: slices.Clone(d.Args), from: from, unit: unit, kind: kindCompute, workgroups: groups, flops: d.Flops, bytes: d.Bytes})
	return nil
}

// fits checks a dispatch against the kernel and the device.
func (l *CommandList) fits(d Dispatch) error {
	if d.Kernel.dev != l.dev {
		return fmt.Errorf("the kernel is of another device")
	}
	if have := 8*len(d.Args) + len(d.Push); have != int(d.Kernel.push) {
		return fmt.Errorf("%d addresses and %d bytes make %d bytes of push constants, the kernel has %d", len(d.Args), len(d.Push), have, d.Kernel.push)
	}
	for i, n := range d.Groups {
		if limit := l.dev.info.Caps.MaxWorkgroupCount[i]; n == 0 || n > limit {
			return fmt.Errorf("%d workgroups, the device allows 1 to %d each", d.Groups, l.dev.info.Caps.MaxWorkgroupCount)
		}
	}
	return nil
}

// Fill records that every 32-bit word of r becomes word. Offset and size are multiples of 4.
func (l *CommandList) Fill(r Range, word uint32) error {
	if err := l.begin(context.Background(), "Fill"); err != nil {
		return err
	}
	defer l.end()
	access := []Access{Write(r)}
	if err := l.transferable("Fill", access); err != nil {
		return err
	}
	if r.offset%4 != 0 || r.size%4 != 0 {
		return l.fail("Fill", fmt.Errorf("bytes [%d, +%d) are no whole words", r.offset, r.size))
	}
	from := len(l.ops)
	l.ops = appendFill(l.ops, 0, 0, r.size, word)
	l.place(r, from, 8, true)
	l.step(step{name: "fill", accesses: access, from: from, unit: len(l.steps), kind: kindTransfer, bytes: float64(r.size)})
	return nil
}

// Copy records a copy. The ranges are of one size and do not overlap.
func (l *CommandList) Copy(dst, src Range) error {
	if err := l.begin(context.Background(), "Copy"); err != nil {
		return err
	}
	defer l.end()
	accesses := []Access{Write(dst), Read(src)}
	if err := l.transferable("Copy", accesses); err != nil {
		return err
	}
	if dst.size != src.size || dst.overlaps(src) {
		return l.fail("Copy", fmt.Errorf("%d bytes of %s to %d bytes of %s: the sizes differ, or they overlap", src.size, src.name(), dst.size, dst.name()))
	}
	from := len(l.ops)
	l.ops = appendCopy(l.ops, 0, 0, 0, 0, src.size)
	l.place(src, from, 8, true)
	l.place(dst, from, 24, true)
	l.step(step{name: "copy", accesses: accesses, from: from, unit: len(l.steps), kind: kindTransfer, bytes: 2 * float64(src.size)})
	return nil
}

func (l *CommandList) transferable(op string, accesses []Access) error {
	for i, a := range accesses {
		if a.Range.IsZero() {
			return l.fail(op, fmt.Errorf("argument %d is the zero Range", i))
		}
	}
	return l.recording(op, accesses)
}

// step notes a step whose operation was recorded.
func (l *CommandList) step(s step) {
	s.size = len(l.ops) - s.from
	l.steps = append(l.steps, s)
	l.flops += s.flops
	l.bytes += s.bytes
	for _, a := range s.accesses {
		if a.Range.binding != nil {
			a.Range.binding.written = a.Range.binding.written || a.write
		}
	}
}

// place writes the address of a range (or its buffer and offset) into the operation that starts at from and is about to be a step, or notes
// that a slot decides it.
func (l *CommandList) place(r Range, from, at int, pair bool) {
	switch {
	case r.binding != nil:
		l.patches = append(l.patches, patch{step: len(l.steps), at: at, binding: r.binding, offset: r.offset, pair: pair})
	case r.buf != nil:
		r.write(l.ops[from+at:], pair)
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

// Close frees the list, after waiting for the run in flight. If the device does not finish within Options.Timeout the error
// is ErrTimeout and the list stays open; Close may be called again, and Device.Close tries again too. Closing a closed list
// does nothing.
func (l *CommandList) Close() error {
	if l == nil {
		return nil
	}
	l.dev.lifetime.RLock()
	defer l.dev.lifetime.RUnlock()
	l.mu.lock()
	defer l.mu.unlock()
	if l.closed {
		return nil
	}
	if l.dev.closed.Load() { // it has reported the list
		l.release(false)
		return nil
	}
	if err := l.drain(l.dev.timeout); err != nil {
		l.abandoned = true
		return l.fail("Close", err)
	}
	l.release(true)
	return nil
}

// release frees what the list holds. Without destroy the Vulkan objects are left to the operating system.
func (l *CommandList) release(destroy bool) {
	l.closed = true
	l.dev.lists.remove(l)
	for _, k := range l.kernelPins {
		k.uses.Add(-1)
	}
	if !destroy {
		return
	}
	for i := range l.sets {
		l.sets[i].destroy(l.dev)
	}
	l.fence.destroy(l.dev)
	vulkan.DestroyQueryPool(l.dev.handle, *(*vulkan.QueryPool)(unsafe.Pointer(&l.queries)), nil)
}
