package vk

// #include "native.h"
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// begin begins a call: no other one is under way, and tape and device are open until end.
func (t *Tape) begin(op string) error {
	t.mu.Lock()
	err := t.dev.enter(op)
	if err == nil && t.closed {
		t.dev.leave()
		err = ErrClosed
	}
	if err != nil {
		t.mu.Unlock()
		return t.fail(op, err)
	}
	return nil
}

func (t *Tape) end() {
	t.dev.leave()
	t.mu.Unlock()
}

// Bind says what a slot stands for in the runs that follow. It has the slot's size and starts at a multiple of 16 bytes.
func (t *Tape) Bind(s *Slot, r Range) error {
	if err := t.begin("Bind"); err != nil {
		return err
	}
	defer t.end()
	if s == nil || s.tape != t {
		return t.fail("Bind", fmt.Errorf("the slot belongs to another tape"))
	}
	if r.slot != nil {
		return t.fail("Bind", fmt.Errorf("slot %q: the range is of a slot, want one of a buffer", s.name))
	}
	if err := r.valid(t.dev, t); err != nil {
		return t.fail("Bind", fmt.Errorf("slot %q: the range %w", s.name, err))
	}
	if r.size != s.size || r.offset%16 != 0 {
		return t.fail("Bind", fmt.Errorf("slot %q: %d bytes from byte %d on, want %d from a multiple of 16", s.name, r.size, r.offset, s.size))
	}
	if err := t.wait(); err != nil {
		return t.fail("Bind", err)
	}
	if s.bound != r {
		s.bound = r
		t.stale = true
	}
	return nil
}

// Run submits the tape and waits until it is done.
func (t *Tape) Run() error {
	if err := t.begin("Run"); err != nil {
		return err
	}
	defer t.end()
	if err := t.submit(); err != nil {
		return t.fail("Run", err)
	}
	if err := t.wait(); err != nil {
		return t.fail("Run", err)
	}
	return nil
}

// Submit starts the tape, after waiting for its last run. What it writes may be read after Wait.
func (t *Tape) Submit() error {
	if err := t.begin("Submit"); err != nil {
		return err
	}
	defer t.end()
	if err := t.submit(); err != nil {
		return t.fail("Submit", err)
	}
	return nil
}

// Wait waits for what Submit started. If the device does not finish in time the error is ErrTimeout, and Wait may be called again.
func (t *Tape) Wait() error {
	if err := t.begin("Wait"); err != nil {
		return err
	}
	defer t.end()
	if err := t.wait(); err != nil {
		return t.fail("Wait", err)
	}
	return nil
}

func (t *Tape) submit() error {
	if err := t.wait(); err != nil {
		return err
	}
	if !t.ready {
		if err := t.finish(); err != nil {
			return err
		}
	}
	if err := t.pin(); err != nil {
		return err
	}
	if err := t.start(); err != nil {
		t.unpin()
		return err
	}
	t.pending = true
	return nil
}

// commandSet is a command buffer for every segment of a tape, with the memory that was bound to the slots when it was written.
type commandSet struct {
	bound   []Range
	list    []commandBuffer
	buffers []unsafe.Pointer // those of list
	written bool
}

func (c *commandSet) destroy(d *Device) {
	for i := range c.list {
		c.list[i].destroy(d)
	}
	*c = commandSet{}
}

// open makes the command buffers, unless they are there.
func (c *commandSet) open(d *Device, count int) error {
	for len(c.list) < count {
		var b commandBuffer
		if err := b.open(d); err != nil {
			return err
		}
		c.list, c.buffers = append(c.list, b), append(c.buffers, b.buffer)
	}
	return nil
}

func (c *commandSet) fits(slots []*Slot) bool {
	if !c.written || len(c.bound) != len(slots) {
		return false
	}
	for i, s := range slots {
		if c.bound[i] != s.bound {
			return false
		}
	}
	return true
}

func (t *Tape) start() error {
	if t.stale {
		if err := t.resolve(); err != nil {
			return err
		}
	}
	t.ran = false
	queries := 0
	if t.dev.hostReset() {
		queries = len(t.ticks)
	}
	if started, err := t.fence.submit(t.dev, t.set.buffers, t.queries, queries); err != nil {
		if started > 0 { // what was submitted must not run on behind the caller's back
			return errors.Join(err, t.dev.idle())
		}
		return err
	}
	t.ran = true
	return nil
}

func (t *Tape) wait() error {
	if !t.pending {
		return nil
	}
	if err := t.fence.wait(t.dev); err != nil {
		return err
	}
	t.pending = false
	t.unpin()
	return nil
}

// hostReset says whether the host can reset queries. It costs less there.
func (d *Device) hostReset() bool { return d.phys.probe.host_query_reset != 0 }

// finish ends the recording: it decides the order of the steps, has the hazard checker look at it, and lays out the operations of every
// submit, time stamps at both ends.
func (t *Tape) finish() error {
	if len(t.steps) == 0 {
		return fmt.Errorf("nothing was recorded")
	}
	t.schedule()
	if err := t.check(); err != nil {
		return err
	}
	count := 2
	if t.config.Profile {
		count = 1 + len(t.steps)
	}
	if t.queries == 0 {
		if err := t.dev.check("vkCreateQueryPool", int32(C.c5_queries_new(t.dev.c, C.uint32_t(count), (*C.uint64_t)(&t.queries)))); err != nil {
			return err
		}
	}
	if t.fence.handle == 0 {
		if err := t.fence.open(t.dev); err != nil {
			return err
		}
	}
	t.ticks = make([]uint64, count)
	t.own, t.buffers = map[*Buffer][]Access{}, nil
	known := map[Access]bool{}
	for _, s := range t.steps {
		for _, a := range s.accesses {
			if b := a.Range.buf; b != nil && !known[a] {
				if known[a] = true; t.own[b] == nil {
					t.buffers = append(t.buffers, b)
				}
				t.own[b] = append(t.own[b], a)
			}
		}
	}
	t.emit()
	t.ready, t.stale = true, true
	return nil
}

// emit lays out the operations of every segment, and finds the patches there.
func (t *Tape) emit() {
	first := make([]int, len(t.steps)+1) // patch of a step
	for i := range t.steps {
		first[i+1] = first[i]
		for first[i+1] < len(t.patches) && t.patches[first[i+1]].step == i {
			first[i+1]++
		}
	}
	t.segments = nil
	kinds := t.kinds()
	var ops []byte
	if !t.dev.hostReset() {
		ops = appendQuery(ops, C.C5_OP_RESET_QUERIES, t.queries, 0, uint32(len(t.ticks)))
	}
	ops = t.appendStamp(ops, 0)
	for i, n := range t.order {
		switch {
		case slices.Contains(t.cuts, i):
			t.segments = append(t.segments, ops)
			ops = appendBarrier(nil, kindAny, kinds[i])
		case t.barriers[i] && !t.config.Profile: // a stamp has one
			ops = appendBarrier(ops, kinds[max(i-1, 0)], kinds[i])
		}
		s := t.steps[n]
		for k := first[n]; k < first[n+1]; k++ {
			t.patches[k].segment, t.patches[k].start = len(t.segments), len(ops)
		}
		ops = append(ops, t.ops[s.from:s.from+s.size]...)
		if t.config.Profile {
			ops = t.appendStamp(ops, i+1)
		}
	}
	if !t.config.Profile {
		ops = t.appendStamp(ops, 1)
	}
	t.segments = append(t.segments, ops)
}

// appendStamp writes a time stamp. Without a barrier some devices write it when the work before it is launched, not when it is done; at
// the start it is the barrier that every submit begins with.
func (t *Tape) appendStamp(ops []byte, i int) []byte {
	return appendQuery(appendBarrier(ops, kindAny, kindAny), C.C5_OP_TIMESTAMP, t.queries, uint32(i), 1)
}

// resolve takes command buffers for what is bound: those that were written for it, or else it writes those that were not used last.
// So do two sets of memory in turn cost no more than one.
func (t *Tape) resolve() error {
	for i := range t.sets {
		if t.sets[i].fits(t.slots) {
			t.set, t.stale = &t.sets[i], false
			return nil
		}
	}
	c := &t.sets[0]
	if t.set == c {
		c = &t.sets[1]
	}
	if err := t.write(c); err != nil {
		return err
	}
	t.set, t.stale = c, false
	return nil
}

// write writes the command buffers of a set for what is bound.
func (t *Tape) write(c *commandSet) error {
	for _, s := range t.slots {
		if s.bound.buf == nil {
			return fmt.Errorf("nothing is bound to slot %q", s.name)
		}
	}
	if err := t.aliases(); err != nil {
		return err
	}
	for _, p := range t.patches {
		r := p.slot.bound
		r.offset += p.offset
		r.write(t.segments[p.segment][p.start+p.at:], p.pair)
	}
	if err := c.open(t.dev, len(t.segments)); err != nil {
		return err
	}
	c.written = false
	for i, ops := range t.segments {
		if err := c.list[i].encode(t.dev, ops, false); err != nil {
			return err
		}
	}
	c.bound = c.bound[:0]
	for _, s := range t.slots {
		c.bound = append(c.bound, s.bound)
	}
	c.written = true
	return nil
}

// aliases rejects memory bound to a slot that the tape writes, where another slot or the tape itself uses that memory: the barriers
// were derived without knowing it.
func (t *Tape) aliases() error {
	for i, s := range t.slots {
		for _, o := range t.slots[:i] {
			if (s.wrote || o.wrote) && s.bound.overlaps(o.bound) {
				return fmt.Errorf("slots %q and %q are bound to overlapping parts of %s, and one of them is written", o.name, s.name, s.bound.name())
			}
		}
		for _, u := range t.own[s.bound.buf] {
			if (s.wrote || u.write) && s.bound.overlaps(u.Range) {
				return fmt.Errorf("slot %q is bound to a part of %s that the tape uses itself", s.name, s.bound.name())
			}
		}
	}
	return nil
}

// pin keeps everything that a run touches open until unpin.
func (t *Tape) pin() error {
	for i, b := range t.buffers {
		if !b.pin() {
			t.unpinSome(i, 0)
			return fmt.Errorf("buffer %q is %w", b.name, ErrClosed)
		}
	}
	for i, s := range t.slots {
		if s.bound.buf == nil {
			t.unpinSome(len(t.buffers), i)
			return fmt.Errorf("nothing is bound to slot %q", s.name)
		}
		if !s.bound.buf.pin() {
			t.unpinSome(len(t.buffers), i)
			return fmt.Errorf("slot %q: %s is %w", s.name, s.bound.name(), ErrClosed)
		}
	}
	return nil
}

func (t *Tape) unpin() { t.unpinSome(len(t.buffers), len(t.slots)) }

func (t *Tape) unpinSome(buffers, slots int) {
	for _, b := range t.buffers[:buffers] {
		b.unpin()
	}
	for _, s := range t.slots[:slots] {
		if s.bound.buf != nil { // a slot made while the tape runs
			s.bound.buf.unpin()
		}
	}
}

// StepTime is the GPU time of one step of a profiled tape.
type StepTime struct {
	Name         string
	Time         time.Duration
	Flops, Bytes float64
}

// Elapsed is the GPU time of the last run, from its first step to its last.
func (t *Tape) Elapsed() (time.Duration, error) {
	if err := t.begin("Elapsed"); err != nil {
		return 0, err
	}
	defer t.end()
	if err := t.read(); err != nil {
		return 0, t.fail("Elapsed", err)
	}
	return t.between(0, len(t.ticks)-1), nil
}

// Steps is the GPU time of every step of the last run, in the order of their recording. The tape must have been made with Profile.
func (t *Tape) Steps() ([]StepTime, error) {
	if err := t.begin("Steps"); err != nil {
		return nil, err
	}
	defer t.end()
	if !t.config.Profile {
		return nil, t.fail("Steps", fmt.Errorf("TapeConfig.Profile is off"))
	}
	if err := t.read(); err != nil {
		return nil, t.fail("Steps", err)
	}
	list := make([]StepTime, len(t.steps))
	for i, s := range t.steps { // they run in this order
		list[i] = StepTime{s.name, t.between(i, i+1), s.flops, s.bytes}
	}
	return list, nil
}

// read fetches the time stamps of the last run.
func (t *Tape) read() error {
	if !t.ran || t.pending || t.stale {
		return fmt.Errorf("there is no finished run")
	}
	return t.dev.check("vkGetQueryPoolResults", int32(C.c5_queries_read(t.dev.c, C.uint64_t(t.queries), C.uint32_t(len(t.ticks)), (*C.uint64_t)(&t.ticks[0]))))
}

func (t *Tape) between(a, b int) time.Duration {
	mask := ^uint64(0)
	if bits := t.dev.info.Caps.timestampBits; bits < 64 {
		mask = 1<<bits - 1
	}
	return time.Duration(float64((t.ticks[b]-t.ticks[a])&mask) * t.dev.info.Caps.TimestampNanoseconds)
}
