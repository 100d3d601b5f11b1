package pipelines

import (
	"fmt"
	"slices"
)

// DType is an element type. It has the same name in Go, in JSON, on the command line and in errors.
type DType uint8

// The first three element types are also the precisions of matrix products. The zero value is F32.
const (
	F32  DType = iota // IEEE 754 binary32
	F16               // IEEE 754 binary16: 11 significant bits, largest value 65,504
	BF16              // bfloat16, the upper half of a binary32: 8 significant bits, the range of F32
	I32               // signed 32-bit integer
	U8                // unsigned 8-bit integer
)

var (
	dtypeNames = [...]string{F32: "f32", F16: "f16", BF16: "bf16", I32: "i32", U8: "u8"}
	dtypeSizes = [...]int{F32: 4, F16: 2, BF16: 2, I32: 4, U8: 1}
	// oldNames are the names in configurations that earlier versions saved.
	oldNames = [...]string{F32: "float32", F16: "float16", BF16: "bfloat16", I32: "int32", U8: "uint8"}
)

// String returns the name: f32, f16, bf16, i32 or u8.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Size is the size of an element in bytes, 0 for an unknown type.
func (d DType) Size() int {
	if int(d) < len(dtypeSizes) {
		return dtypeSizes[d]
	}
	return 0
}

// MarshalText returns the name.
func (d DType) MarshalText() ([]byte, error) {
	if d.Size() == 0 {
		return nil, fmt.Errorf("pipelines: dtype is %v, want f32, f16, bf16, i32 or u8", d)
	}
	return []byte(d.String()), nil
}

// UnmarshalText accepts the name, or the name in earlier versions: float32, float16, bfloat16, int32 or uint8.
func (d *DType) UnmarshalText(text []byte) error {
	i := slices.Index(dtypeNames[:], string(text))
	if i < 0 {
		i = slices.Index(oldNames[:], string(text))
	}
	if i < 0 {
		return fmt.Errorf("dtype is %q, want f32, f16, bf16, i32 or u8", text)
	}
	*d = DType(i)
	return nil
}
