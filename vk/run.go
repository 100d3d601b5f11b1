package vk

// #include "native.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lockForCall starts a call: until unlockAfterCall no other call uses the list, and the device stays open.
func (l *CommandList) lockForCall(ctx context.Context, op string) error {
	if err := l.dev.beginCall(); err != nil {
		return l.fail(op, err)
	}
	if err := l.mu.lockContext(ctx); err != nil {
		l.dev.endCall()
		return l.fail(op, fmt.Errorf("%w while another call uses the list", err))
	}
	if l.closed {
		l.unlockAfterCall()
		return l.fail(op, ErrClosed)
	}
	return nil
}

func (l *CommandList) unlockAfterCall() {
	l.mu.unlock()
	l.dev.endCall()
}

// Bind sets the memory of a binding for later runs; a run in flight keeps what it was submitted with. The range has the
// binding's size and starts at a multiple of 16 bytes.
func (l *CommandList) Bind(b *Binding, r Range) error {
	if err := l.lockForCall(context.Background(), "Bind"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if b == nil {
		return l.fail("Bind", fmt.Errorf("the binding is nil, want one made by NewBinding"))
	}
	if b.list != l {
		return l.fail("Bind", fmt.Errorf("the binding belongs to another command list"))
	}
	if r.binding != nil {
		return l.fail("Bind", fmt.Errorf("binding %q: the range is of a binding, want one of a buffer", b.name))
	}
	err := r.valid(l.dev, l)
	if err == nil {
		err = r.onDevice()
	}
	if err != nil {
		return l.fail("Bind", fmt.Errorf("binding %q: the range %w", b.name, err))
	}
	if r.size != b.size || r.offset%16 != 0 {
		return l.fail("Bind", fmt.Errorf("binding %q: %d bytes at offset %d, want %d at a multiple of 16", b.name, r.size, r.offset, b.size))
	}
	if b.bound != r {
		b.bound = r
		l.stale = true
	}
	return nil
}

// Run submits the list and waits until it is done. It first waits for an earlier run that is still in flight.
//
// If ctx is done, Run returns within some tens of milliseconds with an error that wraps ctx.Err(). Submitted work
// cannot be taken back: it runs on, what it writes is undefined until then, and the next Run, Submit, Wait or Close of
// the list waits for it first. The same holds for ErrTimeout, when the device does not finish within Options.Timeout.
func (l *CommandList) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return l.fail("Run", err)
	}
	if err := l.lockForCall(ctx, "Run"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if err := l.submit(ctx); err != nil {
		return l.fail("Run", err)
	}
	if err := l.wait(ctx, l.dev.timeout); err != nil {
		return l.fail("Run", err)
	}
	return nil
}

// Submit starts the list and returns. What it writes may be read after Wait. It first waits for an earlier run that is
// still in flight; ctx and ErrTimeout end that wait as in Run.
func (l *CommandList) Submit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return l.fail("Submit", err)
	}
	if err := l.lockForCall(ctx, "Submit"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if err := l.submit(ctx); err != nil {
		return l.fail("Submit", err)
	}
	return nil
}

// Wait waits for the run in flight, if there is one; ctx and ErrTimeout end the wait as in Run. It may be called again.
func (l *CommandList) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return l.fail("Wait", err)
	}
	if err := l.lockForCall(ctx, "Wait"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if err := l.wait(ctx, l.dev.timeout); err != nil {
		return l.fail("Wait", err)
	}
	return nil
}

// Finish ends the recording: it sets the order of the steps and the barriers between them, and checks both for hazards.
// The first Run or Submit does so too; Finish moves its host time, and its errors, to an earlier moment.
func (l *CommandList) Finish() error {
	if err := l.lockForCall(context.Background(), "Finish"); err != nil {
		return err
	}
	defer l.unlockAfterCall()
	if l.ready {
		return nil
	}
	if err := l.finish(); err != nil {
		return l.fail("Finish", err)
	}
	return nil
}

func (l *CommandList) submit(ctx context.Context) error {
	if err := l.wait(ctx, l.dev.timeout); err != nil {
		return fmt.Errorf("nothing was submitted: the earlier run: %w", err)
	}
	if !l.ready {
		if err := l.finish(); err != nil {
			return err
		}
	}
	if err := l.pin(); err != nil {
		return err
	}
	if err := l.start(); err != nil {
		if !l.fenceMissing {
			l.unpin()
			return err
		}
		l.pending = true
		return errors.Join(err, l.wait(ctx, l.dev.timeout))
	}
	l.pending = true
	return nil
}

func (l *CommandList) start() error {
	if l.stale {
		if err := l.selectCommands(); err != nil {
			return err
		}
	}
	l.ran = false
	if err := l.fence.submit(l.dev, l.set.buffers, l.queries, len(l.timestamps)); err != nil {
		l.fenceMissing = l.fence.started > 0
		return err
	}
	l.ran = true
	return nil
}

// wait waits for the run in flight, at most for limit.
func (l *CommandList) wait(ctx context.Context, limit time.Duration) error {
	if !l.pending {
		return nil
	}
	if err := l.submitMissingFence(); err != nil {
		return err
	}
	if err := l.fence.wait(ctx, l.dev, limit); err != nil {
		return err
	}
	l.done()
	return nil
}

// drain waits as wait does, for a Close. On a lost device no work is left.
func (l *CommandList) drain(limit time.Duration) error {
	if !l.pending {
		return nil
	}
	err := l.submitMissingFence()
	if err == nil {
		err = l.fence.drain(l.dev, limit)
	}
	if err != nil && !l.dev.lost.Load() {
		return err
	}
	l.done()
	return nil
}

// submitMissingFence submits the fence alone, if the submit of a run failed midway.
func (l *CommandList) submitMissingFence() error {
	if !l.fenceMissing {
		return nil
	}
	if err := l.fence.submit(l.dev, nil, 0, 0); err != nil {
		return err
	}
	l.fenceMissing = false
	return nil
}

func (l *CommandList) done() {
	l.pending, l.fenceMissing = false, false
	l.unpin()
}

// finish ends the recording: it schedules the steps, checks the schedule for hazards, and builds the commands of
// every submit, with timestamps at both ends.
func (l *CommandList) finish() error {
	if len(l.steps) == 0 {
		return fmt.Errorf("nothing was recorded")
	}
	l.schedule()
	if err := l.checkHazards(); err != nil {
		return err
	}
	count := 2
	switch {
	case !l.hasTimestamps():
		count = 0
	case l.config.Profile:
		count = 1 + len(l.steps)
	}
	if l.queries == 0 && count > 0 {
		if err := l.dev.check("vkCreateQueryPool", int32(C.c5_timestamp_pool_new(l.dev.c, C.uint32_t(count), (*C.uint64_t)(&l.queries)))); err != nil {
			return err
		}
	}
	if l.fence.handle == 0 {
		if err := l.fence.open(l.dev); err != nil {
			return err
		}
	}
	l.timestamps = make([]uint64, count)
	l.buffers = l.directBuffers()
	l.buildOps()
	l.ready, l.stale = true, true
	return nil
}

// directBuffers returns the buffers that the steps access directly, not through a binding, in the order of their first
// use.
func (l *CommandList) directBuffers() (list []*Buffer) {
	known := map[*Buffer]bool{}
	for i := range l.steps {
		for _, a := range l.steps[i].accesses {
			if b := a.Range.buf; b != nil && !known[b] {
				known[b] = true
				list = append(list, b)
			}
		}
	}
	return list
}

// pin keeps the memory of all buffers that a run uses until unpin.
func (l *CommandList) pin() error {
	for _, b := range l.buffers {
		if !b.pin() {
			l.unpin()
			return fmt.Errorf("buffer %q is %w", b.name, ErrClosed)
		}
		l.pinned = append(l.pinned, b)
	}
	for _, s := range l.bindings {
		if s.bound.buf == nil {
			l.unpin()
			return fmt.Errorf("binding %q is not bound", s.name)
		}
		if !s.bound.buf.pin() {
			l.unpin()
			return fmt.Errorf("binding %q: %s is %w", s.name, s.bound.name(), ErrClosed)
		}
		l.pinned = append(l.pinned, s.bound.buf)
	}
	return nil
}

func (l *CommandList) unpin() {
	for i, b := range l.pinned {
		b.unpin()
		l.pinned[i] = nil
	}
	l.pinned = l.pinned[:0]
}

// StepTime is the GPU time of one step of a profiled command list.
type StepTime struct {
	Name         string
	Time         time.Duration
	Flops, Bytes float64
}

// hasTimestamps reports whether the device can time a run.
func (l *CommandList) hasTimestamps() bool { return l.dev.info.Caps.TimestampNanoseconds > 0 }

// Elapsed returns the GPU time of the last run, from the start of its first step to the end of its last. The error is
// ErrUnsupported where the device has no timestamps.
func (l *CommandList) Elapsed() (time.Duration, error) {
	if err := l.lockForCall(context.Background(), "Elapsed"); err != nil {
		return 0, err
	}
	defer l.unlockAfterCall()
	if err := l.readTimestamps(); err != nil {
		return 0, l.fail("Elapsed", err)
	}
	return l.elapsed(0, len(l.timestamps)-1), nil
}

// StepTimes returns the GPU times of the steps of the last run, in recorded order. It needs CommandListConfig.Profile. The
// error is ErrUnsupported where the device has no timestamps.
func (l *CommandList) StepTimes() ([]StepTime, error) {
	if err := l.lockForCall(context.Background(), "StepTimes"); err != nil {
		return nil, err
	}
	defer l.unlockAfterCall()
	if !l.config.Profile {
		return nil, l.fail("StepTimes", fmt.Errorf("CommandListConfig.Profile is off"))
	}
	if err := l.readTimestamps(); err != nil {
		return nil, l.fail("StepTimes", err)
	}
	list := make([]StepTime, len(l.steps))
	for i, s := range l.steps { // with Profile they run in recorded order
		list[i] = StepTime{s.name, l.elapsed(i, i+1), s.flops, s.bytes}
	}
	return list, nil
}

// readTimestamps reads the timestamps of the last run.
func (l *CommandList) readTimestamps() error {
	if !l.hasTimestamps() {
		return fmt.Errorf("%w: the device has no timestamps on the compute queue", ErrUnsupported)
	}
	if !l.ran || l.pending || l.stale {
		return fmt.Errorf("there is no finished run")
	}
	return l.dev.check("vkGetQueryPoolResults", int32(C.c5_queries_read(l.dev.c, C.uint64_t(l.queries), C.uint32_t(len(l.timestamps)), (*C.uint64_t)(&l.timestamps[0]))))
}

func (l *CommandList) elapsed(a, b int) time.Duration {
	mask := ^uint64(0)
	if bits := l.dev.info.Caps.timestampBits; bits < 64 {
		mask = 1<<bits - 1
	}
	return time.Duration(float64((l.timestamps[b]-l.timestamps[a])&mask) * l.dev.info.Caps.TimestampNanoseconds)
}
