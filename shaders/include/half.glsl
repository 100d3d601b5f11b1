// Numbers of 16 bits, two in a word, the first one in the low half; F16 (IEEE binary16) or BF16 (the upper half of a float). Rounding is
// to nearest, ties to even; a NaN stays one. No 16-bit types are needed.
#ifndef COLT5_HALF
#define COLT5_HALF

const uint DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_BF16 = 2; // as in pipelines/precision.go

uint pack_bf16(vec2 v) {
	uvec2 bits = floatBitsToUint(v);
	uvec2 rounded = bits + 0x7fffu + (bits >> 16 & 1u);
	bits = mix(rounded, bits | 0x400000u, greaterThan(bits & 0x7fffffffu, uvec2(0x7f800000u)));
	return bits.x >> 16 | bits.y & 0xffff0000u;
}

vec2 unpack_bf16(uint w) { return uintBitsToFloat(uvec2(w << 16, w & 0xffff0000u)); }

// pack and unpack take the precision, F16 or BF16: a constant.
uint pack(uint precision_, vec2 v) { return precision_ == DTYPE_BF16 ? pack_bf16(v) : packHalf2x16(v); }
vec2 unpack(uint precision_, uint w) { return precision_ == DTYPE_BF16 ? unpack_bf16(w) : unpackHalf2x16(w); }

// rounded_bf16 is the nearest number that BF16 has. What is narrowed to bfloat16_t goes through it: some devices cut off where they should
// round.
float rounded_bf16(float v) { return unpack_bf16(pack_bf16(vec2(v))).x; }

#endif
