package vk

// #include "native.h"
import "C"

import (
	"encoding/binary"
	"time"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// spinTime is how long a wait keeps a processor busy before it sleeps. Most calls are done by then, and a sleeper is told some 20 us late.
const spinTime = 10 * time.Millisecond

// commands is a command buffer with the fence that says when its work is done.
type commands struct {
	pool, fence uint64
	buffer      [1]unsafe.Pointer
}

func (c *commands) open(d *Device) error {
	if err := d.check("vkCreateFence", int32(C.c5_fence_new(d.c, (*C.uint64_t)(&c.fence)))); err != nil {
		return err
	}
	if err := d.check("vkCreateCommandPool", int32(C.c5_commands_new(d.c, (*C.uint64_t)(&c.pool), &c.buffer[0]))); err != nil {
		c.pool = 0
		c.destroy(d)
		return err
	}
	return nil
}

func (c *commands) destroy(d *Device) {
	vulkan.DestroyCommandPool(d.handle, *(*vulkan.CommandPool)(unsafe.Pointer(&c.pool)), nil)
	vulkan.DestroyFence(d.handle, *(*vulkan.Fence)(unsafe.Pointer(&c.fence)), nil)
	*c = commands{}
}

// encode writes the command buffer anew, from operations as native.h lays them out.
func (c *commands) encode(d *Device, ops []byte) error {
	d.encodes.Add(1)
	return d.check("vkBeginCommandBuffer", int32(C.c5_encode(d.c, C.uint64_t(c.pool), c.buffer[0], unsafe.Pointer(unsafe.SliceData(ops)), C.size_t(len(ops)))))
}

// submit starts the work; with last, the fence is signalled when it is done, and all that was submitted before.
func (c *commands) submit(d *Device, last bool) error {
	d.queue.Lock()
	defer d.queue.Unlock()
	fence := C.uint64_t(0)
	if last {
		fence = C.uint64_t(c.fence)
	}
	d.submits.Add(1)
	return d.check("vkQueueSubmit", int32(C.c5_submit(d.c, &c.buffer[0], 1, fence)))
}

// wait waits for the work, and makes the fence ready for the next.
func (c *commands) wait(d *Device) error {
	spin := spinTime
	if d.info.Caps.CPU { // its driver needs the processors
		spin = 0
	}
	if err := d.check("vkWaitForFences", int32(C.c5_fence_wait(d.c, C.uint64_t(c.fence), C.uint64_t(spin), C.uint64_t(d.timeout)))); err != nil {
		return err
	}
	return d.check("vkResetFences", int32(C.c5_fence_reset(d.c, C.uint64_t(c.fence))))
}

// What follows writes the operations of native.h.

var order = binary.NativeEndian

func appendOp(ops []byte, op, size uint32) []byte {
	return order.AppendUint32(order.AppendUint32(ops, op), size)
}

func append64(ops []byte, values ...uint64) []byte {
	for _, v := range values {
		ops = order.AppendUint64(ops, v)
	}
	return ops
}

const (
	dispatchHead = 40 // bytes before the push constants of a dispatch
	copyBytes    = 48
	fillBytes    = 40
	queryBytes   = 24
)

func appendDispatch(ops []byte, k *Kernel, groups [3]uint32) []byte {
	push := (k.push + 7) &^ 7 // operations are multiples of 8 bytes long
	ops = append64(appendOp(ops, C.C5_OP_DISPATCH, dispatchHead+push), k.pipeline, k.layout)
	for _, g := range groups {
		ops = order.AppendUint32(ops, g)
	}
	return append(order.AppendUint32(ops, k.push), make([]byte, push)...)
}

func appendBarrier(ops []byte) []byte { return appendOp(ops, C.C5_OP_BARRIER, 8) }

func appendCopy(ops []byte, from, fromOffset, to, toOffset, size uint64) []byte {
	return append64(appendOp(ops, C.C5_OP_COPY, copyBytes), from, fromOffset, to, toOffset, size)
}

func appendFill(ops []byte, buffer, offset, size uint64, word uint32) []byte {
	ops = append64(appendOp(ops, C.C5_OP_FILL, fillBytes), buffer, offset, size)
	return order.AppendUint32(order.AppendUint32(ops, word), 0)
}

func appendQuery(ops []byte, op uint32, pool uint64, first, count uint32) []byte {
	ops = append64(appendOp(ops, op, queryBytes), pool)
	return order.AppendUint32(order.AppendUint32(ops, first), count)
}

// The layouts above are those of native.h.
var (
	_ [dispatchHead - C.sizeof_c5_op_dispatch]byte
	_ [C.sizeof_c5_op_dispatch - dispatchHead]byte
	_ [copyBytes - C.sizeof_c5_op_copy]byte
	_ [C.sizeof_c5_op_copy - copyBytes]byte
	_ [fillBytes - C.sizeof_c5_op_fill]byte
	_ [C.sizeof_c5_op_fill - fillBytes]byte
	_ [queryBytes - C.sizeof_c5_op_query]byte
	_ [C.sizeof_c5_op_query - queryBytes]byte
)
