// Part of linear_matrix.comp: from sums in registers to results in memory, with the epilogue.

// prefetch_outputs loads the epilogue's input for outputs first .. first + BATCH - 1 of the invocation, in rows from m0
// and columns from n0.
void prefetch_outputs(uint m0, uint n0, uint first) {
	[[unroll]] for (uint n = 0; n < BATCH; n++) {
		uint e = gl_SubgroupInvocationID + (first + n) * SUBGROUP_SIZE, row = m0 + e / N_VEC4, col = n0 + e % N_VEC4 * 4;
		next_outputs[n].valid = (STORE_M * MATRIX_M * N_VEC4 % (BATCH * SUBGROUP_SIZE) == 0 || e < STORE_M * MATRIX_M * N_VEC4) && (OUT % TILE_N == 0 || col < OUT) && is_written(row);
		if (!next_outputs[n].valid) continue;
		next_outputs[n].epilogue = epilogue_of(row, 1);
		if (SPLIT_K > 1) next_outputs[n].epilogue.row = part * p.total_rows + row;
		if (RESIDUAL) next_outputs[n].residual = load_out(at(p.residual, next_outputs[n].epilogue.row, OUT * 4), col);
	}
}

void prefetch_bias(uint n0) {
	uint col = n0 + gl_SubgroupInvocationID % N_VEC4 * 4;
	if (BIAS && SUBGROUP_SIZE % N_VEC4 == 0 && (OUT % TILE_N == 0 || col < OUT)) bias = load_out(p.bias, col);
}

#ifdef LOW_REGISTERS
// write_rows applies the epilogue to the rows from m0 on, whose sums are in shared memory from chunk `base` on, and
// writes them.
void write_rows(uint m0, uint n0, uint base) {
	[[dont_unroll]] for (uint n = 0; n < OUTPUTS; n++) {
		uint e = gl_SubgroupInvocationID + n * SUBGROUP_SIZE, row = m0 + e / N_VEC4;
		if (STORE_M * MATRIX_M * N_VEC4 % SUBGROUP_SIZE != 0 && e >= STORE_M * MATRIX_M * N_VEC4 || !is_written(row)) continue;
		Epilogue epilogue = epilogue_of(row, 1);
		if (SPLIT_K > 1) epilogue.row = part * p.total_rows + row;
		write_columns(epilogue, n0 + e % N_VEC4 * 4, uintBitsToFloat(tile[base + e / N_VEC4 * OUT_PITCH + e % N_VEC4]));
	}
}
#else
// write_rows applies the epilogue to the rows from m0 on, whose sums are in shared memory from chunk `base` on, and
// writes them. The first batch is prefetched by the caller. Each batch prefetches the next one; the last batch
// prefetches the first one of the rows that follow.
void write_rows(uint m0, uint n0, uint base, bool last) {
	[[dont_unroll]] for (uint first = 0; first < OUTPUTS; first += BATCH) {
		Output outputs[BATCH];
		[[unroll]] for (uint n = 0; n < BATCH; n++) outputs[n] = next_outputs[n];
		if (first + BATCH < OUTPUTS) prefetch_outputs(m0, n0, first + BATCH);
		else if (!last) prefetch_outputs(m0 + STORE_M * MATRIX_M, n0, 0);
		[[unroll]] for (uint n = 0; n < BATCH; n++) {
			if (!outputs[n].valid) continue;
			uint e = gl_SubgroupInvocationID + (first + n) * SUBGROUP_SIZE, col = n0 + e % N_VEC4 * 4;
			Addends a = Addends(vec4(0), outputs[n].residual);
			if (BIAS && outputs[n].epilogue.bias) a.bias = SUBGROUP_SIZE % N_VEC4 == 0 ? bias : load_out(p.bias, col);
			write_outputs(outputs[n].epilogue, a, col, uintBitsToFloat(tile[base + e / N_VEC4 * OUT_PITCH + e % N_VEC4]));
		}
	}
}

#endif

// write_rows_16bit writes the rows from m0 on with NO_EPILOGUE: their 16-bit results are in shared memory from chunk
// `base` on.
void write_rows_16bit(uint m0, uint n0, uint base) {
	[[unroll]] for (uint n = 0; n < (STORE_M * MATRIX_M * N_CHUNKS + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE; n++) {
		uint e = gl_SubgroupInvocationID + n * SUBGROUP_SIZE, row = m0 + e / N_CHUNKS, col = n0 + e % N_CHUNKS * 8;
		if (STORE_M * MATRIX_M * N_CHUNKS % SUBGROUP_SIZE != 0 && e >= STORE_M * MATRIX_M * N_CHUNKS) continue;
		if ((FULL_TILES || row < p.total_rows) && (OUT % TILE_N == 0 || col < OUT))
			U32x4(y_row(epilogue_of(row, 1))).v[col / 8] = tile[base + e / N_CHUNKS * OUT16_PITCH + e % N_CHUNKS];
	}
}

#ifdef BF16
// round_operands rounds to nearest before a conversion to bfloat16_t: some devices truncate.
ACCUMULATOR round_operands(ACCUMULATOR m) {
	for (uint i = 0; i < m.length(); i++) m[i] = round_bf16(m[i]);
	return m;
}
#else
#define round_operands(m) (m)
#endif

#ifdef LOW_REGISTERS
// store_rows passes the sums of matrices i .. i + STORE_M - 1 along M through shared memory, from chunk `base` on, and
// writes the results. m0 and n0 are the first row and column of the subgroup.
void store_rows(uint i, uint m0, uint n0, uint base) {
	[[unroll]] for (uint s = 0; s < STORE_M; s++)
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
			if (NO_EPILOGUE) {
				ACCUMULATOR16 h = ACCUMULATOR16(round_operands(acc[i + s][j]));
				coopMatStore(h, tile, base + s * MATRIX_M * OUT16_PITCH + j * MATRIX_N / 8, OUT16_PITCH, gl_CooperativeMatrixLayoutRowMajor);
			} else {
				coopMatStore(acc[i + s][j], tile, base + s * MATRIX_M * OUT_PITCH + j * MATRIX_N / 4, OUT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
			}
		}
	subgroupMemoryBarrierShared();
	subgroupBarrier();
	if (NO_EPILOGUE) write_rows_16bit(m0 + i * MATRIX_M, n0, base);
	else write_rows(m0 + i * MATRIX_M, n0, base);
	subgroupMemoryBarrierShared();
	subgroupBarrier();
}
#endif
