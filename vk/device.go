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

	vulkan "github.com/vulkan-go/vulkan"
)

// Options says which device to open, and how.
type Options struct {
	Device     string        // index, UUID or part of the name; empty: the environment's COLT5_DEVICE, else the best device
	Validation bool          // run under the Khronos validation layer, see Device.Messages; COLT5_VALIDATE=1 turns it on too
	CacheDir   string        // folder of the pipeline cache; empty: colt5 in the user's cache folder; "-": no cache
	Timeout    time.Duration // how long Run and transfers wait for the device; 0: five minutes
	Profile    bool          // keep compiler statistics of kernels, see Kernel.Stats
}

// Stats counts what a device holds and has done.
type Stats struct {
	BufferBytes         uint64 // in open buffers
	PeakBytes           uint64 // the most that was in open buffers at once
	DeviceBytes         uint64 // taken from the device: blocks for buffers, and from the first transfer on what these pass through
	Allocations         uint64 // times that device memory was allocated
	Buffers             int64  // open buffers
	Kernels             int64  // open kernels
	CommandLists        int64  // open tapes
	Submits             uint64 // submissions to the queue
	CommandBufferWrites uint64 // command buffers written
}

// Device is an open Vulkan device with one compute queue.
type Device struct {
	info     Info
	timeout  time.Duration
	profile  bool
	instance *instance
	c        *C.c5_device
	handle   vulkan.Device
	physical *physical
	pool     pool
	staging  staging
	cache    cache
	tuning   tuning
	queue    sync.Mutex
	lifetime sync.RWMutex // calls hold it for reading, Close for writing
	closed   atomic.Bool

	lists                     lists
	buffers, kernels, refused atomic.Int64 // refused: open kernels whose Close failed
	submits, writes           atomic.Uint64
	lost                      atomic.Bool
	fault                     func(op string, result int32) int32 // tests replace results of Vulkan calls
}

// Open opens a device. The errors are ErrNoDevice, ErrUnsupported and those of Vulkan.
func Open(o Options) (*Device, error) {
	in, err := newInstance(o.Validation || os.Getenv("COLT5_VALIDATE") == "1")
	if err != nil {
		return nil, err
	}
	d, err := open(in, o)
	if err != nil {
		in.close()
		return nil, err
	}
	return d, nil
}

func open(in *instance, o Options) (*Device, error) {
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
	chosen, err := choose(infosOf(list), o.Device)
	if err != nil {
		return nil, err
	}
	p := list[chosen]
	d := &Device{info: p.info, timeout: o.Timeout, profile: o.Profile && p.info.Caps.PipelineStatistics, instance: in, physical: p}
	if err := check("vkCreateDevice", int32(C.c5_device_new(in.c, p.handle, C.uint32_t(p.family), &p.probe, &d.c))); err != nil {
		return nil, fmt.Errorf("vk: opening %s: %w", p.info.Name, err)
	}
	handle := C.c5_device_handle(d.c)
	d.handle = *(*vulkan.Device)(unsafe.Pointer(&handle))
	d.pool.init(d)
	d.staging.init(d)
	if err := d.cache.open(d, o.CacheDir); err != nil {
		C.c5_device_free(d.c)
		return nil, err
	}
	d.tuning.open(d)
	return d, nil
}

// Info describes the device.
func (d *Device) Info() Info { return d.info }

// Caps says what the device can do.
func (d *Device) Caps() Caps { return d.info.Caps }

// Stats counts what the device holds and has done.
func (d *Device) Stats() Stats {
	s := d.pool.stats()
	s.DeviceBytes += d.staging.allocated.Load()
	s.Buffers, s.Kernels, s.CommandLists = d.buffers.Load(), d.kernels.Load(), d.lists.count()
	s.Submits, s.CommandBufferWrites = d.submits.Load(), d.writes.Load()
	return s
}

// MemoryBudget returns how much device memory this process may use and uses, both in bytes; 0 where the driver does not say.
func (d *Device) MemoryBudget() (budget, used uint64) {
	if err := d.enter("MemoryBudget"); err != nil {
		return 0, 0
	}
	defer d.leave()
	if d.physical.probe.memory_budget == 0 {
		return 0, 0
	}
	var b, u C.uint64_t
	C.c5_heap_budget(d.instance.c, d.physical.handle, C.uint32_t(d.pool.heap), &b, &u)
	return uint64(b), uint64(u)
}

// Messages returns, and forgets, what the validation layer said: how many messages, and the text of the first ones.
func (d *Device) DrainMessages() (count int, text string) {
	if err := d.enter("Messages"); err != nil {
		return 0, ""
	}
	defer d.leave()
	return d.instance.messages()
}

// alive returns the error of using a device that is closed or lost.
func (d *Device) alive() error {
	switch {
	case d == nil:
		return errors.New("the device is nil")
	case d.closed.Load():
		return fmt.Errorf("the device is %w", ErrClosed)
	case d.lost.Load():
		return fmt.Errorf("%w before", ErrDeviceLost)
	}
	return nil
}

// hold starts a call: the device is alive, and Close waits until leave. A call holds the device once, never again inside.
func (d *Device) hold() error {
	if d == nil {
		return d.alive()
	}
	if !d.lifetime.TryRLock() { // only Close takes the other side
		return fmt.Errorf("the device is %w", ErrClosed)
	}
	err := d.alive()
	if err != nil {
		d.lifetime.RUnlock()
	}
	return err
}

// enter is hold with the operation in the error.
func (d *Device) enter(op string) error {
	if err := d.hold(); err != nil {
		return fmt.Errorf("vk: %s: %w", op, err)
	}
	return nil
}

func (d *Device) leave() { d.lifetime.RUnlock() }

// check is check, and remembers that the device was lost.
func (d *Device) check(op string, result int32) error {
	if d.fault != nil {
		result = d.fault(op, result)
	}
	if vulkan.Result(result) == vulkan.ErrorDeviceLost {
		d.lost.Store(true)
	}
	return check(op, result)
}
