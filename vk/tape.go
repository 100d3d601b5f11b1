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
type TapeConfig struct {
	Name              string // for messages
	Profile           bool   // time every step, see Tape.Steps; the steps then run one after the other
	BarrierEverywhere bool   // a barrier before every step, needed or not: the results must not change
}

// Tape is a recorded list of dispatches, fills and copies, with the barriers that they need. Record it once, then run it as often as
// wanted: a run is one submit and one wait. What changes from run to run is bound to slots.
//
// A tape belongs to the device that made it. Its methods may be called by several goroutines, one after the other; binding
// slots and running is a pair of calls, which the caller must keep together.
type Tape struct {
	dev    *Device
	config TapeConfig
	mu     sync.Mutex

	segments []*segment // each is one submit: more than one only where the work would keep the device busy for long
	patches  []patch    // places in the operations that a slot decides
	slots    []*Slot
	steps    []step
	uses     []Access // every range of a buffer that a step touches, each once
	buffers  []*Buffer
	since    []Access // what was touched since the last barrier

	kernelPins   []*Kernel
	stamps       []place
	flops, bytes float64
	queries      uint64
	ticks        []uint64
	planted      int // for tests: the step whose barrier is left out, -1 for none

	ready   bool // recording has ended
	ran     bool // the last run was submitted whole
	stale   bool // the command buffers do not say what the operations say
	pending bool // submitted and not waited for
	closed  bool
}

type segment struct {
	commands
	ops   []byte
	flops float64
}

// segmentFlops is the work after which a tape goes on in another submit. Slow devices do some 0.5 TFLOP/s, and some systems stop
// work that takes two seconds.
const segmentFlops = 5e11

// patch is a place in a segment's operations where the address of a slot stands (or its buffer and offset).
type patch struct {
	segment, at int
	slot        *Slot
	offset      uint64
	pair        bool
}

// step is a dispatch, fill or copy.
type step struct {
	name     string
	accesses []Access
	barrier  bool // a barrier stands before it
	segment  int
	flops    float64
	bytes    float64
}

// Slot is a place on a tape for memory that is bound later, and again for later runs.
type Slot struct {
	tape  *Tape
	name  string
	size  uint64
	wrote bool
	bound Range
}

// Range stands for what will be bound.
func (s *Slot) Range() Range { return Range{slot: s, size: s.size} }

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
	Kernel *Kernel
	Groups [3]uint32 // workgroups
	Args   []Access  // the addresses at the head of the push constants, in order
	Push   []byte    // the push constants after them, see Scalars
	Flops  float64   // floating-point operations, 0 where they do not matter
	Bytes  float64   // memory that must be moved at least
}

// NewTape makes an empty tape.
func (d *Device) NewTape(c TapeConfig) (*Tape, error) {
	if err := d.enter("NewTape"); err != nil {
		return nil, err
	}
	defer d.leave()
	t := &Tape{dev: d, config: c, planted: -1}
	if err := t.segment(); err != nil {
		return nil, fmt.Errorf("vk: NewTape %q: %w", c.Name, err)
	}
	d.tapes.Add(1)
	return t, nil
}

// segment starts another submit.
func (t *Tape) segment() error {
	s := &segment{}
	if err := s.open(t.dev); err != nil {
		return err
	}
	t.segments = append(t.segments, s)
	t.since = t.since[:0] // every submit starts with a barrier
	return nil
}

// Device is the tape's device.
func (t *Tape) Device() *Device { return t.dev }

// Work is the sum of Flops and Bytes of all dispatches.
func (t *Tape) Work() (flops, bytes float64) { return t.flops, t.bytes }

// Kernels names the kernels of the dispatches, in order.
func (t *Tape) Kernels() []string {
	var names []string
	for _, s := range t.steps {
		names = append(names, s.name)
	}
	return names
}

// NewSlot makes a slot for size bytes.
func (t *Tape) NewSlot(name string, size uint64) *Slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Slot{tape: t, name: name, size: size}
	t.slots = append(t.slots, s)
	return s
}

func (t *Tape) fail(op string, err error) error {
	return fmt.Errorf("vk: tape %q: %s: %w", t.config.Name, op, err)
}

// recording checks that a step may be added.
func (t *Tape) recording(op string, accesses []Access) error {
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
func (t *Tape) Dispatch(d Dispatch) error {
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
	if s := t.last(); s.flops > 0 && s.flops+d.Flops > segmentFlops {
		if err := t.segment(); err != nil {
			return t.fail(op, err)
		}
	}
	if !d.Kernel.pin() {
		return t.fail(op, fmt.Errorf("the kernel is %w", ErrClosed))
	}
	t.kernelPins = append(t.kernelPins, d.Kernel)
	t.step(step{name: d.Kernel.name, accesses: slices.Clone(d.Args), flops: d.Flops, bytes: d.Bytes})
	s := t.last()
	at := len(s.ops) + dispatchHead
	s.ops = appendDispatch(s.ops, d.Kernel, d.Groups)
	for i, a := range d.Args {
		t.place(a.Range, at+8*i, false)
	}
	copy(s.ops[at+8*len(d.Args):], d.Push)
	s.flops += d.Flops
	t.flops += d.Flops
	t.bytes += d.Bytes
	t.stamp()
	return nil
}

// fits checks a dispatch against the kernel and the device.
func (t *Tape) fits(d Dispatch) error {
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
func (t *Tape) Fill(r Range, word uint32) error {
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
	t.step(step{name: "fill", accesses: access, bytes: float64(r.size)})
	s := t.last()
	at := len(s.ops) + 8
	s.ops = appendFill(s.ops, 0, 0, r.size, word)
	t.place(r, at, true)
	t.bytes += float64(r.size)
	t.stamp()
	return nil
}

// Copy records a copy. The ranges are of one size and do not overlap.
func (t *Tape) Copy(dst, src Range) error {
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
	t.step(step{name: "copy", accesses: accesses, bytes: 2 * float64(src.size)})
	s := t.last()
	at := len(s.ops) + 8
	s.ops = appendCopy(s.ops, 0, 0, 0, 0, src.size)
	t.place(src, at, true)
	t.place(dst, at+16, true)
	t.bytes += 2 * float64(src.size)
	t.stamp()
	return nil
}

func (t *Tape) transferable(op string, accesses []Access) error {
	for i, a := range accesses {
		if a.Range.IsZero() {
			return t.fail(op, fmt.Errorf("argument %d is the zero Range", i))
		}
	}
	return t.recording(op, accesses)
}

func (t *Tape) last() *segment { return t.segments[len(t.segments)-1] }

// step notes a step and records the barrier that it needs.
func (t *Tape) step(s step) {
	s.segment = len(t.segments) - 1
	s.barrier = t.config.BarrierEverywhere || conflicts(t.since, s.accesses)
	if len(t.steps) == t.planted {
		s.barrier = false
	}
	if s.barrier {
		t.last().ops = appendBarrier(t.last().ops)
		t.since = t.since[:0]
	}
	t.steps = append(t.steps, s)
	for _, a := range s.accesses {
		if a.Range.IsZero() {
			continue
		}
		t.since = append(t.since, a)
		if a.Range.slot != nil {
			a.Range.slot.wrote = a.Range.slot.wrote || a.write
			continue
		}
		if !slices.Contains(t.uses, a) {
			t.uses = append(t.uses, a)
		}
		if !slices.Contains(t.buffers, a.Range.buf) {
			t.buffers = append(t.buffers, a.Range.buf)
		}
	}
}

// place writes the address of a range (or its buffer and offset) into the operations, or notes that a slot decides it.
func (t *Tape) place(r Range, at int, pair bool) {
	switch {
	case r.slot != nil:
		t.patches = append(t.patches, patch{len(t.segments) - 1, at, r.slot, r.offset, pair})
	case r.buf != nil:
		r.write(t.last().ops[at:], pair)
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
	return !r.IsZero() && r.buf == o.buf && r.slot == o.slot && r.offset < o.offset+o.size && o.offset < r.offset+r.size
}

// conflicts says whether a step must wait for what was touched before: a read after a write, or a write after anything.
func conflicts(before, now []Access) bool {
	for _, a := range now {
		for _, b := range before {
			if (a.write || b.write) && a.Range.overlaps(b.Range) {
				return true
			}
		}
	}
	return false
}

// check is the hazard checker. It knows nothing of how barriers were derived: it takes every pair of steps of a submit, and wants
// a barrier between those that touch a common byte, one of them writing.
func (t *Tape) check() error {
	for j, b := range t.steps {
		for i := j - 1; i >= 0; i-- {
			if t.steps[i+1].barrier || t.steps[i].segment != b.segment {
				break
			}
			a := t.steps[i]
			for _, x := range a.accesses {
				for _, y := range b.accesses {
					if (x.write || y.write) && x.Range.overlaps(y.Range) {
						return fmt.Errorf("hazard: step %d (%s) and step %d (%s) both touch %s, and there is no barrier between them",
							i, a.name, j, b.name, x.Range.name())
					}
				}
			}
		}
	}
	return nil
}

// Close frees the tape, after waiting for what it has submitted. Closing again does nothing.
func (t *Tape) Close() error {
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
	t.dev.tapes.Add(-1)
	for _, k := range t.kernelPins {
		k.uses.Add(-1)
	}
	if t.dev.closed.Load() {
		return nil
	}
	for _, s := range t.segments {
		s.destroy(t.dev)
	}
	vulkan.DestroyQueryPool(t.dev.handle, *(*vulkan.QueryPool)(unsafe.Pointer(&t.queries)), nil)
	return nil
}
