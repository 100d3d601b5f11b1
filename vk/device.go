package vk

// #include "native.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/colt5-vulkan/colt5/internal/simulate"
	vulkan "github.com/vulkan-go/vulkan"
)

// Options selects a device and how to open it.
type Options struct {
	Device     string        // index, UUID or part of the name; empty: the environment variable COLT5_DEVICE, or else the best device
	Validation bool          // enable the Khronos validation layer, see DrainMessages; COLT5_VALIDATE=1 enables it too
	CacheDir   string        // directory of the pipeline cache; empty: colt5 in the user's cache directory; "-": no cache
	Timeout    time.Duration // longest wait for the device, of a run, a transfer or a Close; 0: five minutes
	Profile    bool          // keep compiler statistics, see Kernel.CompilerStats

	Simulate *simulate.Limits // for tests of this module: lower limits than those of the device; nil: none
}

// DeviceStats counts the objects of a device and its submissions.
type DeviceStats struct {
	BufferBytes         uint64 // size of the open buffers
	PeakBytes           uint64 // maximum of BufferBytes
	DeviceBytes         uint64 // allocated from the driver: blocks of buffers, host buffers and, from the first transfer on, the staging buffer
	Allocations         uint64 // calls of vkAllocateMemory for buffers
	Buffers             int64  // open buffers, those of the host too
	Kernels             int64  // open kernels
	CommandLists        int64  // open command lists
	Submits             uint64 // submissions to the queue
	CommandBufferWrites uint64 // command buffers written
}

// Device is an open Vulkan device with one compute queue.
type Device struct {
	info      Info
	timeout   time.Duration
	profile   bool
	instance  *instance
	c         *C.c5_device
	handle    vulkan.Device
	physical  *physical
	pool      pool
	staging   staging
	cache     cache
	pipelines pipelines
	tuning    tuning
	queue     sync.Mutex
	closing   sync.Mutex // held by Close
	calls     gate       // calls in progress
	closes    gate       // Close calls of buffers, kernels and command lists in progress
	closed    bool       // Close was called

	dispatchBytes float64 // maxDispatchBytes, except in tests

	nonCoherent bool // simulate host-visible memory that is not coherent

	lists                     lists
	buffers, kernels, refused atomic.Int64 // refused: open kernels whose Close returned an error
	submits, writes           atomic.Uint64
	lost                      atomic.Bool
	fault                     func(op string, result int32) int32 // for tests: replaces the results of Vulkan calls
}

// Open opens a device. Errors are ErrNoDevice, ErrUnsupported and those of Vulkan.
func Open(o Options) (*Device, error) {
	in, err := newInstance(o.Validation || os.Getenv("COLT5_VALIDATE") == "1")
	if err != nil {
		return nil, err
	}
	d, err := openDevice(in, o)
	if err != nil {
		in.close()
		return nil, err
	}
	return d, nil
}

func openDevice(in *instance, o Options) (*Device, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("vk: Open: Options.Timeout is %v, want 0 or more", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Minute
	}
	list, err := in.physicals()
	if err != nil {
		return nil, err
	}
	index, err := selectDevice(infosOf(list), o.Device)
	if err != nil {
		return nil, err
	}
	p := list[index]
	if o.Simulate != nil {
		p.simulate(o.Simulate)
	}
	d := &Device{info: p.info, timeout: o.Timeout, profile: o.Profile && p.info.Caps.PipelineStatistics, instance: in, physical: p}
	var call *C.char
	result := C.c5_device_new(in.c, p.handle, C.uint32_t(p.family), &p.probe, &d.c, &call)
	if err := checkCall(call, int32(result)); err != nil {
		return nil, fmt.Errorf("vk: opening %s: %w", p.info.Name, err)
	}
	handle := C.c5_device_handle(d.c)
	d.handle = *(*vulkan.Device)(unsafe.Pointer(&handle))
	d.calls.init()
	d.closes.init()
	d.pool.init(d)
	d.staging.init(d)
	d.dispatchBytes = maxDispatchBytes
	if o.Simulate != nil && o.Simulate.DispatchBytes > 0 {
		d.dispatchBytes = float64(o.Simulate.DispatchBytes)
	}
	d.nonCoherent = o.Simulate != nil && o.Simulate.NonCoherent
	if err := d.cache.open(d, o.CacheDir); err != nil {
		C.c5_device_free(d.c)
		return nil, err
	}
	d.tuning.open(d)
	return d, nil
}

// Info returns the description of the device.
func (d *Device) Info() Info { return d.info }

// Caps returns the capabilities of the device.
func (d *Device) Caps() Caps { return d.info.Caps }

// Stats returns the counters of the device.
func (d *Device) Stats() DeviceStats {
	s := d.pool.stats()
	s.DeviceBytes += d.staging.allocated.Load()
	s.Buffers, s.Kernels, s.CommandLists = d.buffers.Load(), d.kernels.Load(), d.lists.count()
	s.Submits, s.CommandBufferWrites = d.submits.Load(), d.writes.Load()
	return s
}

// MemoryBudget returns how much device memory this process may use and how much it uses, in bytes; 0 where the driver
// does not report it.
func (d *Device) MemoryBudget() (budget, used uint64) {
	if err := d.beginCallOp("MemoryBudget"); err != nil {
		return 0, 0
	}
	defer d.endCall()
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	return d.heapBudget(d.pool.heap)
}

// heapBudget returns the budget of a heap and what the process uses of it; 0 where the driver does not report them.
func (d *Device) heapBudget(heap uint32) (budget, used uint64) {
	if d.physical.probe.memory_budget == 0 {
		return 0, 0
	}
	var b, u C.uint64_t
	C.c5_heap_budget(d.instance.c, d.physical.handle, C.uint32_t(heap), &b, &u)
	return uint64(b), uint64(u)
}

// CHeapBytes returns how much memory the C code of this process, mostly the driver, has allocated with malloc and not freed,
// in bytes; 0 where the C library does not say, which is everywhere but glibc since 2.33. With Device.Stats it tells whether
// a process that runs for long leaks.
func CHeapBytes() uint64 { return uint64(C.c5_heap_bytes()) }

// TrimCHeap gives memory that C code has freed back to the operating system, as debug.FreeOSMemory does for Go. glibc keeps it
// in an arena for each of several threads: hundreds of megabytes, if a driver allocates buffers with malloc, as CPU drivers do.
// With other C libraries it does nothing.
func TrimCHeap() { C.c5_trim_heap() }

// FreeMemory returns the size of the largest buffer that NewBuffer may make at present, in bytes: what is left of the
// device's memory, of the part of it that the driver grants this process (VK_EXT_memory_budget), and no more than
// Caps.MaxBufferBytes. Other processes may change it at any time.
func (d *Device) FreeMemory() uint64 {
	if err := d.beginCallOp("FreeMemory"); err != nil {
		return 0
	}
	defer d.endCall()
	return d.pool.largest()
}

// DrainMessages returns and clears the messages of the validation layer: their count, and the text of the first ones.
func (d *Device) DrainMessages() (count int, text string) {
	if err := d.beginCallOp("DrainMessages"); err != nil {
		return 0, ""
	}
	defer d.endCall()
	return d.instance.messages()
}

// checkUsable returns the error of using a device that is nil or lost.
func (d *Device) checkUsable() error {
	switch {
	case d == nil:
		return errors.New("the device is nil")
	case d.lost.Load():
		return fmt.Errorf("%w in an earlier call", ErrDeviceLost)
	}
	return nil
}

// beginCall starts a call: Close waits until endCall.
func (d *Device) beginCall() error {
	if d == nil {
		return d.checkUsable()
	}
	if !d.calls.enter() {
		return fmt.Errorf("the device is %w", ErrClosed)
	}
	err := d.checkUsable()
	if err != nil {
		d.calls.leave()
	}
	return err
}

// beginCallOp is beginCall with the name of the call in the error.
func (d *Device) beginCallOp(op string) error {
	if err := d.beginCall(); err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	return nil
}

func (d *Device) endCall() { d.calls.leave() }

// check converts a VkResult to an error and notes a lost device.
func (d *Device) check(op string, result int32) error {
	if d.fault != nil {
		result = d.fault(op, result)
	}
	if vulkan.Result(result) == vulkan.ErrorDeviceLost {
		d.lost.Store(true)
	}
	return check(op, result)
}

// checkCall is check for a C function that makes several Vulkan calls, and names the one that failed.
func (d *Device) checkCall(call *C.char, result int32) error {
	if result == 0 && d.fault == nil {
		return nil // without making a string of the name
	}
	return d.check(C.GoString(call), result)
}

// checkCall is Device.checkCall before there is a device.
func checkCall(call *C.char, result int32) error { return check(C.GoString(call), result) }
