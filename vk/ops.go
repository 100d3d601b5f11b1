package vk

// #include "native.h"
import "C"

import (
	"encoding/binary"
)

// The functions of this file append commands in the layout of native.h, from which c5_write_commands writes a command
// buffer.

var byteOrder = binary.NativeEndian

func appendOp(ops []byte, op, size uint32) []byte {
	return byteOrder.AppendUint32(byteOrder.AppendUint32(ops, op), size)
}

func append64(ops []byte, values ...uint64) []byte {
	for _, v := range values {
		ops = byteOrder.AppendUint64(ops, v)
	}
	return ops
}

const (
	dispatchHead   = 40 // bytes before the push constants of a dispatch
	copyBytes      = 48
	fillBytes      = 40
	timestampBytes = 24
	barrierBytes   = 16
)

// appendDispatch appends a dispatch with room for size bytes of push constants.
func appendDispatch(ops []byte, p *pipeline, groups [3]uint32, size uint32) []byte {
	push := (size + 7) &^ 7 // the size of a command is a multiple of 8 bytes
	ops = append64(appendOp(ops, C.C5_OP_DISPATCH, dispatchHead+push), p.handle, p.layout)
	for _, n := range append(groups[:], size) {
		ops = byteOrder.AppendUint32(ops, n)
	}
	return append(ops, make([]byte, push)...)
}

// Kinds of work that barriers order.
const (
	kindCompute  = C.C5_COMPUTE
	kindTransfer = C.C5_TRANSFER
	kindAny      = kindCompute | kindTransfer
	kindHost     = C.C5_HOST // host reads, only after a barrier
)

const opBarrier = C.C5_OP_BARRIER

// appendBarrier appends a barrier between work of the kinds before and work of the kinds after. A sequence of barriers
// orders all work transitively if the kinds after each barrier equal the kinds before the next.
func appendBarrier(ops []byte, before, after uint32) []byte {
	return byteOrder.AppendUint32(byteOrder.AppendUint32(appendOp(ops, opBarrier, barrierBytes), before), after)
}

func appendCopy(ops []byte, from, fromOffset, to, toOffset, size uint64) []byte {
	return append64(appendOp(ops, C.C5_OP_COPY, copyBytes), from, fromOffset, to, toOffset, size)
}

func appendFill(ops []byte, buffer, offset, size uint64, word uint32) []byte {
	ops = append64(appendOp(ops, C.C5_OP_FILL, fillBytes), buffer, offset, size)
	return byteOrder.AppendUint32(byteOrder.AppendUint32(ops, word), 0)
}

func appendTimestamp(ops []byte, pool uint64, query uint32) []byte {
	ops = append64(appendOp(ops, C.C5_OP_TIMESTAMP, timestampBytes), pool)
	return byteOrder.AppendUint32(byteOrder.AppendUint32(ops, query), 0)
}

// These declarations compile only if the sizes above equal those of the C structures.
var (
	_ [dispatchHead - C.sizeof_c5_op_dispatch]byte
	_ [C.sizeof_c5_op_dispatch - dispatchHead]byte
	_ [copyBytes - C.sizeof_c5_op_copy]byte
	_ [C.sizeof_c5_op_copy - copyBytes]byte
	_ [fillBytes - C.sizeof_c5_op_fill]byte
	_ [C.sizeof_c5_op_fill - fillBytes]byte
	_ [timestampBytes - C.sizeof_c5_op_timestamp]byte
	_ [C.sizeof_c5_op_timestamp - timestampBytes]byte
	_ [barrierBytes - C.sizeof_c5_op_barrier]byte
	_ [C.sizeof_c5_op_barrier - barrierBytes]byte
)
