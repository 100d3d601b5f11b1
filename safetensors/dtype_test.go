package safetensors

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestDTypeSize(t *testing.T) {
	for _, d := range []DType{Bool, U8, I8, F8E5M2, F8E4M3, F8E8M0, F8E4M3FNUZ, F8E5M2FNUZ} {
		assert.EqualValues(t, 1, d.Size(), d)
	}
	for _, d := range []DType{I16, U16, F16, BF16} {
		assert.EqualValues(t, 2, d.Size(), d)
	}
	for _, d := range []DType{I32, U32, F32} {
		assert.EqualValues(t, 4, d.Size(), d)
	}
	for _, d := range []DType{C64, F64, I64, U64} {
		assert.EqualValues(t, 8, d.Size(), d)
	}
	for _, d := range []DType{"", "f32", "F4", "F32 "} {
		assert.Zero(t, d.Size(), d)
	}
}
