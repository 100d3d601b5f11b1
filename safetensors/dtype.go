package safetensors

import "strings"

// DType is the element type of a tensor, spelled as in the file.
type DType string

// The element types of the format whose size is a multiple of a byte.
const (
	Bool       DType = "BOOL" // one byte, 0 or 1
	U8         DType = "U8"
	I8         DType = "I8"
	F8E5M2     DType = "F8_E5M2"
	F8E4M3     DType = "F8_E4M3"
	F8E8M0     DType = "F8_E8M0"
	F8E4M3FNUZ DType = "F8_E4M3FNUZ"
	F8E5M2FNUZ DType = "F8_E5M2FNUZ"
	I16        DType = "I16"
	U16        DType = "U16"
	F16        DType = "F16"  // IEEE 754 binary16
	BF16       DType = "BF16" // bfloat16: the upper 16 bits of a binary32
	I32        DType = "I32"
	U32        DType = "U32"
	F32        DType = "F32"
	C64        DType = "C64" // two F32: real, imaginary
	F64        DType = "F64"
	I64        DType = "I64"
	U64        DType = "U64"
)

// dtypes lists the known element types and their sizes in bytes, in the order of the reference implementation. Tensors of
// later types are written first, so that every tensor is aligned to its element size.
var dtypes = []struct {
	dtype DType
	size  int64
}{
	{Bool, 1}, {U8, 1}, {I8, 1}, {F8E5M2, 1}, {F8E4M3, 1}, {F8E8M0, 1}, {F8E4M3FNUZ, 1}, {F8E5M2FNUZ, 1},
	{I16, 2}, {U16, 2}, {F16, 2}, {BF16, 2}, {I32, 4}, {U32, 4}, {F32, 4}, {C64, 8}, {F64, 8}, {I64, 8}, {U64, 8},
}

// Size returns the size of one element in bytes, 0 for an unknown DType.
func (d DType) Size() int64 {
	if i := d.order(); i >= 0 {
		return dtypes[i].size
	}
	return 0
}

// order returns the index in dtypes, -1 for an unknown DType.
func (d DType) order() int {
	for i := range dtypes {
		if dtypes[i].dtype == d {
			return i
		}
	}
	return -1
}

// knownDTypes lists the known types for an error message.
func knownDTypes() string {
	names := make([]string, len(dtypes))
	for i := range dtypes {
		names[i] = string(dtypes[i].dtype)
	}
	return strings.Join(names, ", ")
}
