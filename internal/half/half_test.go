package half

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRoundTrip converts every 16-bit value to float32 and back.
func TestRoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if f := FromF16(h); f == f {
			require.Equal(t, h, ToF16(f), "%#x", h)
		} else {
			require.True(t, isNaN(FromF16(ToF16(f))))
		}
		if f := FromBF16(h); f == f {
			require.Equal(t, h, ToBF16(f), "%#x", h)
		} else {
			require.True(t, isNaN(FromBF16(ToBF16(f))))
		}
	}
}

func isNaN(f float32) bool { return f != f }

// TestNearest converts random values. Neither neighbour of a result may be nearer, or as near and even.
func TestNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		f := math.Float32frombits(r.Uint32())
		if r.IntN(2) == 0 { // the range of F16
			f = float32((r.Float64()*2 - 1) * math.Pow(2, float64(r.IntN(44)-27)))
		}
		if isNaN(f) {
			continue
		}
		nearest(t, f, ToF16, FromF16, 65536)
		nearest(t, f, ToBF16, FromBF16, 0x1p128)
	}
	for _, f := range []float32{0, 65504, 65519.99, 65520, 0x1p-24, 0x1p-25, 0x1.8p-24, 0x1p-14, 1 + 0x1p-11, 1 + 0x3p-11, 1 + 0x1p-8, 1 + 0x3p-8, math.MaxFloat32} {
		nearest(t, f, ToF16, FromF16, 65536)
		nearest(t, -f, ToBF16, FromBF16, 0x1p128)
	}
	require.Equal(t, uint16(0x7c00), ToF16(float32(math.Inf(1))))
	require.Equal(t, uint16(0xff80), ToBF16(float32(math.Inf(-1))))
}

// nearest checks one conversion. beyond is the value that infinity has in the comparison: the next power of two out of
// range.
func nearest(t *testing.T, f float32, to func(float32) uint16, from func(uint16) float32, beyond float64) {
	t.Helper()
	value := func(h uint16) float64 {
		v := float64(from(h))
		if math.IsInf(v, 0) {
			return math.Copysign(beyond, v)
		}
		return v
	}
	h := to(f)
	off := math.Abs(value(h) - float64(f))
	for _, o := range []uint16{h - 1, h + 1} {
		if isNaN(from(o)) || (o^h)&0x8000 != 0 {
			continue
		}
		other := math.Abs(value(o) - float64(f))
		if other < off || other == off && h&1 != 0 {
			t.Fatalf("%g became %g, %g is nearer or even", f, from(h), from(o))
		}
	}
}

// TestF16 compares all 65,536 values with the definition, computed in float64.
func TestF16(t *testing.T) {
	for h := range 1 << 16 {
		sign := 1.0
		if h&0x8000 != 0 {
			sign = -1
		}
		exponent, fraction := h>>10&0x1f, float64(h&0x3ff)
		got := float64(FromF16(uint16(h)))
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

func TestBF16(t *testing.T) {
	for bits, want := range map[uint16]float32{
		0x0000: 0, 0x3f80: 1, 0xc049: -3.140625, 0x7f7f: 0x1.fep127, 0x0001: 0x1p-133, 0xff80: float32(math.Inf(-1)),
	} {
		require.Equal(t, want, FromBF16(bits), "%#04x", bits)
	}
	require.True(t, math.Signbit(float64(FromBF16(0x8000))))
	require.True(t, math.IsNaN(float64(FromBF16(0x7fc0))))
}
