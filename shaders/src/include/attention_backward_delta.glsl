// Include attention_backward_rows.glsl first.

// compute_deltas writes delta of the own queries, the products of their rows of dy, which are in shared memory from chunk
// `from` on, and of their results.
void compute_deltas(uint from) {
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
		if (!present(own_addresses[n].xy)) continue;
		float delta = 0;
		CHUNK_STEPS for (uint c = 0; c < ROW_CHUNKS; c++) {
			uint chunk = n * PITCH + c;
			uvec4 a = OWN_IN_REGISTERS ? tile[chunk] : own_tile[OWN_IN_REGISTERS ? 0 : from + chunk], b = load_chunk(own_results[n], c);
			[[unroll]] for (uint j = 0; j < 4; j++) {
				vec2 x = unpack16(OPERAND_DTYPE, a[j]), y = unpack16(OPERAND_DTYPE, b[j]);
				delta = fma(x.y, y.y, fma(x.x, y.x, delta));
			}
		}
		bool finite = (floatBitsToUint(delta) & 0x7f800000u) != 0x7f800000u;
		query_states[n].z = finite ? delta : uintBitsToFloat(0x7fc00000u);
	}
}
