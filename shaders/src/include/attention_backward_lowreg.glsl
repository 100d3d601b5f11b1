// backward of attention_backward.glsl on cooperative matrices, for devices whose subgroups have few registers (4 to 16 KiB):
// rows and the weights of pairs have 16-bit elements, everything else is float32. States are as in
// attention_backward_matrix.glsl.
//
// All subgroups of a workgroup compute on all of its own rows, which stay in shared memory: products, weights and results pass
// through shared memory, and a subgroup holds only the matrices of some columns of the sums of one kind. Only products are
// matrices; masks, softmax and weights are computed row by row. Nothing is prefetched.

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint PADDED_DIM = (DIM_HEAD + 15) / 16 * 16; // DIM_HEAD, padded with zeros
const uint ROW_CHUNKS = PADDED_DIM / 8, PITCH = ROW_CHUNKS + 1;
const uint PRODUCT_PITCH = OTHER_ROWS / 4 + 1, WEIGHT_PITCH = OTHER_ROWS / 8 + 1, RESULT_PITCH = PADDED_DIM / 4 + 1;
// Kinds of sums: dq, or dk and dv.
#ifdef QUERIES
const uint KINDS = 1;
#else
const uint KINDS = 2;
#endif
// Matrices along the own rows, of all pairs of a tile, and along a row of sums.
const uint OWN_MATRICES = OWN_ROWS / MATRIX_M, TILE_MATRICES = OWN_MATRICES * (OTHER_ROWS / MATRIX_N), SUM_MATRICES = PADDED_DIM / MATRIX_N;
// Matrix products that are added for a product of rows, and for a sum.
const uint PRODUCT_STEPS = PADDED_DIM / MATRIX_K, SUM_STEPS = OTHER_ROWS / MATRIX_K;
// Subgroups along the own rows, and matrices of sums of a subgroup, which have the same columns.
const uint SUBGROUPS_M = SUBGROUPS / (KINDS * SUM_MATRICES), MATRICES_M = OWN_MATRICES / SUBGROUPS_M;

const float MAX_RAW_PRODUCT = 1e29; // bound of the magnitude of products

shared uvec4 tile[2 * OTHER_ROWS * PITCH];   // other rows of both kinds
shared uvec4 own_tile[2 * OWN_ROWS * PITCH]; // own rows of both kinds; at the end results of a kind, as floats
shared uvec4 products[2 * OWN_ROWS * PRODUCT_PITCH]; // of the first rows of pairs, and of the second ones: q . k and dy . v
shared uvec4 weights[KINDS * OWN_ROWS * WEIGHT_PITCH]; // ds, and with KEYS p

ACCUMULATOR sums[MATRICES_M];

#include "attention_backward_rows.glsl"

// load_own reads the own rows of a kind, 0 or 1, into shared memory.
void load_own(uint kind) {
	for (uint e = gl_LocalInvocationIndex; e < OWN_ROWS * ROW_CHUNKS; e += THREADS) {
		uint row = e / ROW_CHUNKS;
		uvec4 both = own_addresses[row], v = uvec4(0);
		uvec2 address = kind == 0 ? both.xy : both.zw;
		if (present(address)) v = load_chunk(address, e % ROW_CHUNKS);
		if (ROW_FACTORS) v = scale16(v, own_factors[row][kind]);
		own_tile[(kind * OWN_ROWS + row) * PITCH + e % ROW_CHUNKS] = finite_own(row, v);
	}
}

// load_tile copies the other rows of the tile that starts with row `first` to shared memory.
// both: rows of both kinds, else those of the first kind.
void load_tile(uint buf, uint first, bool both) {
	[[dont_unroll]] for (uint e = gl_LocalInvocationIndex; e < (both ? 2 : 1) * OTHER_ROWS * ROW_CHUNKS; e += THREADS) {
		uint n = e / ROW_CHUNKS, row = buf * OTHER_ROWS + n % OTHER_ROWS, kind = n / OTHER_ROWS;
		uvec4 addresses = other_addresses[row], v = uvec4(0);
		if (present(addresses.xy)) v = load_chunk(kind == 0 ? addresses.xy : addresses.zw, e % ROW_CHUNKS);
		if (ROW_FACTORS) v = scale16(v, other_factors[row][kind]);
		uvec4 found = infinite(v);
		if (any_bits(found)) {
			v = make_finite(v, found);
			other_infinite[row] = 1;
		}
		tile[n * PITCH + e % ROW_CHUNKS] = v;
	}
}

#include "zero_matrix.glsl"

// multiply writes the products of the own rows and the tile to shared memory: of the first rows, and with `both` of the
// second ones.
void multiply(bool both) {
	[[dont_unroll]] for (uint n = gl_SubgroupID; n < (both ? 2 : 1) * TILE_MATRICES; n += SUBGROUPS) {
		uint kind = n / TILE_MATRICES, own = kind * OWN_ROWS + n % OWN_MATRICES * MATRIX_M, other = n % TILE_MATRICES / OWN_MATRICES * MATRIX_N;
		ACCUMULATOR sum = zero();
		[[dont_unroll]] for (uint k = 0; k < PRODUCT_STEPS; k++) {
			OPERAND_A a;
			OPERAND_B b;
			coopMatLoad(a, own_tile, own * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
			coopMatLoad(b, tile, (kind * OTHER_ROWS + other) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			sum = coopMatMulAdd(a, b, sum);
		}
		coopMatStore(sum, products, own * PRODUCT_PITCH + other / 4, PRODUCT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	}
}

// row_products returns products 4 c .. 4 c + 3 of row `row` of products.
vec4 row_products(uint row, uint c) {
	vec4 s = uintBitsToFloat(products[row * PRODUCT_PITCH + c]);
	if (OPERAND_DTYPE == DTYPE_BF16) // sums of products of F16 operands are smaller
		[[unroll]] for (uint n = 0; n < 4; n++) s[n] = clamp_score(s[n], MAX_RAW_PRODUCT);
	return s;
}

// hidden returns whether other row n of the tile that starts with row `first` does not exist, or the query of the pair does
// not see the key. The workgroup's own rows start at own.
bool hidden(uint own, uint row, uint first, uint n, uint buf, bool partial) {
	if (!present(other_addresses[buf * OTHER_ROWS + n].xy)) return true;
#ifdef QUERIES
	return partial && !visible(own + row, first + n);
#else
	return partial && !visible(first + n, own + row);
#endif
}

bool spoiled(uint row, uint n, uint buf) { return (own_infinite[row] | other_infinite[buf * OTHER_ROWS + n]) != 0; }

#ifdef QUERIES

const float INITIAL_MAX = -1e30; // maximum before the first key
// Invocations that compute the softmax of a query: a power of two.
const uint MAX_ROW_THREADS = THREADS / OWN_ROWS < OTHER_ROWS / 4 ? THREADS / OWN_ROWS : OTHER_ROWS / 4;
const uint ROW_THREADS = MAX_ROW_THREADS >= 8 ? 8 : MAX_ROW_THREADS >= 4 ? 4 : MAX_ROW_THREADS >= 2 ? 2 : 1;

// Maximum of the products of this invocation's query, and its part of the sum of weights.
float row_max, row_sum;

// softmax_products are row_products of pairs that are not hidden; a product of an infinite row is NaN.
vec4 softmax_products(uint own, uint row, uint first, uint c, uint buf, bool partial) {
	vec4 s = row_products(row, c);
	[[unroll]] for (uint n = 0; n < 4; n++) {
		if (spoiled(row, 4 * c + n, buf)) s[n] = uintBitsToFloat(0x7fc00000u);
		if (hidden(own, row, first, 4 * c + n, buf, partial)) s[n] = MASKED_SCORE;
	}
	return s;
}

// add_softmax adds the products of a tile to the softmax of the queries.
void add_softmax(uint own, uint first, uint buf, bool partial) {
	uint row = gl_LocalInvocationIndex / ROW_THREADS, part = gl_LocalInvocationIndex % ROW_THREADS;
	if (row >= OWN_ROWS) return;
	vec4 tops = vec4(row_max);
	[[dont_unroll]] for (uint c = 0; c < OTHER_ROWS / 4; c++) tops = max(tops, softmax_products(own, row, first, c, buf, partial));
	float top = max(max(tops.x, tops.y), max(tops.z, tops.w));
	row_sum *= row_max == top ? 1.0 : exp2((row_max - top) * SCALE); // exp2(0) is not exactly 1 on some devices
	row_max = top;
	[[dont_unroll]] for (uint c = part; c < OTHER_ROWS / 4; c += ROW_THREADS) {
		vec4 w = exp2((softmax_products(own, row, first, c, buf, partial) - row_max) * SCALE);
		row_sum += (w.x + w.y) + (w.z + w.w);
	}
}

// finish_states adds up the softmax of the queries, and writes it to states and to shared memory.
void finish_states(uint own, uint own_end) {
	uint row = gl_LocalInvocationIndex / ROW_THREADS, part = gl_LocalInvocationIndex % ROW_THREADS;
	if (row < OWN_ROWS) products[row * PRODUCT_PITCH + part] = uvec4(floatBitsToUint(row_max), floatBitsToUint(row_sum), 0, 0);
	barrier();
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
		float sum = 0;
		[[dont_unroll]] for (uint i = 0; i < ROW_THREADS; i++) sum += uintBitsToFloat(products[n * PRODUCT_PITCH + i].y);
		float top = uintBitsToFloat(products[n * PRODUCT_PITCH].x), delta = query_states[n].z, factor = ROW_FACTORS ? own_factors[n].x : 1;
		bool none = sum < 0.5 || !present(own_addresses[n].xy); // the sum is at least 1 with a visible key, else 0
		if (own + n < own_end) F32x4(at(states(), state_row(own + n), 16)).v[0] = none ? vec4(0) : vec4(top, -log2(sum), delta, factor);
		query_states[n] = none ? vec4(0) : vec4(top, 0, delta, 1 / sum);
	}
	barrier();
}

// compute_deltas writes delta of the own queries, the products of their rows of dy and of their results.
void compute_deltas() {
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
		if (!present(own_addresses[n].xy)) continue;
		float delta = 0;
		[[dont_unroll]] for (uint c = 0; c < ROW_CHUNKS; c++) delta += chunk_product(own_tile[(OWN_ROWS + n) * PITCH + c], load_chunk(own_results[n], c));
		query_states[n].z = finite_delta(delta);
	}
}

#endif

// compute_weights replaces the products of a tile by ds, and with KEYS p: with QUERIES without the factor 1 / sum of the
// weights.
void compute_weights(uint own, uint first, uint buf, bool partial) {
	[[dont_unroll]] for (uint e = gl_LocalInvocationIndex; e < OWN_ROWS * (OTHER_ROWS / 4); e += THREADS) {
		uint row = e / (OTHER_ROWS / 4), c = e % (OTHER_ROWS / 4);
		vec4 p = row_products(row, c), ds = row_products(OWN_ROWS + row, c);
		[[unroll]] for (uint n = 0; n < 4; n++) {
#ifdef QUERIES
			vec4 state = query_states[row];
			float power = (p[n] - state.x) * SCALE;
#else
			vec4 state = query_states[buf * OTHER_ROWS + 4 * c + n];
			float power = fma(p[n] - state.x, SCALE, state.y);
#endif
			p[n] = exp2(power > 0 ? 0 : power); // not above 0 if both kernels compute the same products
			ds[n] = p[n] * (ds[n] - state.z);
			// Last: compilers may replace NaN by a number on the way from a product to a weight.
			if (spoiled(row, 4 * c + n, buf)) p[n] = ds[n] = uintBitsToFloat(0x7fc00000u);
			if (hidden(own, row, first, 4 * c + n, buf, partial)) p[n] = ds[n] = 0;
		}
		uint chunk = row * WEIGHT_PITCH + c / 2, word = c % 2 * 2;
		weights[chunk][word] = pack16(OPERAND_DTYPE, ds.xy);
		weights[chunk][word + 1] = pack16(OPERAND_DTYPE, ds.zw);
#ifdef KEYS
		weights[OWN_ROWS * WEIGHT_PITCH + chunk][word] = pack16(OPERAND_DTYPE, p.xy);
		weights[OWN_ROWS * WEIGHT_PITCH + chunk][word + 1] = pack16(OPERAND_DTYPE, p.zw);
#endif
	}
}

// add_rows adds the other rows of a tile, times their weights, to the sums of the subgroup.
void add_rows(uint kind, uint first_row, uint column) {
	[[unroll]] for (uint k = 0; k < SUM_STEPS; k++) {
		OPERAND_B rows;
		coopMatLoad(rows, tile, (kind * OTHER_ROWS + k * MATRIX_K) * PITCH + column / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
			OPERAND_A w;
			coopMatLoad(w, weights, (kind * OWN_ROWS + first_row + i * MATRIX_M) * WEIGHT_PITCH + k * MATRIX_K / 8, WEIGHT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
			sums[i] = coopMatMulAdd(w, rows, sums[i]);
		}
	}
}

#include "attention_backward_tiles.glsl"

// run_tiles adds the other rows to the softmax of the queries, or to the sums.
void run_tiles(bool softmax, uint own, uint first, uint end, uint kind, uint first_row, uint column) {
	uint buf = 0;
	first = next_visible_tile(own, first, end);
	barrier();
	lookup_other(buf, first, end);
	barrier();
	[[dont_unroll]] while (first < end) {
		uint next = next_visible_tile(own, first + OTHER_ROWS, end);
		bool partial = mask_of(own, OWN_ROWS, first) == TILE_PARTIAL;
		load_tile(buf, first, !softmax);
		lookup_other(buf ^ 1, next, end);
		barrier();
		multiply(!softmax);
		barrier();
#ifdef QUERIES
		if (softmax) add_softmax(own, first, buf, partial);
#endif
		if (!softmax) compute_weights(own, first, buf, partial);
		barrier();
		if (!softmax) {
			add_rows(kind, first_row, column);
			barrier();
		}
		buf ^= 1;
		first = next;
	}
}

// result_row returns floats 8 c .. 8 c + 7 of a row of results.
void result_row(uint row, uint c, float scale, out vec4 a, out vec4 b) {
	a = uintBitsToFloat(own_tile[row * RESULT_PITCH + 2 * c]) * scale;
	b = uintBitsToFloat(own_tile[row * RESULT_PITCH + 2 * c + 1]) * scale;
}

// result_scale is the factor of the sums of a row.
float result_scale(uint row, uint kind) {
#ifdef QUERIES
	return SCALE * LN2 * query_states[row].w;
#else
	return kind == 0 ? SCALE * LN2 : 1.0;
#endif
}

#ifdef ATTENTION_SCORES
// factor_gradient is the product of an own row of a kind, without its factor, and of its gradient.
float factor_gradient(uint row, uint kind) {
	float sum = 0, scale = result_scale(row, kind);
	uvec2 address = kind == 0 ? own_addresses[row].xy : own_addresses[row].zw;
	[[dont_unroll]] for (uint c = 0; c < ROW_CHUNKS; c++) {
		uvec4 v = load_chunk(address, c);
		vec4 a, b;
		result_row(row, c, scale, a, b);
		[[unroll]] for (uint j = 0; j < 4; j++) {
			vec2 x = unpack16(OPERAND_DTYPE, v[j]), y = j < 2 ? vec2(a[2 * j % 4], a[2 * j % 4 + 1]) : vec2(b[2 * j % 4], b[2 * j % 4 + 1]);
			sum = fma(x.y, y.y, fma(x.x, y.x, sum));
		}
	}
	return sum;
}
#endif

void write_results(uint own, uint own_end, uint subgroup_kind, uint first_row, uint column) {
#ifdef ATTENTION_SCORES
	float gradient = 0; // of the factor of own row gl_LocalInvocationIndex
#endif
	[[dont_unroll]] for (uint kind = 0; kind < KINDS; kind++) {
		if (subgroup_kind == kind)
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
				coopMatStore(sums[i], own_tile, (first_row + i * MATRIX_M) * RESULT_PITCH + column / 4, RESULT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		barrier();
		[[dont_unroll]] for (uint e = gl_LocalInvocationIndex; e < OWN_ROWS * ROW_CHUNKS; e += THREADS) {
			uint row = e / ROW_CHUNKS, c = e % ROW_CHUNKS;
			if (own + row >= own_end) continue;
			uvec4 v = uvec4(0);
			if (present(own_addresses[row].xy)) {
				vec4 a, b;
				result_row(row, c, result_scale(row, kind) * (ROW_FACTORS ? own_factors[row][kind] : 1), a, b);
				v = uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw));
			}
#ifdef QUERIES
			store_chunk(dq_address(own + row), c, v);
#else
			store_chunk(kind == 0 ? dk_address(own + row) : dv_address(own + row), c, v);
#endif
		}
#ifdef ATTENTION_SCORES
		uint row = gl_LocalInvocationIndex;
		if (ATTENTION_SCORES && factor_has_gradient(kind) && row < OWN_ROWS && present(own_addresses[row].xy)) gradient += factor_gradient(row, kind);
#endif
		barrier();
	}
#ifdef ATTENTION_SCORES
	if (ATTENTION_SCORES && gl_LocalInvocationIndex < OWN_ROWS && own + gl_LocalInvocationIndex < own_end) write_score(own + gl_LocalInvocationIndex, gradient);
#endif
}

void backward(uint own, uint own_end, uint other, uint other_end) {
	uint sum_column = gl_SubgroupID / SUBGROUPS_M, kind = sum_column / SUM_MATRICES;
	uint column = sum_column % SUM_MATRICES * MATRIX_N, first_row = gl_SubgroupID % SUBGROUPS_M * (MATRICES_M * MATRIX_M);
	if (gl_LocalInvocationIndex < 2) {
		own_state[gl_LocalInvocationIndex] = 0;
		some_exist[gl_LocalInvocationIndex] = some_missing[gl_LocalInvocationIndex] = some_infinite[gl_LocalInvocationIndex] = NO_TILE;
	}
	barrier();
	lookup_own(own, own_end);
	barrier();
	if (own_state[0] == 0) other_end = other;
	load_own(0);
	load_own(1);
	barrier();
#ifdef QUERIES
	compute_deltas();
	row_max = INITIAL_MAX;
	row_sum = 0;
	run_tiles(true, own, other, other_end, kind, first_row, column);
	finish_states(own, own_end);
#endif
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) sums[i] = zero();
	run_tiles(false, own, other, other_end, kind, first_row, column);
	write_results(own, own_end, kind, first_row, column);
}
