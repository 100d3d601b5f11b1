// What attention_backward_matrix.glsl does with its sums.

// WRITE_SUMS writes sums, times the factor scale, through shared memory: row n of the subgroup goes to address TO(n).
#define WRITE_SUMS(SUMS, KIND, TO) \
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
		[[unroll]] for (uint j = 0; j < SUM_MATRICES; j++) { \
			[[unroll]] for (int k = 0; k < position.length(); k++) SUMS[i][j][k] = ROUND_OPERAND(SUMS[i][j][k]); \
			coopMatStore(ACCUMULATOR16(SUMS[i][j]), tile, (first_row + i * MATRIX_M) * PITCH + j * MATRIX_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor); \
		} \
	subgroup_sync(); \
	for (uint e = gl_SubgroupInvocationID; e < SUBGROUP_ROWS * ROW_CHUNKS; e += SUBGROUP_SIZE) { \
		uint row = first_row + e / ROW_CHUNKS; \
		if (own + row >= own_end) continue; \
		uvec4 v = present(own_addresses[row].xy) ? tile[row * PITCH + e % ROW_CHUNKS] : uvec4(0); \
		if (ROW_FACTORS) v = scale16(v, own_factors[row][KIND]); \
		store_chunk(TO(own + row), e % ROW_CHUNKS, v); \
	} \
	if (ATTENTION_SCORES) add_factor_gradients(KIND, first_row);

#ifdef ATTENTION_SCORES
float factor_gradients[STATE_ROWS];

// add_factor_gradients adds the products of own rows of a kind, without their factors, and of their gradients in shared
// memory.
void add_factor_gradients(uint kind, uint first_row) {
	if (!factor_has_gradient(kind)) return;
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		uint row = first_row + gl_SubgroupInvocationID + n * SUBGROUP_SIZE;
		if (row - first_row >= SUBGROUP_ROWS || !present(own_addresses[row].xy)) continue;
		uvec2 address = kind == 0 ? own_addresses[row].xy : own_addresses[row].zw;
		for (uint c = 0; c < ROW_CHUNKS; c++) {
			uvec4 a = load_chunk(address, c), b = tile[row * PITCH + c];
			[[unroll]] for (uint j = 0; j < 4; j++) {
				vec2 x = unpack16(OPERAND_DTYPE, a[j]), y = unpack16(OPERAND_DTYPE, b[j]);
				factor_gradients[n] = fma(x.y, y.y, fma(x.x, y.x, factor_gradients[n]));
			}
		}
	}
	subgroup_sync();
}
#else
const bool ATTENTION_SCORES = false;
void add_factor_gradients(uint kind, uint first_row) {}
#endif

void write_results(uint first_row, uint own, uint own_end) {
#ifdef ATTENTION_SCORES
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) factor_gradients[n] = 0;
#endif
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			float scale = SCALE * LN2;
#ifdef QUERIES
			float inverse = query_states[first_row + i * MATRIX_M + element_row(k)].w;
			scale = inverse == 0 ? 0 : scale * inverse;
#endif
			[[unroll]] for (uint j = 0; j < SUM_MATRICES; j++) product_sums[i][j][k] *= scale;
		}
#ifdef QUERIES
	WRITE_SUMS(product_sums, 0, dq_address)
#else
	WRITE_SUMS(product_sums, 0, dk_address)
	subgroup_sync();
	WRITE_SUMS(value_sums, 1, dv_address)
#endif
#ifdef ATTENTION_SCORES
	if (!ATTENTION_SCORES) return;
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		uint row = gl_SubgroupInvocationID + n * SUBGROUP_SIZE;
		if (row < SUBGROUP_ROWS && own + first_row + row < own_end) write_score(own + first_row + row, factor_gradients[n]);
	}
#endif
}
