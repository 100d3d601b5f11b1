// attend on cooperative matrices, for devices whose subgroups have few registers (4 to 16 KiB): queries, keys, values,
// weights and results have 16-bit elements, everything else is float32.
//
// All subgroups of a workgroup compute on all of its queries: scores, weights and the factors of a risen maximum pass
// through shared memory, and a subgroup holds only the matrices of some columns of the results. Only products are
// matrices; masks and softmax are computed row by row, by ROW_THREADS invocations each. Nothing is prefetched.
//
// The running maximum is lazy, as in attention_matrix.glsl: it rises only when a score exceeds it by more than MAX_RISE
// powers of 2. Weights are then at most 2^MAX_RISE, which 16 bits hold as precisely as 1, and the largest weight is at
// least 1. It is a score before SCALE is applied.

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint PADDED_DIM = (DIM_HEAD + 15) / 16 * 16; // DIM_HEAD, padded with zeros
const uint ROW_CHUNKS = PADDED_DIM / 8, PITCH = ROW_CHUNKS + 1; // a query, key or value
const uint SCORE_PITCH = TILE_KEYS / 4 + 1, WEIGHT_PITCH = TILE_KEYS / 8 + 1, FACTOR_PITCH = MATRIX_N / 4 + 1, RESULT_PITCH = PADDED_DIM / 4 + 1;
// Matrices of the tile along its queries, along its keys, and along a row of results.
const uint QUERY_MATRICES = TILE_QUERIES / MATRIX_M, KEY_MATRICES = TILE_KEYS / MATRIX_N, RESULT_MATRICES = PADDED_DIM / MATRIX_N;
// Matrix products that are added for a result, and for a score.
const uint RESULT_STEPS = TILE_KEYS / MATRIX_K, SCORE_STEPS = PADDED_DIM / MATRIX_K;
// Subgroups along the queries, and matrices of results of a subgroup, which have the same columns.
const uint SUBGROUPS_M = SUBGROUPS / RESULT_MATRICES, MATRICES_M = QUERY_MATRICES / SUBGROUPS_M;
// Invocations that compute the weights of a row: a power of two. Each computes 8 weights at a time.
const uint MAX_ROW_THREADS = THREADS / TILE_QUERIES < TILE_KEYS / 8 ? THREADS / TILE_QUERIES : TILE_KEYS / 8;
const uint ROW_THREADS = MAX_ROW_THREADS >= 8 ? 8 : MAX_ROW_THREADS >= 4 ? 4 : MAX_ROW_THREADS >= 2 ? 2 : 1;

const float MAX_RISE = 8; // in powers of 2
const float INITIAL_MAX = -1e30; // running maximum before the first key
const float MAX_RAW_SCORE = 1e29; // bound of the magnitude of scores before SCALE

// tile holds the queries, and the keys and values of a tile; at the end the results.
const uint OPERAND_CHUNKS = (TILE_QUERIES + 2 * TILE_KEYS) * PITCH, RESULT_CHUNKS = TILE_QUERIES * RESULT_PITCH;
shared uvec4 tile[OPERAND_CHUNKS > RESULT_CHUNKS ? OPERAND_CHUNKS : RESULT_CHUNKS];
shared uvec4 scores[TILE_QUERIES * SCORE_PITCH]; // at the end the sums and the weights of the null key
shared uvec4 weights[TILE_QUERIES * WEIGHT_PITCH];
shared uvec4 factors[TILE_QUERIES * FACTOR_PITCH]; // by which a row is scaled: the same in MATRIX_N columns
shared uint key_row[2 * TILE_KEYS]; // of this tile and of the next one
shared vec2 key_factor[ROW_FACTORS ? 2 * TILE_KEYS : 2];
// empty_tile[0] and [1] are j0 of these tiles if some of their slots do not exist. It has 4 elements so that all arrays
// are whole chunks.
shared uint empty_tile[4];

// Running maximum of this invocation's row, its part of the sum, and the weight of the null key.
float row_max, row_sum, null_weight;
ACCUMULATOR result[MATRICES_M];

#include "attention_rows16.glsl"

// load_tile copies the keys and values of a tile to shared memory. Values that some queries of the workgroup do not see
// are made finite.
void load_tile(uint buf, bool full) {
	[[dont_unroll]] for (uint e = gl_LocalInvocationIndex; e < TILE_KEYS * ROW_CHUNKS; e += THREADS) {
		uint j = e / ROW_CHUNKS, row = key_row[buf * TILE_KEYS + j];
		uvec4 k = uvec4(0), v = uvec4(0);
		if (row != NO_ROW) {
			k = load_chunk(key_address(row), e % ROW_CHUNKS);
			v = load_chunk(value_address(row), e % ROW_CHUNKS);
		}
		if (ROW_FACTORS) {
			vec2 f = key_factor[buf * TILE_KEYS + j];
			k = scale16(k, f.x);
			v = scale16(v, f.y);
		}
		if (!full) v = make_finite(v);
		tile[(TILE_QUERIES + j) * PITCH + e % ROW_CHUNKS] = k;
		tile[(TILE_QUERIES + TILE_KEYS + j) * PITCH + e % ROW_CHUNKS] = v;
	}
}

#include "zero_matrix.glsl"

// init_rows initialises maxima, sums and results, with the null key if there is one. Queries are in shared memory.
void init_rows() {
	row_max = INITIAL_MAX;
	row_sum = null_weight = 0;
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) result[i] = zero();
#ifdef ATTENTION_NULL
	uint row = min(gl_LocalInvocationIndex / ROW_THREADS, TILE_QUERIES - 1);
	float s = 0;
	[[dont_unroll]] for (uint i = 0; i < ROW_CHUNKS; i++) {
		uvec4 words = tile[row * PITCH + i];
		[[unroll]] for (uint j = 0; j < 2; j++) {
			vec4 k = load_row(null_key(), 2 * i + j);
			vec2 a = unpack16(OPERAND_DTYPE, words[2 * j]), b = unpack16(OPERAND_DTYPE, words[2 * j + 1]);
			s = fma(b.y, k.w, fma(b.x, k.z, fma(a.y, k.y, fma(a.x, k.x, s))));
		}
	}
	row_max = clamp_score(s, MAX_RAW_SCORE);
	null_weight = 1;
	row_sum = gl_LocalInvocationIndex % ROW_THREADS == 0 ? 1 : 0;
#endif
}

// multiply_keys writes the scores of the tile to shared memory.
void multiply_keys() {
	[[dont_unroll]] for (uint n = gl_SubgroupID; n < QUERY_MATRICES * KEY_MATRICES; n += SUBGROUPS) {
		uint i = n % QUERY_MATRICES, j = n / QUERY_MATRICES;
		ACCUMULATOR sum = zero();
		[[dont_unroll]] for (uint k = 0; k < SCORE_STEPS; k++) {
			OPERAND_A q;
			OPERAND_B keys;
			coopMatLoad(q, tile, i * MATRIX_M * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
			coopMatLoad(keys, tile, (TILE_QUERIES + j * MATRIX_N) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			sum = coopMatMulAdd(q, keys, sum);
		}
		coopMatStore(sum, scores, i * MATRIX_M * SCORE_PITCH + j * MATRIX_N / 4, SCORE_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	}
}

// row_scores returns scores 4 c .. 4 c + 3 of a row. Scores of slots that do not exist, with `empty`, or are not visible,
// with `partial`, are MASKED_SCORE. i is the query of the row.
vec4 row_scores(uint row, uint c, uint i, uint j0, uint buf, bool partial, bool empty) {
	vec4 s = uintBitsToFloat(scores[row * SCORE_PITCH + c]);
	if (OPERAND_DTYPE == DTYPE_BF16) // sums of products of F16 operands are smaller
		[[unroll]] for (uint n = 0; n < 4; n++) s[n] = clamp_score(s[n], MAX_RAW_SCORE);
	if (partial || empty)
		[[unroll]] for (uint n = 0; n < 4; n++)
			if (partial && !visible(i, j0 + 4 * c + n) || empty && key_row[buf * TILE_KEYS + 4 * c + n] == NO_ROW) s[n] = MASKED_SCORE;
	return s;
}

// compute_weights replaces the scores of the tile at j0 by weights, and writes the factors of the rows' results so far.
// The queries start at i0.
void compute_weights(uint i0, uint j0, uint buf, bool full) {
	uint row = gl_LocalInvocationIndex / ROW_THREADS, part = gl_LocalInvocationIndex % ROW_THREADS;
	if (row >= TILE_QUERIES) return;
	bool empty = empty_tile[buf] == j0;
	vec4 column_max = vec4(MASKED_SCORE);
	[[dont_unroll]] for (uint c = 0; c < TILE_KEYS / 4; c++) column_max = max(column_max, row_scores(row, c, i0 + row, j0, buf, !full, empty));
	float top = max(max(column_max.x, column_max.y), max(column_max.z, column_max.w)), factor = 1;
	if (top - row_max > MAX_RISE / SCALE) {
		factor = exp2((row_max - top) * SCALE);
		row_max = top;
		row_sum *= factor;
		null_weight *= factor;
	}
	[[dont_unroll]] for (uint c = part; c < TILE_KEYS / 8; c += ROW_THREADS) {
		vec4 a = exp2((row_scores(row, 2 * c, i0 + row, j0, buf, !full, empty) - row_max) * SCALE);
		vec4 b = exp2((row_scores(row, 2 * c + 1, i0 + row, j0, buf, !full, empty) - row_max) * SCALE);
		row_sum += ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
		weights[row * WEIGHT_PITCH + c] = uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw));
	}
	for (uint c = part; c < MATRIX_N / 4; c += ROW_THREADS) factors[row * FACTOR_PITCH + c] = uvec4(floatBitsToUint(factor));
}

// multiply_values applies the rise of the maxima to the subgroup's results, and adds the products of weights and values.
void multiply_values(uint first_row, uint column) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		ACCUMULATOR factor;
		coopMatLoad(factor, factors, (first_row + i * MATRIX_M) * FACTOR_PITCH, FACTOR_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (int k = 0; k < factor.length(); k++) result[i][k] *= factor[k];
	}
	[[unroll]] for (uint k = 0; k < RESULT_STEPS; k++) {
		OPERAND_B values;
		coopMatLoad(values, tile, (TILE_QUERIES + TILE_KEYS + k * MATRIX_K) * PITCH + column / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
			OPERAND_A w;
			coopMatLoad(w, weights, (first_row + i * MATRIX_M) * WEIGHT_PITCH + k * MATRIX_K / 8, WEIGHT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
			result[i] = coopMatMulAdd(w, values, result[i]);
		}
	}
}

// write_results adds the null value, divides the results by the sums, and writes them.
void write_results(uint first_row, uint column, uint i0) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		coopMatStore(result[i], tile, (first_row + i * MATRIX_M) * RESULT_PITCH + column / 4, RESULT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	uint row = gl_LocalInvocationIndex / ROW_THREADS, part = gl_LocalInvocationIndex % ROW_THREADS;
	if (row < TILE_QUERIES) scores[row * SCORE_PITCH + part] = uvec4(floatBitsToUint(row_sum), floatBitsToUint(null_weight), 0, 0);
	barrier();
	[[dont_unroll]] for (uint e = gl_LocalInvocationIndex; e < TILE_QUERIES * ROW_CHUNKS; e += THREADS) {
		uint row = e / ROW_CHUNKS, c = e % ROW_CHUNKS;
		if (!query(i0 + row).exists) continue;
		float sum = 0;
		[[unroll]] for (uint n = 0; n < ROW_THREADS; n++) sum += uintBitsToFloat(scores[row * SCORE_PITCH + n].x);
		vec4 a = uintBitsToFloat(tile[row * RESULT_PITCH + 2 * c]), b = uintBitsToFloat(tile[row * RESULT_PITCH + 2 * c + 1]);
#ifdef ATTENTION_NULL
		vec4 null = vec4(uintBitsToFloat(scores[row * SCORE_PITCH].y));
		a = fma(null, load_row(null_value(), 2 * c), a);
		b = fma(null, load_row(null_value(), 2 * c + 1), b);
#endif
		float factor = sum < 0.5 ? 0.0 : 1 / sum; // at least 1 with a visible key, else 0
		a *= factor;
		b *= factor;
		store_chunk(result_address(i0 + row), c, uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw)));
	}
}

// next_visible_tile returns the start of the first tile from j0 on that is not TILE_NONE, or a value of j1 or more.
uint next_visible_tile(uint i0, uint j0, uint j1) {
	while (j0 < j1 && tile_mask(i0, TILE_QUERIES, j0) == TILE_NONE) j0 += TILE_KEYS;
	return j0;
}

void attend(uint i0, uint j0, uint j1) {
	uint first_row = gl_SubgroupID % SUBGROUPS_M * (MATRICES_M * MATRIX_M), column = gl_SubgroupID / SUBGROUPS_M * MATRIX_N, buf = 0;
	if (gl_LocalInvocationIndex < 2) empty_tile[gl_LocalInvocationIndex] = NO_ROW;
	load_queries(i0);
	j0 = next_visible_tile(i0, j0, j1);
	barrier();
	lookup_keys(buf, j0, j1);
	init_rows();
	barrier();
	[[dont_unroll]] while (j0 < j1) {
		uint next_j0 = next_visible_tile(i0, j0 + TILE_KEYS, j1);
		bool full = tile_mask(i0, TILE_QUERIES, j0) == TILE_FULL;
		load_tile(buf, full);
		lookup_keys(buf ^ 1, next_j0, j1);
		barrier();
		multiply_keys();
		barrier();
		compute_weights(i0, j0, buf, full);
		barrier();
		multiply_values(first_row, column);
		barrier();
		buf ^= 1;
		j0 = next_j0;
	}
	write_results(first_row, column, i0);
}
