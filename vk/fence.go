package vk

// #include "native.h"
import "C"

import (
	"context"
	"errors"
	"runtime"
	"time"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// fence signals the end of submitted work.
type fence struct {
	handle   uint64
	signaled bool          // by the last work; the next submit resets it
	started  C.uint32_t    // command buffers of the last submit that the driver accepted
	begun    time.Time     // time of the last submit
	expected time.Duration // duration of the previous work; 0: not known
	polls    int           // polling rounds of the last wait, pollCount status queries each
}

func (f *fence) open(d *Device) error {
	return d.check("vkCreateFence", int32(C.c5_fence_new(d.c, (*C.uint64_t)(&f.handle))))
}

func (f *fence) destroy(d *Device) {
	vulkan.DestroyFence(d.handle, *(*vulkan.Fence)(unsafe.Pointer(&f.handle)), nil)
	*f = fence{}
}

// submit starts command buffers, each in a submission of its own. The fence signals when they, and everything submitted
// before them, are done. The first count queries of a pool are reset first. After an error the first f.started command
// buffers run, without the fence. Without command buffers the fence alone is submitted.
func (f *fence) submit(d *Device, buffers []unsafe.Pointer, queries uint64, count int) error {
	f.started = 0
	if err := f.reset(d); err != nil {
		return err
	}
	d.queue.Lock()
	defer d.queue.Unlock()
	d.submits.Add(uint64(len(buffers)))
	f.begun = time.Now()
	if len(buffers) == 0 {
		return d.check("vkQueueSubmit", int32(C.c5_submit(d.c, nil, 0, C.uint64_t(f.handle), 0, 0, &f.started)))
	}
	// &buffers[0], as written here, makes cgo check the slice alone and not the object that it is a part of.
	return d.check("vkQueueSubmit", int32(C.c5_submit(d.c, &buffers[0], C.uint32_t(len(buffers)), C.uint64_t(f.handle), C.uint64_t(queries), C.uint32_t(count), &f.started)))
}

func (f *fence) reset(d *Device) error {
	if !f.signaled {
		return nil
	}
	if err := d.check("vkResetFences", int32(C.c5_fence_reset(d.c, C.uint64_t(f.handle)))); err != nil {
		return err
	}
	f.signaled = false
	return nil
}

const (
	pollCount  = 64
	pollMargin = 8 * time.Millisecond  // polling starts this long before the expected end, plus 1/32 of the expected duration
	sleepSlice = 20 * time.Millisecond // longest sleep in the driver while a context may be cancelled
)

// wait waits for the submitted work, at most for limit. It ends early when ctx is done; the work then still runs, and
// wait may be called again.
//
// A driver wakes a sleeping thread tens of microseconds late, which is as long as a short call takes, and a CPU core
// that has slept is slow for a while. So the thread sleeps until shortly before the expected end, polls the fence until
// as long after it, and sleeps again only then. It returns to Go after every pollCount queries, because a goroutine that
// stays in C for long loses its P to the Go scheduler, and getting one back takes tens of microseconds too. A CPU driver
// needs the core for the work itself and is not polled.
func (f *fence) wait(ctx context.Context, d *Device, limit time.Duration) error {
	start, done, deadline := time.Now(), ctx.Done(), false
	end, due, margin := start.Add(limit), f.begun.Add(f.expected), pollMargin+f.expected/32
	if done != nil {
		if t, ok := ctx.Deadline(); ok && t.Before(end) {
			end, deadline = t, true
		}
	}
	if due.Before(start) {
		due = start
	}
	f.polls = 0
	state, call := vulkan.NotReady, "vkWaitForFences"
	if !d.info.Caps.CPU && due.Add(-margin).Before(end) { // otherwise no time is left for polling
		if early := due.Add(-margin); early.After(start) {
			state = f.sleep(d, done, early)
		}
		for last := due.Add(margin); unfinished(state) && !isDone(done); {
			state, call = vulkan.Result(C.c5_fence_poll(d.c, C.uint64_t(f.handle), pollCount)), "vkGetFenceStatus"
			f.polls++
			if now := time.Now(); now.After(last) || now.After(end) {
				break
			}
			runtime.Gosched()
		}
	}
	if unfinished(state) {
		state, call = f.sleep(d, done, end), "vkWaitForFences"
	}
	if unfinished(state) {
		switch {
		case isDone(done):
			return &waitError{ctx.Err(), d.timeout}
		case deadline: // the context's timer may be late
			return &waitError{context.DeadlineExceeded, d.timeout}
		}
		return &waitError{ErrTimeout, d.timeout}
	}
	if err := d.check(call, int32(state)); err != nil {
		return err
	}
	f.expected, f.signaled = time.Since(f.begun), true
	return nil
}

// sleep waits in the driver until the fence signals or end. If done is not nil it sleeps in slices, and ends with the
// first slice after done is closed.
func (f *fence) sleep(d *Device, done <-chan struct{}, end time.Time) vulkan.Result {
	for {
		left := max(time.Until(end), 0)
		if done != nil {
			left = min(left, sleepSlice)
		}
		state := vulkan.Result(C.c5_fence_sleep(d.c, C.uint64_t(f.handle), C.uint64_t(left)))
		if !unfinished(state) || done == nil || isDone(done) || !time.Now().Before(end) {
			return state
		}
	}
}

// drain waits as wait does, for a Close. If the driver cannot wait it queries the fence instead.
func (f *fence) drain(d *Device, limit time.Duration) error {
	end := time.Now().Add(limit)
	err := f.wait(context.Background(), d, limit)
	for err != nil && !errors.Is(err, ErrTimeout) && !d.lost.Load() {
		state := vulkan.Result(C.c5_fence_poll(d.c, C.uint64_t(f.handle), 1))
		switch {
		case !unfinished(state):
			err = d.check("vkGetFenceStatus", int32(state))
			f.signaled = err == nil
			return err
		case time.Now().After(end):
			return &waitError{ErrTimeout, d.timeout}
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

func unfinished(state vulkan.Result) bool { return state == vulkan.NotReady || state == vulkan.Timeout }

func isDone(done <-chan struct{}) bool {
	select {
	case <-done: // never, if done is nil
		return true
	default:
		return false
	}
}

// waitError is the error of a wait that ended before the work did.
type waitError struct {
	cause   error // ErrTimeout, or the error of a context
	timeout time.Duration
}

func (e *waitError) Error() string {
	if e.cause == ErrTimeout {
		return "the device did not finish within " + e.timeout.String() + "; the work is still running: " +
			"call Wait of the device to wait longer, raise Options.Timeout, or close the device"
	}
	return e.cause.Error() + "; the submitted work is still running, and the next call waits for it first"
}

func (e *waitError) Unwrap() error { return e.cause }

// mutex is a mutex whose waiters can be cancelled: a channel of capacity 1.
type mutex chan struct{}

func newMutex() mutex { return make(mutex, 1) }

func (m mutex) lock() { m <- struct{}{} }

// lockContext waits for the mutex until ctx is done.
func (m mutex) lockContext(ctx context.Context) error {
	select {
	case m <- struct{}{}:
		return nil
	default:
	}
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m mutex) unlock() { <-m }
