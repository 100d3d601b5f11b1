// Package half converts between float32 and the 16-bit formats F16 (IEEE 754 binary16) and BF16 (the upper 16 bits of a
// binary32). Conversion to 16 bits rounds to nearest even. Values out of range become infinity, and a NaN becomes a
// quiet NaN.
package half

import "math"

// FromF16 converts a binary16. The result is exact; sign and payload of a NaN are kept.
func FromF16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h>>10) & 0x1f
	fraction := uint32(h & 0x3ff)
	switch exponent {
	case 0x1f: // infinity, NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	case 0: // zero or subnormal: fraction * 2^-24, which is zero or normal in float32
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// FromBF16 converts a bfloat16. The result is exact.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// ToF16 converts to a binary16.
func ToF16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000:
		return sign | 0x7e00
	case bits >= 0x477ff000: // 65520: the least value that rounds to infinity
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: subnormal. The float32 addition of 0.5 rounds to a multiple of 2^-24.
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-math.Float32bits(0.5))
	}
	return sign | uint16((bits-(127-15)<<23+0xfff+bits>>13&1)>>13)
}

// ToBF16 converts to a bfloat16.
func ToBF16(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
