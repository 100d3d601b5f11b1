// attend on cooperative matrices: queries, keys, values, weights and results have 16-bit elements, everything else is
// float32.
//
// Each subgroup computes SUBGROUP_ROWS of the workgroup's queries. The queries stay in registers as matrices, and so do
// the running maximum, the sum and the result of each row, all as ACCUMULATOR matrices, so that rows are processed
// element by element. Keys and values pass through shared memory; rows there are padded by 16 bytes, so that 8 rows use
// all banks. The next tile is prefetched into registers.
//
// The running maximum is lazy: it rises only when a score exceeds it by more than MAX_RISE powers of 2, so that few
// tiles need a row maximum across invocations. Weights are then at most 2^MAX_RISE, which 16 bits hold as precisely as
// 1, and the largest weight is at least 1. The running maximum depends on the row's own scores only. It is a score
// before SCALE is applied: the difference of two large scores is exact, the difference of a product and its rounded
// value is not.
//
// The mapping of matrix elements to invocations is implementation-defined. The matrix `position` finds it: it is loaded
// with the numbers row * 16 + column of its own elements. Where matrix A of a product has the same mapping, as on
// NVIDIA, accumulators become operands in registers; otherwise they pass through shared memory.

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint PADDED_DIM = (DIM_HEAD + 15) / 16 * 16; // DIM_HEAD, padded with zeros
const uint ROW_CHUNKS = PADDED_DIM / 8, PITCH = ROW_CHUNKS + 1; // a query, key, value or result
// Rows of a subgroup, and the matrices that hold them.
const uint SUBGROUP_ROWS = TILE_QUERIES / SUBGROUPS, MATRICES_M = SUBGROUP_ROWS / MATRIX_M;
// Matrices that hold a row of scores, and a row of results.
const uint SCORE_MATRICES = TILE_KEYS / MATRIX_N, RESULT_MATRICES = PADDED_DIM / MATRIX_N;
// Matrix products that are added for a result, and for a score.
const uint RESULT_STEPS = TILE_KEYS / MATRIX_K, SCORE_STEPS = PADDED_DIM / MATRIX_K;
const uint SCRATCH_PITCH = TILE_KEYS / 8 + 1;
// Rows for which an invocation computes the maximum.
const uint OWNED_ROWS = (SUBGROUP_ROWS + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;
// Chunks of a tile's keys, or of its values, that an invocation loads.
const uint LOADS = (TILE_KEYS * ROW_CHUNKS + THREADS - 1) / THREADS;

const float MAX_RISE = 8; // in powers of 2
const float INITIAL_MAX = -1e30; // running maximum before the first key
const float MAX_RAW_SCORE = 1e29; // bound of the magnitude of scores before SCALE

#ifdef BF16
#define ROUND_OPERAND(v) round_bf16(v) // before a conversion to bfloat16_t: some devices truncate
#else
#define ROUND_OPERAND(v) (v)
#endif

// tile holds the queries, then the keys and values of a tile, then the results.
shared uvec4 tile[(TILE_QUERIES > 2 * TILE_KEYS ? TILE_QUERIES : 2 * TILE_KEYS) * PITCH];
// scratch is for exchanges within a subgroup; each subgroup has SUBGROUP_ROWS rows of it, from chunk `base` on.
shared uvec4 scratch[TILE_QUERIES * SCRATCH_PITCH];
shared uint key_row[2 * TILE_KEYS]; // of this tile and of the next one
shared vec2 key_factor[ROW_FACTORS ? 2 * TILE_KEYS : 2];
// empty_tile[0] and [1] are j0 of these tiles if some of their slots do not exist. It has 4 elements so that all arrays
// are whole chunks.
shared uint empty_tile[4];

uvec4 next_keys[LOADS], next_values[LOADS];
float owned_max[OWNED_ROWS]; // running maximum of rows owned_row(0), owned_row(1), ...
ACCUMULATOR position, running_max[MATRICES_M], row_sums[MATRICES_M], scores[MATRICES_M][SCORE_MATRICES], result[MATRICES_M][RESULT_MATRICES];
OPERAND_A q[MATRICES_M][SCORE_STEPS], weights[MATRICES_M][RESULT_STEPS];
bool in_registers; // OPERAND_A has the same mapping of elements to invocations as ACCUMULATOR

// subgroup_sync makes writes to scratch visible within the subgroup. CPU drivers run a subgroup in lockstep, and
// implement a subgroup barrier as a workgroup barrier, which would deadlock here because not all subgroups reach it.
void subgroup_sync() {
	subgroupMemoryBarrierShared();
	if (!LOCKSTEP) subgroupBarrier();
}

uint owned_row(uint n) { return gl_SubgroupInvocationID + n * SUBGROUP_SIZE; }

#include "attention_rows16.glsl"

// prefetch loads the keys and values of a tile into registers. It is called unconditionally, also for the tile after
// the last one, which has no rows: a conditional load makes compilers copy the registers at the join, and the copy
// waits for the load.
void prefetch(uint buf) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / ROW_CHUNKS;
		next_keys[n] = next_values[n] = uvec4(0);
		if (TILE_KEYS * ROW_CHUNKS % THREADS != 0 && j >= TILE_KEYS) continue;
		uint row = key_row[buf * TILE_KEYS + j];
		if (row != NO_ROW) next_keys[n] = load_chunk(key_address(row), e % ROW_CHUNKS);
		if (row != NO_ROW) next_values[n] = load_chunk(value_address(row), e % ROW_CHUNKS);
	}
}

// store_tile writes the prefetched keys and values to shared memory. Values that some queries of the workgroup do not
// see are made finite.
void store_tile(uint buf, bool full) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / ROW_CHUNKS;
		if (TILE_KEYS * ROW_CHUNKS % THREADS != 0 && j >= TILE_KEYS) continue;
		uvec4 k = next_keys[n], v = next_values[n];
		if (ROW_FACTORS) {
			vec2 factors = key_factor[buf * TILE_KEYS + j];
			k = scale16(k, factors.x);
			v = scale16(v, factors.y);
		}
		if (!full) v = make_finite(v);
		tile[j * PITCH + e % ROW_CHUNKS] = k;
		tile[(TILE_KEYS + j) * PITCH + e % ROW_CHUNKS] = v;
	}
}

#include "attention_positions.glsl"

// broadcast_owned writes owned_max to scratch: the value of a row into all columns of the row.
void broadcast_owned(uint base) {
	[[unroll]] for (uint n = 0; n < OWNED_ROWS; n++) {
		if (owned_row(n) >= SUBGROUP_ROWS) continue;
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) scratch[base + owned_row(n) * SCRATCH_PITCH + c] = uvec4(floatBitsToUint(owned_max[n]));
	}
}

// init_rows loads the queries from shared memory, and initialises maxima, sums and results, with the null key and value
// if there are any.
void init_rows(uint base, uint first_row) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint k = 0; k < SCORE_STEPS; k++)
			coopMatLoad(q[i][k], tile, (first_row + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
#ifdef ATTENTION_NULL
	[[unroll]] for (uint n = 0; n < OWNED_ROWS; n++) {
		float s = 0;
		for (uint i = 0; i < ROW_CHUNKS; i++) {
			uvec4 words = owned_row(n) < SUBGROUP_ROWS ? tile[(first_row + owned_row(n)) * PITCH + i] : uvec4(0);
			[[unroll]] for (uint j = 0; j < 2; j++) {
				vec4 k = load_row(null_key(), 2 * i + j);
				vec2 a = unpack16(OPERAND_DTYPE, words[2 * j]), b = unpack16(OPERAND_DTYPE, words[2 * j + 1]);
				s = fma(b.y, k.w, fma(b.x, k.z, fma(a.y, k.y, fma(a.x, k.x, s))));
			}
		}
		owned_max[n] = clamp_score(s, MAX_RAW_SCORE);
	}
	broadcast_owned(base);
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		coopMatLoad(running_max[i], scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (int k = 0; k < position.length(); k++) row_sums[i][k] = uint(position[k]) % 16 == 0 ? 1.0 : 0.0;
	}
	[[unroll]] for (uint j = 0; j < RESULT_MATRICES; j++) {
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			uint col = j * MATRIX_N + uint(position[k]) % 16;
			float v = DIM_HEAD == PADDED_DIM || col < DIM_HEAD ? F32(null_value()).v[col] : 0.0;
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) result[i][j][k] = v;
		}
	}
	subgroup_sync();
#else
	[[unroll]] for (uint n = 0; n < OWNED_ROWS; n++) owned_max[n] = INITIAL_MAX;
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		running_max[i] = ACCUMULATOR(INITIAL_MAX);
		row_sums[i] = ACCUMULATOR(0);
		[[unroll]] for (uint j = 0; j < RESULT_MATRICES; j++) result[i][j] = ACCUMULATOR(0);
	}
#endif
}

// multiply_keys computes the scores of the tile.
void multiply_keys() {
	[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++) {
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) scores[i][j] = ACCUMULATOR(0);
		[[unroll]] for (uint k = 0; k < SCORE_STEPS; k++) {
			OPERAND_B keys;
			coopMatLoad(keys, tile, j * MATRIX_N * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) scores[i][j] = coopMatMulAdd(q[i][k], keys, scores[i][j]);
		}
	}
	if (OPERAND_DTYPE != DTYPE_BF16) return; // sums of products of F16 operands are smaller
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) scores[i][j][k] = clamp_score(scores[i][j][k], MAX_RAW_SCORE);
}

// mask_scores masks the scores of slots that are not visible. The subgroup's queries start at i0, the tile's slots at
// j0.
void mask_scores(uint i0, uint j0) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) {
				uint row = i * MATRIX_M + uint(position[k]) / 16, col = j * MATRIX_N + uint(position[k]) % 16;
				if (!visible(i0 + row, j0 + col)) scores[i][j][k] = MASKED_SCORE;
			}
}

// mask_empty_slots masks the scores of slots that do not exist.
void mask_empty_slots(uint buf) {
	[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			bool exists = key_row[buf * TILE_KEYS + j * MATRIX_N + uint(position[k]) % 16] != NO_ROW;
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
				if (!exists) scores[i][j][k] = MASKED_SCORE;
		}
}

// raise_maxima raises the running maximum of each row that the tile exceeds by more than MAX_RISE powers of 2, and
// rescales sums and results.
void raise_maxima(uint base) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		ACCUMULATOR tile_max = scores[i][0];
		[[unroll]] for (uint j = 1; j < SCORE_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) tile_max[k] = max(tile_max[k], scores[i][j][k]);
		coopMatStore(tile_max, scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	}
	subgroup_sync();
	[[unroll]] for (uint n = 0; n < OWNED_ROWS; n++) {
		if (owned_row(n) >= SUBGROUP_ROWS) continue;
		vec4 column_max = vec4(MASKED_SCORE);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) column_max = max(column_max, uintBitsToFloat(scratch[base + owned_row(n) * SCRATCH_PITCH + c]));
		float top = max(max(column_max.x, column_max.y), max(column_max.z, column_max.w));
		if (top - owned_max[n] > MAX_RISE / SCALE) owned_max[n] = top;
	}
	broadcast_owned(base);
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		ACCUMULATOR rescale;
		coopMatLoad(rescale, scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			float before = running_max[i][k], now = rescale[k];
			float factor = before == now ? 1.0 : exp2((before - now) * SCALE); // exp2(0) is not exactly 1 on some devices
			running_max[i][k] = now;
			rescale[k] = factor;
			row_sums[i][k] *= factor;
		}
		[[unroll]] for (uint j = 0; j < RESULT_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) result[i][j][k] *= rescale[k];
	}
	subgroup_sync();
}

// compute_weights replaces the tile's scores by weights. The largest excess over running_max is found with integers,
// which order positive floats correctly: the float maximum of a number and a NaN may be either, and a NaN in one row
// must not affect other rows.
void compute_weights(uint base) {
	int above = 0;
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) above = max(above, floatBitsToInt(scores[i][j][k] - running_max[i][k]));
	if (subgroupAny(above > floatBitsToInt(MAX_RISE / SCALE))) raise_maxima(base);
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) {
				float w = exp2((scores[i][j][k] - running_max[i][k]) * SCALE);
				row_sums[i][k] += w;
				scores[i][j][k] = w;
			}
	if (in_registers) {
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			[[unroll]] for (uint j = 0; j < RESULT_STEPS; j++)
				[[unroll]] for (int k = 0; k < position.length(); k++) weights[i][j][k] = OPERAND(ROUND_OPERAND(scores[i][j][k]));
		return;
	}
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < SCORE_MATRICES; j++) {
			[[unroll]] for (int k = 0; k < position.length(); k++) scores[i][j][k] = ROUND_OPERAND(scores[i][j][k]);
			coopMatStore(ACCUMULATOR16(scores[i][j]), scratch, base + i * MATRIX_M * SCRATCH_PITCH + j * MATRIX_N / 8, SCRATCH_PITCH,
				gl_CooperativeMatrixLayoutRowMajor);
		}
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < RESULT_STEPS; j++)
			coopMatLoad(weights[i][j], scratch, base + i * MATRIX_M * SCRATCH_PITCH + j * MATRIX_K / 8, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	subgroup_sync();
}

// multiply_values adds the products of weights and values to the results.
void multiply_values() {
	[[unroll]] for (uint k = 0; k < RESULT_STEPS; k++) {
		[[unroll]] for (uint j = 0; j < RESULT_MATRICES; j++) {
			OPERAND_B values;
			coopMatLoad(values, tile, (TILE_KEYS + k * MATRIX_K) * PITCH + j * MATRIX_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) result[i][j] = coopMatMulAdd(weights[i][k], values, result[i][j]);
		}
	}
}

// write_results divides the results by the sums, and writes them through the rows of shared memory that held the
// queries.
void write_results(uint base, uint first_row, uint i0) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		coopMatStore(row_sums[i], scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	subgroup_sync();
	[[unroll]] for (uint n = 0; n < OWNED_ROWS; n++) {
		if (owned_row(n) >= SUBGROUP_ROWS) continue;
		vec4 column_sums = vec4(0);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) column_sums += uintBitsToFloat(scratch[base + owned_row(n) * SCRATCH_PITCH + c]);
		float sum = (column_sums.x + column_sums.y) + (column_sums.z + column_sums.w);
		owned_max[n] = sum < 0.5 ? 0.0 : 1 / sum; // at least 1 with a visible key, else 0
	}
	broadcast_owned(base);
	subgroup_sync();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		ACCUMULATOR factor;
		coopMatLoad(factor, scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint j = 0; j < RESULT_MATRICES; j++) {
			[[unroll]] for (int k = 0; k < position.length(); k++) result[i][j][k] = ROUND_OPERAND(result[i][j][k] * factor[k]);
			coopMatStore(ACCUMULATOR16(result[i][j]), tile, (first_row + i * MATRIX_M) * PITCH + j * MATRIX_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
		}
	}
	subgroup_sync();
	for (uint e = gl_SubgroupInvocationID; e < SUBGROUP_ROWS * ROW_CHUNKS; e += SUBGROUP_SIZE) {
		uint row = first_row + e / ROW_CHUNKS;
		if (query(i0 + row).exists) store_chunk(result_address(i0 + row), e % ROW_CHUNKS, tile[row * PITCH + e % ROW_CHUNKS]);
	}
}

// next_visible_tile returns the start of the first tile from j0 on that is not TILE_NONE, or a value of j1 or more.
uint next_visible_tile(uint i0, uint j0, uint j1) {
	while (j0 < j1 && tile_mask(i0, TILE_QUERIES, j0) == TILE_NONE) j0 += TILE_KEYS;
	return j0;
}

void attend(uint i0, uint j0, uint j1) {
	uint first_row = gl_SubgroupID * SUBGROUP_ROWS, base = first_row * SCRATCH_PITCH, buf = 0;
	if (gl_LocalInvocationIndex < 2) empty_tile[gl_LocalInvocationIndex] = NO_ROW;
	load_queries(i0);
	find_positions(base);
	j0 = next_visible_tile(i0, j0, j1);
	barrier();
	lookup_keys(buf, j0, j1);
	init_rows(base, first_row);
	barrier();
	prefetch(buf);
	while (j0 < j1) {
		uint next_j0 = next_visible_tile(i0, j0 + TILE_KEYS, j1), mask = tile_mask(i0 + first_row, SUBGROUP_ROWS, j0);
		lookup_keys(buf ^ 1, next_j0, j1);
		store_tile(buf, tile_mask(i0, TILE_QUERIES, j0) == TILE_FULL);
		barrier();
		prefetch(buf ^ 1);
		if (mask != TILE_NONE) {
			multiply_keys();
			if (mask == TILE_PARTIAL) mask_scores(i0 + first_row, j0);
			if (empty_tile[buf] == j0) mask_empty_slots(buf);
			compute_weights(base);
			multiply_values();
		}
		barrier();
		buf ^= 1;
		j0 = next_j0;
	}
	write_results(base, first_row, i0);
}
