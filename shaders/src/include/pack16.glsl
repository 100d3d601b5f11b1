// 16-bit floats, two in a word, the first one in the low half: F16 (IEEE binary16) or BF16 (the upper half of a
// binary32). Rounding is to nearest, ties to even; a NaN stays a NaN. 16-bit types are not required.
#ifndef COLT5_PACK16
#define COLT5_PACK16

const uint DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_BF16 = 2; // as in pipelines/dtype.go

uint pack_bf16(vec2 v) {
	uvec2 bits = floatBitsToUint(v);
	uvec2 rounded = bits + 0x7fffu + (bits >> 16 & 1u);
	bits = mix(rounded, bits | 0x400000u, greaterThan(bits & 0x7fffffffu, uvec2(0x7f800000u)));
	return bits.x >> 16 | bits.y & 0xffff0000u;
}

vec2 unpack_bf16(uint w) { return uintBitsToFloat(uvec2(w << 16, w & 0xffff0000u)); }

// dtype is DTYPE_F16 or DTYPE_BF16, and a constant.
uint pack16(uint dtype, vec2 v) { return dtype == DTYPE_BF16 ? pack_bf16(v) : packHalf2x16(v); }
vec2 unpack16(uint dtype, uint w) { return dtype == DTYPE_BF16 ? unpack_bf16(w) : unpackHalf2x16(w); }

// round_bf16 rounds to the nearest value of BF16. Apply it before every conversion to bfloat16_t: some devices
// truncate.
float round_bf16(float v) { return unpack_bf16(pack_bf16(vec2(v))).x; }

#endif
