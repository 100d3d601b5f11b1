package safetensors

import (
	"math"
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

// TestFloat16 compares all 65,536 values with the definition in float64.
func TestFloat16(t *testing.T) {
	for h := range 1 << 16 {
		sign := 1.0
		if h&0x8000 != 0 {
			sign = -1
		}
		exponent, fraction := h>>10&0x1f, float64(h&0x3ff)
		got := float64(float16(uint16(h)))
		var want float64
		switch {
		case exponent == 0x1f && fraction != 0:
			if !math.IsNaN(got) {
				t.Fatalf("float16(%#04x) is %v, want NaN", h, got)
			}
			continue
		case exponent == 0x1f:
			want = math.Inf(int(sign))
		case exponent == 0:
			want = math.Copysign(math.Ldexp(fraction, -24), sign)
		default:
			want = sign * math.Ldexp(1024+fraction, exponent-25)
		}
		if math.Float64bits(got) != math.Float64bits(want) { // bits: the sign of zero counts
			t.Fatalf("float16(%#04x) is %v, want %v", h, got, want)
		}
	}
}

func TestBFloat16(t *testing.T) {
	for bits, want := range map[uint16]float32{
		0x0000: 0, 0x3f80: 1, 0xc049: -3.140625, 0x7f7f: 0x1.fep127, 0x0001: 0x1p-133, 0xff80: float32(math.Inf(-1)),
	} {
		assert.Equal(t, want, bfloat16(bits), "%#04x", bits)
	}
	assert.True(t, math.Signbit(float64(bfloat16(0x8000))))
	assert.True(t, math.IsNaN(float64(bfloat16(0x7fc0))))
}
