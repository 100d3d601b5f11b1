// Where the elements of a matrix are, for attention_matrix.glsl and attention_backward_matrix.glsl, which declare position, in_registers
// and the scratch memory.
#ifndef COLT5_ATTENTION_POSITIONS
#define COLT5_ATTENTION_POSITIONS

// find_positions computes position and in_registers.
void find_positions(uint base) {
	for (uint e = gl_SubgroupInvocationID; e < MATRIX_M * MATRIX_N; e += SUBGROUP_SIZE)
		scratch[base + e / MATRIX_N * SCRATCH_PITCH + e % MATRIX_N / 4][e % 4] = floatBitsToUint(float(e / MATRIX_N * 16 + e % MATRIX_N));
	subgroup_sync();
	coopMatLoad(position, scratch, base, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	subgroup_sync();
	in_registers = false;
	if (!WEIGHTS_IN_REGISTERS || MATRIX_K != MATRIX_N) return;
	for (uint e = gl_SubgroupInvocationID; e < MATRIX_M * MATRIX_K / 2; e += SUBGROUP_SIZE) {
		uint row = e / (MATRIX_K / 2), col = e % (MATRIX_K / 2);
		scratch[base + row * SCRATCH_PITCH + col / 4][col % 4] = pack16(OPERAND_DTYPE, vec2(row * 16 + 2 * col, row * 16 + 2 * col + 1));
	}
	subgroup_sync();
	OPERAND_A left;
	coopMatLoad(left, scratch, base, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	bool same = left.length() == position.length();
	if (same)
		[[unroll]] for (int k = 0; k < position.length(); k++) same = same && float(left[k]) == position[k];
	in_registers = subgroupAll(same);
	subgroup_sync();
}

#endif
