package vk

// #include "native.h"
import "C"

import (
	"encoding/binary"
	"unsafe"

	vulkan "github.com/vulkan-go/vulkan"
)

// commandBuffer is a command buffer in a pool of its own.
type commandBuffer struct {
	pool   uint64
	buffer unsafe.Pointer
}

func (c *commandBuffer) open(d *Device) error {
	err := d.check("vkCreateCommandPool", int32(C.c5_commands_new(d.c, (*C.uint64_t)(&c.pool), &c.buffer)))
	if err != nil {
		c.pool = 0
	}
	return err
}

func (c *commandBuffer) destroy(d *Device) {
	vulkan.DestroyCommandPool(d.handle, *(*vulkan.CommandPool)(unsafe.Pointer(&c.pool)), nil)
	*c = commandBuffer{}
}

// encode writes the command buffer anew, from operations as native.h lays them out.
func (c *commandBuffer) encode(d *Device, ops []byte) error {
	d.writes.Add(1)
	return d.check("vkBeginCommandBuffer", int32(C.c5_encode(d.c, C.uint64_t(c.pool), c.buffer, unsafe.Pointer(unsafe.SliceData(ops)), C.size_t(len(ops)))))
}

// commands is a command buffer for transfers, with its fence.
type commands struct {
	commandBuffer
	fence
}

func (c *commands) open(d *Device) error {
	if err := c.fence.open(d); err != nil {
		return err
	}
	if err := c.commandBuffer.open(d); err != nil {
		c.fence.destroy(d)
		return err
	}
	return nil
}

func (c *commands) destroy(d *Device) {
	c.commandBuffer.destroy(d)
	c.fence.destroy(d)
}

func (c *commands) submit(d *Device) error {
	c.expected = 0 // the previous one moved another number of bytes
	return c.fence.submit(d, unsafe.Slice(&c.buffer, 1), 0, 0)
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
	stampBytes   = 24
	barrierBytes = 16
)

func appendDispatch(ops []byte, k *Kernel, groups [3]uint32) []byte {
	push := (k.push + 7) &^ 7 // operations are multiples of 8 bytes long
	ops = append64(appendOp(ops, C.C5_OP_DISPATCH, dispatchHead+push), k.pipeline, k.layout)
	for _, g := range groups {
		ops = order.AppendUint32(ops, g)
	}
	return append(order.AppendUint32(ops, k.push), make([]byte, push)...)
}

// Kinds of work that a barrier orders.
const (
	kindCompute  = C.C5_COMPUTE
	kindTransfer = C.C5_TRANSFER
	kindAny      = kindCompute | kindTransfer
	kindHost     = C.C5_HOST // reads on the host, after a barrier
)

const opBarrier = C.C5_OP_BARRIER

// appendBarrier orders work of some kinds before it and work of some kinds after it. Barriers that follow each other order all of it if the
// kinds after one are those before the next.
func appendBarrier(ops []byte, before, after uint32) []byte {
	return order.AppendUint32(order.AppendUint32(appendOp(ops, opBarrier, barrierBytes), before), after)
}

func appendCopy(ops []byte, from, fromOffset, to, toOffset, size uint64) []byte {
	return append64(appendOp(ops, C.C5_OP_COPY, copyBytes), from, fromOffset, to, toOffset, size)
}

func appendFill(ops []byte, buffer, offset, size uint64, word uint32) []byte {
	ops = append64(appendOp(ops, C.C5_OP_FILL, fillBytes), buffer, offset, size)
	return order.AppendUint32(order.AppendUint32(ops, word), 0)
}

func appendTimestamp(ops []byte, pool uint64, query uint32) []byte {
	ops = append64(appendOp(ops, C.C5_OP_TIMESTAMP, stampBytes), pool)
	return order.AppendUint32(order.AppendUint32(ops, query), 0)
}

// The layouts above are those of native.h.
var (
	_ [dispatchHead - C.sizeof_c5_op_dispatch]byte
	_ [C.sizeof_c5_op_dispatch - dispatchHead]byte
	_ [copyBytes - C.sizeof_c5_op_copy]byte
	_ [C.sizeof_c5_op_copy - copyBytes]byte
	_ [fillBytes - C.sizeof_c5_op_fill]byte
	_ [C.sizeof_c5_op_fill - fillBytes]byte
	_ [stampBytes - C.sizeof_c5_op_timestamp]byte
	_ [C.sizeof_c5_op_timestamp - stampBytes]byte
	_ [barrierBytes - C.sizeof_c5_op_barrier]byte
	_ [C.sizeof_c5_op_barrier - barrierBytes]byte
)
