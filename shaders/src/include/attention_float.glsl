// attend of attention.glsl in float32, for GPUs.

// A slice of keys is SLICE_VEC4 vec4 of every key of the tile; a slice of values is SLICE_VALUES whole values.
const uint KEY_SLICES = (ROW_VEC4 + 7) / 8;
const uint SLICE_VEC4 = (ROW_VEC4 + KEY_SLICES - 1) / KEY_SLICES;
const uint VALUE_SLICES = KEY_SLICES == 3 ? 4 : KEY_SLICES;
const uint SLICE_VALUES = TILE_KEYS / VALUE_SLICES;
const uint KEY_LOADS = (TILE_KEYS * SLICE_VEC4 + THREADS - 1) / THREADS; // vec4 that an invocation loads for a slice
const uint VALUE_LOADS = (SLICE_VALUES * ROW_VEC4 + THREADS - 1) / THREADS;
const uint LOADS = KEY_LOADS > VALUE_LOADS ? KEY_LOADS : VALUE_LOADS;
// Distances of rows in shared memory, in vec4: odd, so that 8 rows use all 32 banks.
const uint QUERY_PITCH = KEY_SLICES * SLICE_VEC4 | 1, KEY_PITCH = SLICE_VEC4 | 1, WEIGHT_PITCH = TILE_KEYS / 4 | 1;
// Scores: an invocation computes SCORE_ROWS rows, SCORE_THREADS_Y apart, and 4 columns, SCORE_THREADS_X apart.
const uint SCORE_THREADS_X = TILE_KEYS / 4, SCORE_THREADS_Y = THREADS / SCORE_THREADS_X, SCORE_ROWS = TILE_QUERIES / SCORE_THREADS_Y;
// Results: an invocation computes RESULT_ROWS rows, RESULT_THREADS_Y apart, and RESULT_VEC4 vec4 of columns,
// RESULT_THREADS_X apart.
const uint RESULT_THREADS_X = ROW_VEC4 > 8 ? 16 : ROW_VEC4 > 4 ? 8 : 4;
const uint RESULT_THREADS_Y = THREADS / RESULT_THREADS_X;
const uint RESULT_ROWS = TILE_QUERIES / RESULT_THREADS_Y, RESULT_VEC4 = (ROW_VEC4 + RESULT_THREADS_X - 1) / RESULT_THREADS_X;
// Weights: THREADS_PER_ROW invocations share a row and have THREAD_VEC4 vec4 of it each. A row is summed in 4 parts of
// SUM_VEC4 vec4, whatever TILE_QUERIES is.
const uint THREADS_PER_ROW = THREADS / TILE_QUERIES;
const uint THREAD_VEC4 = TILE_KEYS / 4 / THREADS_PER_ROW;
const uint SUMS_PER_THREAD = 4 / THREADS_PER_ROW, SUM_VEC4 = THREAD_VEC4 / SUMS_PER_THREAD;

shared vec4 q_tile[TILE_QUERIES * QUERY_PITCH];
shared vec4 slice[TILE_KEYS * KEY_PITCH > SLICE_VALUES * ROW_VEC4 ? TILE_KEYS * KEY_PITCH : SLICE_VALUES * ROW_VEC4];
shared vec4 weights[TILE_QUERIES * WEIGHT_PITCH]; // scores, then weights
shared uint key_row[2 * TILE_KEYS]; // of this tile and of the next one
shared vec2 key_factor[ROW_FACTORS ? 2 * TILE_KEYS : 2];
shared float partial_max[THREADS]; // of each invocation's part of a row
shared float rescale[TILE_QUERIES]; // factor of a row's previous results after a rise of its maximum

vec4 prefetched[LOADS];
float scores[SCORE_ROWS * 4];
vec4 result[RESULT_ROWS * RESULT_VEC4];
// Of row gl_LocalInvocationIndex % TILE_QUERIES: the maximum of all its keys, and sums over the keys of this
// invocation.
float row_max, row_sums[SUMS_PER_THREAD];

// thread_position is the invocation's column and row in a grid of the given width. 32 consecutive invocations cover 8 x
// 4 of the grid, so that they read few different vec4.
uvec2 thread_position(uint width) {
	uint t = gl_LocalInvocationIndex, wide = max(width / 8, 1);
	if (width < 8) return uvec2(t % width, t / width);
	return uvec2(t % 8 + t / 32 % wide * 8, t / 8 % 4 + t / (32 * wide) * 4);
}

void load_queries(uint i0) {
	for (uint e = gl_LocalInvocationIndex; e < TILE_QUERIES * (KEY_SLICES * SLICE_VEC4); e += THREADS) {
		uint row = e / (KEY_SLICES * SLICE_VEC4), col = e % (KEY_SLICES * SLICE_VEC4);
		Query q = query(i0 + row);
		vec4 v = vec4(0);
		if (q.exists) v = load_row(q.address, col);
		if (ROW_FACTORS) v *= q.factor;
		q_tile[row * QUERY_PITCH + col] = v;
	}
}

// lookup_keys stores rows and factors of the keys of the tile at j0 in buffer buf, 0 or 1; slots from j1 on do not
// exist.
void lookup_keys(uint buf, uint j0, uint j1) {
	uint t = gl_LocalInvocationIndex;
	if (t >= TILE_KEYS) return;
	Key k = Key(false, NO_ROW, 0, 0);
	if (j0 < j1 && t < j1 - j0) k = key(j0 + t);
	key_row[buf * TILE_KEYS + t] = k.exists ? k.row : NO_ROW;
	// Factors of empty slots are set to 0, because they may be NaN.
	if (ROW_FACTORS) key_factor[buf * TILE_KEYS + t] = k.exists ? vec2(k.key_factor, k.value_factor) : vec2(0);
}

// prefetch_keys loads slice c of the keys into registers.
void prefetch_keys(uint buf, uint c) {
	[[unroll]] for (uint n = 0; n < KEY_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / SLICE_VEC4;
		prefetched[n] = vec4(0);
		if (TILE_KEYS * SLICE_VEC4 % THREADS != 0 && j >= TILE_KEYS) continue;
		uint row = key_row[buf * TILE_KEYS + j];
		if (row != NO_ROW) prefetched[n] = load_row(key_address(row), c * SLICE_VEC4 + e % SLICE_VEC4);
	}
}

// store_keys writes the prefetched slice to shared memory.
void store_keys(uint buf) {
	[[unroll]] for (uint n = 0; n < KEY_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / SLICE_VEC4;
		if (TILE_KEYS * SLICE_VEC4 % THREADS != 0 && j >= TILE_KEYS) continue;
		vec4 v = prefetched[n];
		if (ROW_FACTORS) v *= key_factor[buf * TILE_KEYS + j].x;
		slice[j * KEY_PITCH + e % SLICE_VEC4] = v;
	}
}

// prefetch_values loads slice c of the values into registers.
void prefetch_values(uint buf, uint c) {
	[[unroll]] for (uint n = 0; n < VALUE_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / ROW_VEC4;
		prefetched[n] = vec4(0);
		if (SLICE_VALUES * ROW_VEC4 % THREADS != 0 && j >= SLICE_VALUES) continue;
		uint row = key_row[buf * TILE_KEYS + c * SLICE_VALUES + j];
		if (row != NO_ROW) prefetched[n] = load_row(value_address(row), e % ROW_VEC4);
	}
}

// make_finite replaces infinity and NaN by the largest float. A key that is not visible has weight 0, and 0 * infinity
// would be NaN.
vec4 make_finite(vec4 v) {
	uvec4 bits = floatBitsToUint(v);
	vec4 large = uintBitsToFloat(bits & 0x80000000u | 0x7f7fffffu);
	return mix(v, large, equal(bits & 0x7f800000u, uvec4(0x7f800000u)));
}

// store_values writes the prefetched slice to shared memory. Values that some queries do not see are made finite.
void store_values(uint buf, uint c, bool full) {
	[[unroll]] for (uint n = 0; n < VALUE_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / ROW_VEC4;
		if (SLICE_VALUES * ROW_VEC4 % THREADS != 0 && j >= SLICE_VALUES) continue;
		vec4 v = prefetched[n];
		if (ROW_FACTORS) v *= key_factor[buf * TILE_KEYS + c * SLICE_VALUES + j].y;
		slice[e] = full ? v : make_finite(v);
	}
}

#ifdef LOW_REGISTERS // compilers move the loads of unrolled steps ahead
#define STEPS [[dont_unroll]]
#else
#define STEPS [[unroll]]
#endif

// multiply_keys adds the products of slice c of queries and keys to the scores.
void multiply_keys(uvec2 thread, uint c) {
	STEPS for (uint i = 0; i < SLICE_VEC4; i++) {
		vec4 k[4];
		[[unroll]] for (uint j = 0; j < 4; j++) k[j] = slice[(thread.x + j * SCORE_THREADS_X) * KEY_PITCH + i];
		[[unroll]] for (uint r = 0; r < SCORE_ROWS; r++) {
			vec4 q = q_tile[(thread.y + r * SCORE_THREADS_Y) * QUERY_PITCH + c * SLICE_VEC4 + i];
			[[unroll]] for (uint j = 0; j < 4; j++) {
				float s = scores[r * 4 + j];
				s = fma(q.x, k[j].x, s);
				s = fma(q.y, k[j].y, s);
				s = fma(q.z, k[j].z, s);
				scores[r * 4 + j] = fma(q.w, k[j].w, s);
			}
		}
	}
}

// write_scores writes the scaled and masked scores to shared memory.
void write_scores(uvec2 thread, uint buf, uint i0, uint j0, bool full) {
	[[unroll]] for (uint j = 0; j < 4; j++) {
		uint col = thread.x + j * SCORE_THREADS_X;
		bool exists = key_row[buf * TILE_KEYS + col] != NO_ROW;
		[[unroll]] for (uint r = 0; r < SCORE_ROWS; r++) {
			uint row = thread.y + r * SCORE_THREADS_Y;
			bool key_visible = exists && (full || visible(i0 + row, j0 + col));
			weights[row * WEIGHT_PITCH + col / 4][col % 4] = key_visible ? clamp_score(scores[r * 4 + j] * SCALE, MAX_SCORE) : MASKED_SCORE;
		}
	}
}

// compute_weights replaces the tile's scores by weights, and updates maxima and sums of the rows. It contains one
// barrier.
void compute_weights() {
	uint row = gl_LocalInvocationIndex % TILE_QUERIES, first = row * WEIGHT_PITCH + gl_LocalInvocationIndex / TILE_QUERIES * THREAD_VEC4;
	vec4 s[THREAD_VEC4], tile_max = vec4(MASKED_SCORE);
	[[unroll]] for (uint i = 0; i < THREAD_VEC4; i++) {
		s[i] = weights[first + i];
		tile_max = max(tile_max, s[i]);
	}
	partial_max[gl_LocalInvocationIndex] = max(max(tile_max.x, tile_max.y), max(tile_max.z, tile_max.w));
	barrier();
	float before = row_max;
	[[unroll]] for (uint n = 0; n < THREADS_PER_ROW; n++) row_max = max(row_max, partial_max[n * TILE_QUERIES + row]);
	float factor = before == row_max ? 1.0 : exp2(before - row_max); // exp2(0) is not exactly 1 on some devices
	[[unroll]] for (uint n = 0; n < SUMS_PER_THREAD; n++) {
		vec4 sum = vec4(0);
		[[unroll]] for (uint i = n * SUM_VEC4; i < (n + 1) * SUM_VEC4; i++) {
			vec4 w = mix(exp2(s[i] - row_max), vec4(0), equal(s[i], vec4(MASKED_SCORE)));
			weights[first + i] = w;
			sum += w;
		}
		row_sums[n] = fma(row_sums[n], factor, (sum.x + sum.y) + (sum.z + sum.w));
	}
	if (gl_LocalInvocationIndex < TILE_QUERIES) rescale[row] = factor;
}

// rescale_results applies the rise of the maxima to the results so far.
void rescale_results(uvec2 thread) {
	[[unroll]] for (uint r = 0; r < RESULT_ROWS; r++) {
		float factor = rescale[thread.y + r * RESULT_THREADS_Y];
		[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++) result[r * RESULT_VEC4 + h] *= factor;
	}
}

// multiply_values adds the products of the weights and slice c of the values to the results.
void multiply_values(uvec2 thread, uint c) {
	STEPS for (uint i = 0; i < SLICE_VALUES / 4; i++) {
#ifdef LOW_REGISTERS // the values of one result at a time
		[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++) {
			vec4 v[4];
			[[unroll]] for (uint j = 0; j < 4; j++) v[j] = slice[(4 * i + j) * ROW_VEC4 + min(thread.x + h * RESULT_THREADS_X, ROW_VEC4 - 1)];
			[[unroll]] for (uint r = 0; r < RESULT_ROWS; r++) {
				vec4 w = weights[(thread.y + r * RESULT_THREADS_Y) * WEIGHT_PITCH + c * (SLICE_VALUES / 4) + i];
				[[unroll]] for (uint j = 0; j < 4; j++) result[r * RESULT_VEC4 + h] = fma(vec4(w[j]), v[j], result[r * RESULT_VEC4 + h]);
			}
		}
#else
		vec4 v[4 * RESULT_VEC4];
		[[unroll]] for (uint j = 0; j < 4; j++)
			[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++)
				v[j * RESULT_VEC4 + h] = slice[(4 * i + j) * ROW_VEC4 + min(thread.x + h * RESULT_THREADS_X, ROW_VEC4 - 1)];
		[[unroll]] for (uint r = 0; r < RESULT_ROWS; r++) {
			vec4 w = weights[(thread.y + r * RESULT_THREADS_Y) * WEIGHT_PITCH + c * (SLICE_VALUES / 4) + i];
			[[unroll]] for (uint j = 0; j < 4; j++)
				[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++)
					result[r * RESULT_VEC4 + h] = fma(vec4(w[j]), v[j * RESULT_VEC4 + h], result[r * RESULT_VEC4 + h]);
		}
#endif
	}
}

// init_rows initialises maxima, sums and results, with the null key and value if there are any. Queries are in shared
// memory.
void init_rows(uvec2 thread) {
	row_max = MASKED_SCORE;
	[[unroll]] for (uint n = 0; n < SUMS_PER_THREAD; n++) row_sums[n] = 0;
	[[unroll]] for (uint i = 0; i < RESULT_ROWS * RESULT_VEC4; i++) result[i] = vec4(0);
#ifdef ATTENTION_NULL
	float s = 0;
	for (uint i = 0; i < ROW_VEC4; i++) {
		vec4 q = q_tile[gl_LocalInvocationIndex % TILE_QUERIES * QUERY_PITCH + i], k = load_row(null_key(), i);
		s = fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, s))));
	}
	row_max = clamp_score(s * SCALE, MAX_SCORE);
	row_sums[0] = gl_LocalInvocationIndex < TILE_QUERIES ? 1 : 0;
	[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++) {
		vec4 v = load_row(null_value(), min(thread.x + h * RESULT_THREADS_X, ROW_VEC4 - 1));
		[[unroll]] for (uint r = 0; r < RESULT_ROWS; r++) result[r * RESULT_VEC4 + h] = v;
	}
#endif
}

// write_results divides the results by the sums and writes them.
void write_results(uvec2 thread, uint i0) {
	[[unroll]] for (uint n = 0; n < SUMS_PER_THREAD; n++)
		weights[gl_LocalInvocationIndex % TILE_QUERIES * WEIGHT_PITCH][gl_LocalInvocationIndex / TILE_QUERIES * SUMS_PER_THREAD + n] = row_sums[n];
	barrier();
	[[unroll]] for (uint r = 0; r < RESULT_ROWS; r++) {
		uint row = thread.y + r * RESULT_THREADS_Y;
		vec4 sums = weights[row * WEIGHT_PITCH];
		float sum = (sums.x + sums.y) + (sums.z + sums.w);
		float factor = sum > 0 ? 1 / sum : 0;
		if (!query(i0 + row).exists) continue;
		uvec2 to = result_address(i0 + row);
		[[unroll]] for (uint h = 0; h < RESULT_VEC4; h++)
			if (thread.x + h * RESULT_THREADS_X < ROW_VEC4) store_row(to, thread.x + h * RESULT_THREADS_X, result[r * RESULT_VEC4 + h] * factor);
	}
}

// next_visible_tile returns the start of the first tile from j0 on that is not TILE_NONE, or a value of j1 or more.
uint next_visible_tile(uint i0, uint j0, uint j1) {
	while (j0 < j1 && tile_mask(i0, TILE_QUERIES, j0) == TILE_NONE) j0 += TILE_KEYS;
	return j0;
}

void attend(uint i0, uint j0, uint j1) {
	uvec2 thread = thread_position(SCORE_THREADS_X), result_thread = thread_position(RESULT_THREADS_X);
	uint buf = 0;
	load_queries(i0);
	j0 = next_visible_tile(i0, j0, j1);
	lookup_keys(buf, j0, j1);
	barrier();
	init_rows(result_thread);
	if (j0 < j1) prefetch_keys(buf, 0);
	while (j0 < j1) {
		uint next_j0 = next_visible_tile(i0, j0 + TILE_KEYS, j1);
		bool full = tile_mask(i0, TILE_QUERIES, j0) == TILE_FULL;
		[[unroll]] for (uint i = 0; i < SCORE_ROWS * 4; i++) scores[i] = 0;
		for (uint c = 0; c < KEY_SLICES; c++) {
			store_keys(buf);
			barrier();
			if (c + 1 < KEY_SLICES) prefetch_keys(buf, c + 1);
			else prefetch_values(buf, 0);
			multiply_keys(thread, c);
			if (c + 1 == KEY_SLICES) write_scores(thread, buf, i0, j0, full);
			barrier();
		}
		store_values(buf, 0, full);
		lookup_keys(buf ^ 1, next_j0, j1);
		compute_weights();
		barrier();
		rescale_results(result_thread);
		for (uint c = 0; c < VALUE_SLICES; c++) {
			if (c + 1 < VALUE_SLICES) prefetch_values(buf, c + 1);
			else if (next_j0 < j1) prefetch_keys(buf ^ 1, 0);
			multiply_values(result_thread, c);
			barrier();
			if (c + 1 < VALUE_SLICES) {
				store_values(buf, c + 1, full);
				barrier();
			}
		}
		buf ^= 1;
		j0 = next_j0;
	}
	write_results(result_thread, i0);
}
