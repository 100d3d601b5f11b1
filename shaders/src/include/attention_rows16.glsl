// What the kernels of attention_matrix.glsl and attention_lowreg.glsl have in common: the rows of a workgroup, in 16 bits.

#include "row_chunks.glsl"

#ifdef LOW_REGISTERS // compilers move the loads of unrolled steps ahead
#define ROW_STEPS [[dont_unroll]]
#else
#define ROW_STEPS
#endif

// make_finite replaces infinity and NaN by the largest number. A key that is not visible has weight 0, and 0 * infinity
// would be NaN. Their exponent bits are all ones, so adding 1 to the exponent carries into the sign bit.
uvec4 make_finite(uvec4 v) {
	const uint last = OPERAND_DTYPE == DTYPE_BF16 ? 7 : 10; // lowest bit of an exponent
#ifdef LOW_REGISTERS
	uvec4 carry = (v & 0x7fff7fffu) + (0x00010001u << last) & 0x80008000u;
#else
	uvec4 carry = (v & 0x7fff7fffu) + (0x00010001u << last);
	if (((carry.x | carry.y | carry.z | carry.w) & 0x80008000u) == 0) return v;
	carry &= 0x80008000u;
#endif
	return (v | (carry >> 15) * 0x7fffu) & ~(carry >> (15 - last));
}

void load_queries(uint i0) {
	ROW_STEPS for (uint e = gl_LocalInvocationIndex; e < TILE_QUERIES * ROW_CHUNKS; e += THREADS) {
		Query one = query(i0 + e / ROW_CHUNKS);
		uvec4 v = uvec4(0);
		if (one.exists) v = load_chunk(one.address, e % ROW_CHUNKS);
		if (ROW_FACTORS) v = scale16(v, one.factor);
		tile[e / ROW_CHUNKS * PITCH + e % ROW_CHUNKS] = v;
	}
}

// lookup_keys stores rows and factors of the keys of the tile at j0 in buffer buf, 0 or 1; slots from j1 on do not
// exist.
void lookup_keys(uint buf, uint j0, uint j1) {
	ROW_STEPS for (uint t = gl_LocalInvocationIndex; t < TILE_KEYS; t += THREADS) {
		Key k = Key(false, NO_ROW, 0, 0);
		if (j0 < j1 && t < j1 - j0) k = key(j0 + t);
		key_row[buf * TILE_KEYS + t] = k.exists ? k.row : NO_ROW;
		if (ROW_FACTORS) key_factor[buf * TILE_KEYS + t] = k.exists ? vec2(k.key_factor, k.value_factor) : vec2(0);
		if (!k.exists) empty_tile[buf] = j0;
	}
}
