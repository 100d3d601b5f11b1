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

// CommandListConfig configures a command list.
type CommandListConfig struct {
	Name              string // for error messages
	Profile           bool   // time every step, see CommandList.StepTimes; the steps then run one after the other
	BarrierEverywhere bool   // a barrier before every step, needed or not; for tests: the results must not change
}

// CommandList is a recorded list of dispatches, fills and copies with the barriers between them. It is recorded once
// and run any number of times. A run is one wait, and one submit unless it has more than 0.5 TFLOP. Memory that changes
// from run to run is bound to bindings.
//
// Steps run by dependency level: the level of a step is one more than the highest level of the earlier steps that it
// depends on. Steps of one level run without barriers between them, wherever they were recorded, so independent
// branches overlap. With Profile or BarrierEverywhere the steps run in recorded order.
//
// A command list belongs to the device that made it. Its methods may be called from several goroutines and exclude each
// other; a caller that binds memory and then runs must keep the two calls together.
type CommandList struct {
	dev    *Device
	config CommandListConfig
	mu     mutex

	ops      []byte  // commands of the steps in the layout of native.h, in recorded order
	patches  []patch // places in the commands that depend on bindings
	bindings []*Binding
	steps    []step
	buffers  []*Buffer // that the steps access directly, in the order of their first use

	scheduled    bool          // order, barriers and submitStarts match the steps
	order        []int         // the steps, in the order in which they run
	barriers     []bool        // whether a barrier precedes a step; indexed like order
	submitStarts []int         // indices into order at which another submit starts; see segmentFlops
	segments     [][]byte      // commands of each submit
	sets         [2]commandSet // command buffers for the two sets of bound memory used last
	set          *commandSet   // of the last run
	fence        fence

	pinned         []*Buffer // memory that the run in flight uses
	kernelPins     []*Kernel
	flops, bytes   float64
	queries        uint64
	timestamps     []uint64
	skippedBarrier int // for tests: number of the barrier to leave out, -1 for none

	ready   bool // recording has ended
	ran     bool // the last run was submitted completely
	stale   bool // set does not match what is bound
	pending bool // submitted and not waited for

	fenceMissing bool // the submit failed midway: the run in flight has no fence yet
	abandoned    bool // Close ran into an error; Device.Close tries again
	closed       bool
}

// patch is a place in the commands that holds the address of a binding, or its buffer and offset.
type patch struct {
	step, at int // at: bytes from the start of the step's command
	segment  int // segment that holds the command,
	start    int // and the start of the command in it
	binding  *Binding
	offset   uint64
	pair     bool // buffer and offset instead of an address
}

// step is a dispatch, fill or copy.
type step struct {
	name           string
	accesses       []Access // without absent arguments
	from, size     int      // its command in ops
	independentSet int      // index of the first step of its set, see Dispatch.IndependentOfPrevious
	kind           uint32   // C5_COMPUTE or C5_TRANSFER
	workgroups     uint64   // 0 for fills and copies
	flops          float64
	bytes          float64
}

// Binding is an argument of a command list whose memory is bound before a run, and may be replaced before each later run.
type Binding struct {
	list    *CommandList
	name    string
	size    uint64
	written bool // by a step
	bound   Range
}

// Range represents the memory that will be bound.
func (b *Binding) Range() Range { return Range{binding: b, size: b.size} }

// Access is a range and how a dispatch accesses it.
type Access struct {
	Range       Range
	read, write bool
}

// Read declares that a dispatch reads r. The zero Range is an absent argument, address 0; so also in Write and ReadWrite.
func Read(r Range) Access { return Access{Range: r, read: true} }

// Write declares that a dispatch writes r.
func Write(r Range) Access { return Access{Range: r, write: true} }

// ReadWrite declares that a dispatch reads and writes r.
func ReadWrite(r Range) Access { return Access{Range: r, read: true, write: true} }

// Dispatch is one launch of a kernel.
type Dispatch struct {
	Kernel *Kernel
	Groups [3]uint32 // workgroups
	Args   []Access  // the addresses at the start of the push constants, in order
	Push   []byte    // the push constants that follow, see Scalars
	Flops  float64   // floating-point operations; 0: not counted
	Bytes  float64   // minimum memory traffic; 0: not counted. of more than 1.5 GB there are several steps, see Grid

	// Indirect is memory that the kernel accesses through addresses in device memory, see Range.Address; not of bindings.
	Indirect []Access

	// IndependentOfPrevious adds the dispatch to the set of the dispatch recorded before it. The caller promises that no
	// dispatch of a set accesses bytes that another one writes. The ranges in their Args may overlap.
	IndependentOfPrevious bool
}

// NewCommandList makes an empty command list.
func (d *Device) NewCommandList(c CommandListConfig) (*CommandList, error) {
	if err := d.beginCallOp("NewCommandList"); err != nil {
		return nil, err
	}
	defer d.endCall()
	l := &CommandList{dev: d, config: c, mu: newMutex(), skippedBarrier: -1}
	d.lists.add(l)
	return l, nil
}

// Device returns the list's device.
func (l *CommandList) Device() *Device { return l.dev }

// Work returns the sums of Flops and Bytes over all dispatches, and the bytes of fills and copies.
func (l *CommandList) Work() (flops, bytes float64) { return l.flops, l.bytes }

// StepNames returns the names of the steps in recorded order: the kernel of a dispatch, "fill" or "copy".
func (l *CommandList) StepNames() []string {
	var names []string
	for _, s := range l.steps {
		names = append(names, s.name)
	}
	return names
}

// Steps returns the number of steps.
func (l *CommandList) Steps() int { return len(l.steps) }

// NewBinding makes a binding of size bytes.
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

// checkArguments checks that a step may be recorded.
func (l *CommandList) checkArguments(op string, accesses []Access) error {
	if l.ready {
		return l.fail(op, fmt.Errorf("recording ended with Finish or the first run"))
	}
	for i, a := range accesses {
		if a.Range.IsZero() {
			continue
		}
		err := a.Range.valid(l.dev, l)
		if err == nil && op != "Copy" {
			err = a.Range.onDevice()
		}
		if err != nil {
			return l.fail(op, fmt.Errorf("argument %d %w", i, err))
		}
	}
	return nil
}

// checkIndirect checks memory that a dispatch accesses through addresses in device memory.
func (l *CommandList) checkIndirect(op string, accesses []Access) error {
	for i, a := range accesses {
		err := a.Range.valid(l.dev, l)
		if err == nil && a.Range.binding != nil {
			err = fmt.Errorf("is of binding %q, want a range of a buffer: its address is not known before a run", a.Range.binding.name)
		}
		if err != nil {
			return l.fail(op, fmt.Errorf("indirect access %d %w", i, err))
		}
	}
	return nil
}

// Dispatch records a launch of a kernel.
func (l *CommandList) Dispatch(d Dispatch) error {
	if err := l.lockForCall(context.Background(), "Dispatch"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if d.Kernel == nil {
		return l.fail("Dispatch", fmt.Errorf("Kernel is nil"))
	}
	op := "Dispatch " + d.Kernel.name
	if err := l.checkArguments(op, d.Args); err != nil {
		return err
	}
	if err := l.checkIndirect(op, d.Indirect); err != nil {
		return err
	}
	if err := l.checkDispatch(d); err != nil {
		return l.fail(op, err)
	}
	if n := len(l.steps); d.IndependentOfPrevious && (n == 0 || l.steps[n-1].kind != kindCompute) {
		return l.fail(op, fmt.Errorf("IndependentOfPrevious needs a dispatch recorded just before"))
	}
	if !d.Kernel.pin() {
		return l.fail(op, fmt.Errorf("the kernel is %w", ErrClosed))
	}
	l.kernelPins = append(l.kernelPins, d.Kernel)
	parts := []gridPart{{groups: d.Groups}}
	if d.Bytes > l.dev.dispatchBytes {
		parts = divide(d.Groups, l.dev.dispatchBytes/d.Bytes)
	}
	set := len(l.steps)
	if d.IndependentOfPrevious {
		set = l.steps[set-1].independentSet
	}
	present := slices.DeleteFunc(slices.Concat(d.Args, d.Indirect), func(a Access) bool { return a.Range.IsZero() })
	all := float64(gridPart{groups: d.Groups}.count())
	for _, part := range parts {
		p, push, err := d.Kernel.forPart(part.base)
		if err != nil {
			return l.fail(op, err)
		}
		from := len(l.ops)
		l.ops = appendDispatch(l.ops, p, part.groups, push)
		copy(l.ops[from+dispatchHead+8*len(d.Args):], d.Push)
		if push > d.Kernel.push {
			copy(l.ops[from+dispatchHead+int(d.Kernel.push):], Bytes(part.base[:]))
		}
		for i, a := range d.Args {
			l.putRange(a.Range, from, dispatchHead+8*i, false)
		}
		share := float64(part.count()) / all
		l.addStep(step{name: d.Kernel.name, accesses: present, from: from, independentSet: set, kind: kindCompute, workgroups: part.count(),
			flops: d.Flops * share, bytes: d.Bytes * share})
	}
	return nil
}

// checkDispatch checks a dispatch against the limits of the kernel and the device.
func (l *CommandList) checkDispatch(d Dispatch) error {
	if d.Kernel.dev != l.dev {
		return fmt.Errorf("the kernel belongs to another device")
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

// Fill records that every 32-bit word of r is set to word. The offset and size of r are multiples of 4.
func (l *CommandList) Fill(r Range, word uint32) error {
	if err := l.lockForCall(context.Background(), "Fill"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if err := l.checkTransfer("Fill", []Access{Write(r)}); err != nil {
		return err
	}
	if r.offset%4 != 0 || r.size%4 != 0 {
		return l.fail("Fill", fmt.Errorf("offset %d and size %d, want multiples of 4", r.offset, r.size))
	}
	set := len(l.steps)
	for at, most := uint64(0), uint64(l.dev.dispatchBytes)&^3; at < r.size; at += most {
		part, from := r.Slice(at, min(most, r.size-at)), len(l.ops)
		l.ops = appendFill(l.ops, 0, 0, part.size, word)
		l.putRange(part, from, 8, true)
		l.addStep(step{name: "fill", accesses: []Access{Write(part)}, from: from, independentSet: set, kind: kindTransfer, bytes: float64(part.size)})
	}
	return nil
}

// Copy records a copy. The ranges have the same size and do not overlap.
func (l *CommandList) Copy(dst, src Range) error {
	if err := l.lockForCall(context.Background(), "Copy"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if err := l.checkTransfer("Copy", []Access{Write(dst), Read(src)}); err != nil {
		return err
	}
	if dst.size != src.size {
		return l.fail("Copy", fmt.Errorf("%d bytes of %s to %d bytes of %s, want equal sizes", src.size, src.name(), dst.size, dst.name()))
	}
	if dst.overlaps(src) {
		return l.fail("Copy", fmt.Errorf("offset %d to offset %d of %s, %d bytes: the ranges overlap", src.offset, dst.offset, src.name(), src.size))
	}
	set := len(l.steps)
	for at, most := uint64(0), uint64(l.dev.dispatchBytes/2)&^3; at < src.size; at += most {
		size, from := min(most, src.size-at), len(l.ops)
		to, of := dst.Slice(at, size), src.Slice(at, size)
		l.ops = appendCopy(l.ops, 0, 0, 0, 0, size)
		l.putRange(of, from, 8, true)
		l.putRange(to, from, 24, true)
		l.addStep(step{name: "copy", accesses: []Access{Write(to), Read(of)}, from: from, independentSet: set, kind: kindTransfer, bytes: 2 * float64(size)})
	}
	return nil
}

func (l *CommandList) checkTransfer(op string, accesses []Access) error {
	for i, a := range accesses {
		if a.Range.IsZero() {
			return l.fail(op, fmt.Errorf("argument %d is the zero Range", i))
		}
	}
	return l.checkArguments(op, accesses)
}

// addStep appends a step whose command was just appended to ops.
func (l *CommandList) addStep(s step) {
	l.scheduled = false
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

// putRange writes the address of a range, or its buffer and offset, into the command of the next step, which starts
// at from. For a binding it adds a patch.
func (l *CommandList) putRange(r Range, from, at int, pair bool) {
	switch {
	case r.binding != nil:
		l.patches = append(l.patches, patch{step: len(l.steps), at: at, binding: r.binding, offset: r.offset, pair: pair})
	case r.buf != nil:
		r.put(l.ops[from+at:], pair)
	}
}

// put writes the address of a range, or its buffer and offset.
func (r Range) put(ops []byte, pair bool) {
	if !pair {
		byteOrder.PutUint64(ops, r.address())
		return
	}
	byteOrder.PutUint64(ops, r.buf.block.buffer)
	byteOrder.PutUint64(ops[8:], r.buf.offset+r.offset)
}

// overlaps reports whether two ranges of one buffer or binding share a byte. Memory bound to different bindings is
// compared by checkAliases.
func (r Range) overlaps(o Range) bool {
	return !r.IsZero() && r.buf == o.buf && r.binding == o.binding && r.offset < o.offset+o.size && o.offset < r.offset+r.size
}

// Close frees the list, after waiting for the run in flight. If the device does not finish within Options.Timeout the
// error is ErrTimeout and the list stays open; Close may be called again, and Device.Close tries again too. Closing a
// closed list does nothing.
func (l *CommandList) Close() error {
	if l == nil {
		return nil
	}
	open := l.dev.closes.enter()
	if open {
		defer l.dev.closes.leave()
	}
	l.mu.lock()
	defer l.mu.unlock()
	if l.closed {
		return nil
	}
	if !open { // Device.Close has reported the list
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
