// The softmax of the queries in attention_backward_matrix.glsl.

// add_softmax adds the products of a group to the running softmax. Each element of row_max and row_sums belongs to the other
// rows whose numbers have the same remainder.
void add_softmax() {
	int above = 0; // the largest excess over row_max; integers order positive floats correctly, and NaN last
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) above = max(above, floatBitsToInt(products[i][j][k] - row_max[i][k]));
	if (subgroupAny(above > floatBitsToInt(MAX_RISE / SCALE))) {
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			[[unroll]] for (int k = 0; k < position.length(); k++) {
				float before = row_max[i][k], now = before, top = before;
				[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++) top = products[i][j][k] > top ? products[i][j][k] : top;
				if (top - before > MAX_RISE / SCALE) now = top; // whatever the other elements do
				float factor = before == now ? 1.0 : exp2((before - now) * SCALE); // exp2(0) is not exactly 1 on some devices
				row_max[i][k] = now;
				row_sums[i][k] *= factor;
			}
	}
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) row_sums[i][k] += exp2((products[i][j][k] - row_max[i][k]) * SCALE);
}

#define STORE_ROWS(MATRIX) \
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
		coopMatStore(MATRIX[i], scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
	subgroup_sync();

// scratch_row returns 4 columns of a row of floats in scratch.
vec4 scratch_row(uint base, uint row, uint c) { return uintBitsToFloat(scratch[base + row * SCRATCH_PITCH + c]); }

float scratch_sum(uint base, uint row) {
	vec4 sum = vec4(0);
	[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) sum += scratch_row(base, row, c);
	return (sum.x + sum.y) + (sum.z + sum.w);
}

#include "attention_backward_delta.glsl"

uint state_row_of(uint n) { return gl_SubgroupInvocationID + n * SUBGROUP_SIZE; }

// finish_states adds up the softmax of the subgroup's queries, and writes it to states and to shared memory. The subgroup's
// queries start at own.
void finish_states(uint base, uint first_row, uint own, uint own_end) {
	STORE_ROWS(row_max)
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		if (state_row_of(n) >= SUBGROUP_ROWS) continue;
		vec4 top = vec4(INITIAL_MAX);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) top = max(top, scratch_row(base, state_row_of(n), c));
		query_states[first_row + state_row_of(n)].x = max(max(top.x, top.y), max(top.z, top.w));
	}
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			float now = query_states[first_row + i * MATRIX_M + element_row(k)].x;
			float factor = row_max[i][k] == now ? 1.0 : exp2((row_max[i][k] - now) * SCALE);
			row_sums[i][k] *= factor;
		}
	STORE_ROWS(row_sums)
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		uint row = state_row_of(n);
		if (row >= SUBGROUP_ROWS) continue;
		vec4 state = query_states[first_row + row];
		float sum = scratch_sum(base, row), factor = ROW_FACTORS ? own_factors[first_row + row].x : 1;
		bool none = sum < 0.5 || !present(own_addresses[first_row + row].xy); // the sum is at least 1 with a visible key, else 0
		if (own + row < own_end) F32x4(at(states(), state_row(own + row), 16)).v[0] = none ? vec4(0) : vec4(state.x, -log2(sum), state.z, factor);
		query_states[first_row + row] = none ? vec4(0) : vec4(state.x, 0, state.z, 1 / sum);
	}
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			vec4 state = query_states[first_row + i * MATRIX_M + element_row(k)];
			row_max[i][k] = state.x;
			row_delta[i][k] = state.z;
		}
}
