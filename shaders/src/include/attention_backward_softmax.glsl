// The softmax of the queries in attention_backward_matrix.glsl. The running maximum of a query is lazy, as in
// attention_matrix.glsl: it rises only when a product exceeds it by more than MAX_RISE powers of 2, judged by the products of
// the query with the keys of a group. ds without the factor 1 / sum of the weights is then at most 2^MAX_RISE times its largest
// value with the maximum itself, which costs float16 as much of its range; so MAX_RISE is smaller than there. With normally
// distributed scores, few groups but the first raise a maximum.

const float MAX_RISE = 3; // in powers of 2
const float INITIAL_MAX = -1e30; // running maximum before the first key

uint state_row_of(uint n) { return gl_SubgroupInvocationID + n * SUBGROUP_SIZE; }

// init_states adds up the parts of delta in scratch, and initialises the states in shared memory. A query with an infinite delta
// is treated like one with an infinite row.
void init_states() {
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
		float delta = 0;
		[[unroll]] for (uint c = 0; c < ROW_CHUNKS; c++) delta += uintBitsToFloat(scratch[n * SCRATCH_PITCH + c / 4][c % 4]);
		delta = finite_delta(delta);
		if (is_nan(delta)) own_infinite[n] = own_state[1] = 1;
		query_states[n] = vec4(INITIAL_MAX, 0, delta, 0);
	}
}

#define STORE_ROWS(MATRIX) \
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
		coopMatStore(MATRIX[i], scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
	subgroup_sync();

// scratch_row returns 4 columns of a row of floats in scratch.
vec4 scratch_row(uint base, uint row, uint c) { return uintBitsToFloat(scratch[base + row * SCRATCH_PITCH + c]); }

// raise_maxima raises the running maximum of each query that the products of the group exceed by more than MAX_RISE powers of
// 2, and rescales its sums.
void raise_maxima(uint base, uint first_row) {
	int above = 0; // the largest excess; integers order positive floats correctly
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) above = max(above, floatBitsToInt(products[i][j][k] - row_max[i][k]));
	if (!subgroupAny(above > floatBitsToInt(MAX_RISE / SCALE))) return;
	ACCUMULATOR tops[MATRICES_M];
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		tops[i] = products[i][0];
		[[unroll]] for (uint j = 1; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) tops[i][k] = max(tops[i][k], products[i][j][k]);
	}
	STORE_ROWS(tops)
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		if (state_row_of(n) >= SUBGROUP_ROWS) continue;
		vec4 columns = vec4(MASKED_SCORE);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) columns = max(columns, scratch_row(base, state_row_of(n), c));
		float top = max(max(columns.x, columns.y), max(columns.z, columns.w));
		if (top - query_states[first_row + state_row_of(n)].x > MAX_RISE / SCALE) query_states[first_row + state_row_of(n)].x = top;
	}
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			float before = row_max[i][k], now = query_states[first_row + i * MATRIX_M + element_row(k)].x;
			float factor = before == now ? 1.0 : exp2((before - now) * SCALE); // exp2(0) is not exactly 1 on some devices
			row_max[i][k] = now;
			row_sums[i][k] *= factor;
			[[unroll]] for (uint j = 0; j < SUM_MATRICES; j++) product_sums[i][j][k] *= factor;
		}
}

// add_row_sums adds the weights of a group to the sums of the rows.
void add_row_sums() {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) row_sums[i][k] += products[i][j][k];
}

// finish_states adds up the weights of the subgroup's queries, and writes the states. Those in shared memory get the factor of
// the sums. The subgroup's queries start at own.
void finish_states(uint base, uint first_row, uint own, uint own_end) {
	STORE_ROWS(row_sums)
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		uint row = state_row_of(n);
		if (row >= SUBGROUP_ROWS) continue;
		vec4 columns = vec4(0), state = query_states[first_row + row];
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) columns += scratch_row(base, row, c);
		float sum = (columns.x + columns.y) + (columns.z + columns.w), factor = ROW_FACTORS ? own_factors[first_row + row].x : 1;
		bool none = sum < 0.5 || !present(own_addresses[first_row + row].xy); // the sum is at least 1 with a visible key, else 0
		if (own + row < own_end) F32x4(at(states(), state_row(own + row), 16)).v[0] = none ? vec4(0) : vec4(state.x, -log2(sum), state.z, factor);
		query_states[first_row + row].w = none ? 0 : 1 / sum;
	}
	subgroup_sync();
}
