package colt5

import "github.com/colt5-vulkan/colt5/pipelines"

// DType is a number format: of a tensor's elements (F32, I32 or U8), or the precision of a module's matrix products
// (F32, F16 or BF16). In JSON, on the command line and in errors it is f32, f16, bf16, i32 or u8.
type DType = pipelines.DType

// The number formats. As a precision, F16 and BF16 are several times faster than F32 on a device with cooperative
// matrices. On a device without them New returns an error that wraps vk.ErrUnsupported and names the missing feature.
// Sums, norms, softmax, routing, inputs and outputs are float32 in every precision. F16 has 11 significant bits; larger
// values than 65,504 overflow to infinity, and an attention with an infinite query or key may still return finite,
// wrong numbers. BF16 has 8 significant bits and the range of F32.
const (
	F32  = pipelines.F32
	F16  = pipelines.F16
	BF16 = pipelines.BF16
	I32  = pipelines.I32
	U8   = pipelines.U8
)
