package vk

// #include "native.h"
import "C"

import (
	"runtime"
	"time"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// fence says when what was submitted is done.
type fence struct {
	handle   uint64
	begun    time.Time     // when it was submitted
	expected time.Duration // how long it took last; 0: not known
	polls    int           // how often the last wait asked, some times each
}

func (f *fence) open(d *Device) error {
	return d.check("vkCreateFence", int32(C.c5_fence_new(d.c, (*C.uint64_t)(&f.handle))))
}

func (f *fence) destroy(d *Device) {
	vulkan.DestroyFence(d.handle, *(*vulkan.Fence)(unsafe.Pointer(&f.handle)), nil)
	*f = fence{}
}

// submit starts command buffers, each a submission of its own; the fence is signalled when they are done, and all that was submitted
// before. So many queries of a pool are reset first. If it fails, the first ones may run.
func (f *fence) submit(d *Device, buffers []unsafe.Pointer, queries uint64, count int) error {
	d.queue.Lock()
	defer d.queue.Unlock()
	d.submits.Add(uint64(len(buffers)))
	f.begun = time.Now()
	return d.check("vkQueueSubmit", int32(C.c5_submit(d.c, &buffers[0], C.uint32_t(len(buffers)), C.uint64_t(f.handle), C.uint64_t(queries), C.uint32_t(count))))
}

// waitAhead is how long before the end of the work, as it was last, a wait begins to ask; and a thirty-second of the work, for clocks vary.
const waitAhead = 8 * time.Millisecond

// wait waits for the work, and makes the fence ready for the next.
//
// The driver wakes a sleeper tens of microseconds late, as much as a short call takes, and a processor that has slept is slow for a while. So
// the thread sleeps until shortly before the work should be done, asks again and again until as long after, and only then sleeps again. It
// comes back to Go often, for Go takes the right to run from a thread that is long in C, and to get it again takes tens of microseconds
// too. Where a sleep ends too late, because the work or the driver's clock is not what it was, no more is lost than those. A driver that runs on
// the processor needs it, and is not asked.
func (f *fence) wait(d *Device) error {
	start := time.Now()
	end, due, margin := start.Add(d.timeout), f.begun.Add(f.expected), waitAhead+f.expected/32
	if due.Before(start) {
		due = start
	}
	f.polls = 0
	var state vulkan.Result = vulkan.NotReady
	if !d.info.Caps.CPU && due.Add(-margin).Before(end) { // else there is no time left to ask in
		if early := time.Until(due.Add(-margin)); early > 0 {
			state = f.sleep(d, early)
		}
		for last := due.Add(margin); unfinished(state); {
			state = vulkan.Result(C.c5_fence_ask(d.c, C.uint64_t(f.handle), 64))
			f.polls++
			if now := time.Now(); now.After(last) || now.After(end) {
				break
			}
			runtime.Gosched()
		}
	}
	if unfinished(state) {
		state = f.sleep(d, time.Until(end))
	}
	if state != vulkan.Success {
		return d.check("vkWaitForFences", int32(state))
	}
	f.expected = time.Since(f.begun)
	return d.check("vkResetFences", int32(C.c5_fence_reset(d.c, C.uint64_t(f.handle))))
}

func (f *fence) sleep(d *Device, t time.Duration) vulkan.Result {
	return vulkan.Result(C.c5_fence_sleep(d.c, C.uint64_t(f.handle), C.uint64_t(max(t, 0))))
}

func unfinished(state vulkan.Result) bool { return state == vulkan.NotReady || state == vulkan.Timeout }
