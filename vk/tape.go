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
// A run goes through the steps by levels: a step's level is one more than the highest of the steps before it that it has to wait for. Steps of
// a level have no barrier between them, wherever they were recorded, so that branches overlap. With Profile or BarrierEverywhere the steps run as
// they were recorded.
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

	kernelPins   []*Kernel
	stamps       []place
	flops, bytes float64
	queries      uint64
	ticks        []uint64
	planted      int // for tests: the step whose barrier is left out, -1 for none

	arranged bool // the steps stand in the order of their run, in segments
	ready    bool // recording has ended
	ran      bool // the last run was submitted whole
	stale    bool // the command buffers do not say what the operations say
	pending  bool // submitted and not waited for
	closed   bool
}

type segment struct {
	commands
	ops   []byte
	flops float64
}

// segmentFlops is the work after which a tape goes on in another submit. Slow devices do some 0.5 TFLOP/s, and some systems stop
// work that takes two seconds.
const segmentFlops = 5e11

// patch is a place in a step's, then in a segment's operations where the address of a slot stands (or its buffer and offset).
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
	flops    float64
	bytes    float64
	recorded int    // its place in the recording
	ops      []byte // its operation, and what slots decide of it
	patches  []patch

	barrier bool // a barrier stands before it
	segment int
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
	return nil
}

// Device is the tape's device.
func (t *Tape) Device() *Device { return t.dev }

// Work is the sum of Flops and Bytes of all dispatches.
func (t *Tape) Work() (flops, bytes float64) { return t.flops, t.bytes }

// Kernels names the kernels of the dispatches, in order: as they were recorded, and once the tape has run, as they run.
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
	if !d.Kernel.pin() {
		return t.fail(op, fmt.Errorf("the kernel is %w", ErrClosed))
	}
	t.kernelPins = append(t.kernelPins, d.Kernel)
	s := step{name: d.Kernel.name, accesses: slices.Clone(d.Args), flops: d.Flops, bytes: d.Bytes, ops: appendDispatch(nil, d.Kernel, d.Groups)}
	for i, a := range d.Args {
		s.place(a.Range, dispatchHead+8*i, false)
	}
	copy(s.ops[dispatchHead+8*len(d.Args):], d.Push)
	t.step(s)
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
	s := step{name: "fill", accesses: access, bytes: float64(r.size), ops: appendFill(nil, 0, 0, r.size, word)}
	s.place(r, 8, true)
	t.step(s)
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
	s := step{name: "copy", accesses: accesses, bytes: 2 * float64(src.size), ops: appendCopy(nil, 0, 0, 0, 0, src.size)}
	s.place(src, 8, true)
	s.place(dst, 8+16, true)
	t.step(s)
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

// step notes a step.
func (t *Tape) step(s step) {
	s.recorded = len(t.steps)
	t.steps = append(t.steps, s)
	t.flops += s.flops
	t.bytes += s.bytes
	for _, a := range s.accesses {
		if a.Range.IsZero() {
			continue
		}
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

// place writes the address of a range (or its buffer and offset) into the operation, or notes that a slot decides it.
func (s *step) place(r Range, at int, pair bool) {
	switch {
	case r.slot != nil:
		s.patches = append(s.patches, patch{at: at, slot: r.slot, offset: r.offset, pair: pair})
	case r.buf != nil:
		r.write(s.ops[at:], pair)
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
