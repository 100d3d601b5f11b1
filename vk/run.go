package vk

// #include "native.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// begin begins a call: no other one is under way, and tape and device are open until end.
func (t *CommandList) begin(op string) error {
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

func (t *CommandList) end() {
	t.dev.leave()
	t.mu.Unlock()
}

// Bind says what a slot stands for in the runs that follow. It has the slot's size and starts at a multiple of 16 bytes.
func (t *CommandList) Bind(s *Binding, r Range) error {
	if err := t.begin("Bind"); err != nil {
		return err
	}
	defer t.end()
	if s == nil || s.list != t {
		return t.fail("Bind", fmt.Errorf("the slot belongs to another tape"))
	}
	if r.binding != nil {
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
func (t *CommandList) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return t.fail("Run", err)
	}
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
func (t *CommandList) Submit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return t.fail("Submit", err)
	}
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
func (t *CommandList) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return t.fail("Wait", err)
	}
	if err := t.begin("Wait"); err != nil {
		return err
	}
	defer t.end()
	if err := t.wait(); err != nil {
		return t.fail("Wait", err)
	}
	return nil
}

func (t *CommandList) submit() error {
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

func (t *CommandList) start() error {
	if t.stale {
		if err := t.resolve(); err != nil {
			return err
		}
	}
	t.ran = false
	if err := t.fence.submit(t.dev, t.set.buffers, t.queries, len(t.ticks)); err != nil {
		if len(t.segments) > 1 { // what was submitted must not run on behind the caller's back
			return errors.Join(err, t.dev.idle())
		}
		return err
	}
	t.ran = true
	return nil
}

func (t *CommandList) wait() error {
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

// finish ends the recording: it decides the order of the steps, has the hazard checker look at it, and lays out the operations of every
// submit, time stamps at both ends.
func (t *CommandList) finish() error {
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

// pin keeps everything that a run touches open until unpin.
func (t *CommandList) pin() error {
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

func (t *CommandList) unpin() { t.unpinSome(len(t.buffers), len(t.slots)) }

func (t *CommandList) unpinSome(buffers, slots int) {
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
func (t *CommandList) Elapsed() (time.Duration, error) {
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
func (t *CommandList) Steps() ([]StepTime, error) {
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
func (t *CommandList) read() error {
	if !t.ran || t.pending || t.stale {
		return fmt.Errorf("there is no finished run")
	}
	return t.dev.check("vkGetQueryPoolResults", int32(C.c5_queries_read(t.dev.c, C.uint64_t(t.queries), C.uint32_t(len(t.ticks)), (*C.uint64_t)(&t.ticks[0]))))
}

func (t *CommandList) between(a, b int) time.Duration {
	mask := ^uint64(0)
	if bits := t.dev.info.Caps.timestampBits; bits < 64 {
		mask = 1<<bits - 1
	}
	return time.Duration(float64((t.ticks[b]-t.ticks[a])&mask) * t.dev.info.Caps.TimestampNanoseconds)
}
