// Backward of attention with a softmax over the keys that a query sees, in float32. For a query q with factor f, and its
// keys k_j and values v_j with factors g_j and h_j:
//
//	s_j = q . k_j / sqrt(DIM_HEAD) * f * g_j    p = softmax(s)    y = sum_j p_j * h_j * v_j
//	e_j = dy . v_j    delta = sum_j p_j * h_j * e_j    ds_j = p_j * (h_j * e_j - delta)
//	dq  = sum_j ds_j * f * g_j / sqrt(DIM_HEAD) * k_j
//	dk_j = sum of ds_j * f * g_j / sqrt(DIM_HEAD) * q    dv_j = sum of p_j * h_j * dy    over the queries that see key j
//
// As delta = dy . y, it needs no values. It is two kernels. That of QUERIES computes dq of OWN_ROWS queries of a head. It reads
// the keys twice: the first pass computes the softmax of each query, which it also writes to states, with delta; the second
// one adds up dq. The kernel of KEYS computes dk and dv of OWN_ROWS keys of a head from the queries that see them and from
// their states. No sum needs atomics. Of the forward pass, its arguments and y are read.
//
// Both kernels have the same loop. A workgroup has OWN_ROWS own rows and reads the other ones in tiles of OTHER_ROWS.
// Slices of the rows pass through shared memory, where invocations multiply all pairs of an own row and another one. The
// weights of pairs go to shared memory too; with them the other rows are added to sums in registers. Both kernels compute
// the same bits of a logit. The order of summation depends only on DIM_HEAD and on the numbers of the rows.
//
// With MATRIX defined, backward is that of attention_backward_matrix.glsl: cooperative matrices, for 16-bit rows. States
// differ there.
//
// Include address.glsl first, and before it enable GL_EXT_buffer_reference, GL_EXT_buffer_reference_uvec2 and
// GL_EXT_control_flow_attributes; with MATRIX include matrix_operands.glsl before everything else. Define QUERIES or KEYS.
// This file uses the constants 0 to 8 and those from 20 on, and declares local_size. The including file defines:
//
//	Query query(uint i)             query i: whether it exists, addresses of its rows of q and dy, its factor. KEYS takes
//	                                existence and factor from states
//	Key key(uint j)                 key j: whether it exists, addresses of its rows of k and v, their factors
//	bool visible(uint i, uint j)    whether query i sees key j, if both exist
//	uint state_row(uint i)          number of query i in states
//	uvec2 states()                  address of states: a vec4 for each query and head
//	uvec2 y_address(uint i)         with QUERIES: the row of y of query i
//	uvec2 dq_address(uint i)        with QUERIES: the result of query i
//	uvec2 dk_address(uint j)        with KEYS: the results of key j
//	uvec2 dv_address(uint j)
//	uint tile_mask(uint i0, uint n, uint j0, uint m)
//	                                with MATRIX: which of keys j0 .. j0 + m - 1 are visible to queries i0 .. i0 + n - 1:
//	                                TILE_NONE, TILE_PARTIAL, or TILE_FULL (all that exist). The same in all invocations of
//	                                a subgroup
//
// A row has DIM_HEAD elements, float32 or 16-bit, in ROW_BYTES bytes. Define ATTENTION_NULL before the include if some keys,
// values and their results are float32 with MATRIX too: their addresses are odd, one more than that of the row.
//
// Rows that do not exist are not read and have gradient 0. Factors are used only with ROW_FACTORS. For the gradients of
// factors, define ATTENTION_SCORES before the include: a constant that is true if they are wanted, of queries with QUERIES
// and of keys with KEYS. Then the including file also defines:
//
//	float score_gradient(Pair p, float weight, float dlogit)    what a pair with p_j and ds_j adds to the gradient
//	                                                            not with MATRIX
//	bool factor_has_gradient(uint kind)                         with MATRIX: whether the factor of the first or the second
//	                                                            row, kind 0 or 1, has a gradient
//	void write_score(uint n, float gradient)                    writes the gradient of row n
//
//	backward(own, own_end, other, other_end)    computes rows own .. min(own + OWN_ROWS, own_end) - 1 of one kind from
//	                                            rows other .. other_end - 1 of the other kind. All invocations call it,
//	                                            once, with the same arguments
#ifndef COLT5_ATTENTION_BACKWARD
#define COLT5_ATTENTION_BACKWARD

layout(constant_id = 0) const uint DIM_HEAD = 1; // elements of a head, 1 to 128
layout(constant_id = 3) const float SCALE = 1; // log2(e) / sqrt(DIM_HEAD): weights are computed with exp2
layout(constant_id = 4) const bool ROW_FACTORS = false; // queries, keys and values are multiplied by factors
layout(constant_id = 8) const uint HEADS = 1; // heads of a tensor

#ifdef MATRIX
#include "pack16.glsl"
const uint ROW_BYTES = 2 * DIM_HEAD;
layout(constant_id = 1) const uint OWN_ROWS = 64; // rows that a workgroup computes
layout(constant_id = 2) const uint OTHER_ROWS = 32; // rows of a tile
layout(constant_id = 20) const uint MATRIX_M = 16; // shape of a matrix product: M x K times K x N
layout(constant_id = 21) const uint MATRIX_N = 16;
layout(constant_id = 22) const uint MATRIX_K = 16;
layout(constant_id = 23) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 24) const uint SUBGROUPS = 4; // subgroups of a workgroup
layout(constant_id = 25) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS * SUBGROUP_SIZE
layout(constant_id = 26) const bool WEIGHTS_IN_REGISTERS = true; // weights need no shared memory if the device permits
layout(constant_id = 27) const bool LOCKSTEP = false; // the invocations of a subgroup run in lockstep and need no barrier
layout(constant_id = 28) const bool OWN_IN_REGISTERS = true; // the own rows are operands in registers
layout(local_size_x_id = 25) in;
#else
const uint ROW_BYTES = 4 * DIM_HEAD;
layout(constant_id = 1) const uint OWN_ROWS = 16; // rows that a workgroup computes
layout(constant_id = 2) const uint OTHER_ROWS = 32; // rows of a tile
layout(constant_id = 25) const uint THREADS = 128; // invocations of a workgroup
layout(local_size_x_id = 25) in;
#endif

#include "attention_rows.glsl"

const float LN2 = 0.69314718;

struct Query {
	bool exists;
	uvec2 q, dy;
	float factor;
};
struct Key {
	bool exists;
	uvec2 k, v;
	float key_factor, value_factor;
};

Query query(uint i);
Key key(uint j);
bool visible(uint i, uint j);
uint state_row(uint i);
uvec2 states();
#ifdef QUERIES
uvec2 y_address(uint i);
uvec2 dq_address(uint i);
#else
uvec2 dk_address(uint j);
uvec2 dv_address(uint j);
#endif
#ifdef ATTENTION_SCORES
void write_score(uint n, float gradient);
#endif

#ifdef MATRIX
const uint TILE_NONE = 0, TILE_PARTIAL = 1, TILE_FULL = 2, NO_TILE = 0xffffffff;

uint tile_mask(uint i0, uint n, uint j0, uint m);
#ifdef ATTENTION_SCORES
bool factor_has_gradient(uint kind);
#endif

#include "attention_backward_matrix.glsl"
#else
const uint SLICE = 4; // vec4 of a slice of a row
const uint SLICES = (ROW_VEC4 + SLICE - 1) / SLICE;
const uint PITCH = SLICE + 1;

// Invocation (x, y) of THREADS_X x THREADS_Y multiplies own rows y, y + THREADS_Y, .. with rows x, x + THREADS_X, .. of the
// others.
const uint PAIRS = OWN_ROWS * OTHER_ROWS / THREADS, OTHER_PAIRS = PAIRS >= 16 ? 4 : 2, OWN_PAIRS = PAIRS / OTHER_PAIRS;
const uint THREADS_X = OTHER_ROWS / OTHER_PAIRS, THREADS_Y = OWN_ROWS / OWN_PAIRS;

// For the sums over other rows, an invocation has one vec4 of SUM_ROWS own rows.
const uint COLUMNS = ROW_VEC4 <= 8 ? 8 : ROW_VEC4 <= 16 ? 16 : 32;
const uint SUM_ROWS = OWN_ROWS * COLUMNS / THREADS;

const uint ROWS = OWN_ROWS + OTHER_ROWS;
shared uvec4 row_addresses[ROWS]; // of q and dy, or of k and v; 0 if the row does not exist. Own rows, then other ones
shared vec2 row_factors[ROWS];    // of a query: its factor; of a key: those of key and value
// A slice of the first row of each pair of rows, then of the second ones; then the weights of the pairs: those of an other
// row are WEIGHT_PITCH vec4, for the products ds * f * g, and after those of all rows for the values p * h.
const uint WEIGHT_PITCH = OWN_ROWS / 4 + 1, VALUE_WEIGHTS = OTHER_ROWS * WEIGHT_PITCH;
#ifdef QUERIES
const uint WEIGHTS = VALUE_WEIGHTS;
#else
const uint WEIGHTS = 2 * VALUE_WEIGHTS;
#endif
const uint SLICE_ROWS = 2 * ROWS * PITCH, PARTS = OWN_ROWS * THREADS_X; // parts: of the softmax and of gradients of scores
const uint SLICE_OR_WEIGHTS = SLICE_ROWS > WEIGHTS ? SLICE_ROWS : WEIGHTS;
shared vec4 slices[SLICE_OR_WEIGHTS > PARTS ? SLICE_OR_WEIGHTS : PARTS];
shared vec4 query_states[OTHER_ROWS > OWN_ROWS ? OTHER_ROWS : OWN_ROWS]; // maximum of the logits, 1 / sum of the weights, delta, f; 0 without keys
shared uint occupied[3]; // whether any row exists: of the tiles with even and odd number, and of the own rows

float products[PAIRS], along[PAIRS]; // q . k and dy . v of pairs of rows

// lookup_query and lookup_key write what row `row` of shared memory is. They return whether the row exists.
bool lookup_query(uint row, uint i, bool inside) {
	Query q = Query(false, uvec2(0), uvec2(0), 0);
#ifdef QUERIES
	if (inside) q = query(i);
#else
	vec4 state = vec4(0);
	if (inside) state = F32x4(at(states(), state_row(i), 16)).v[0];
	query_states[row - OWN_ROWS] = state;
	if (state.w != 0) q = query(i);
	q.factor = state.w;
#endif
	row_addresses[row] = q.exists ? uvec4(q.q, q.dy) : uvec4(0);
	row_factors[row] = vec2(q.factor, 0);
	return q.exists;
}

bool lookup_key(uint row, uint j, bool inside) {
	Key k = Key(false, uvec2(0), uvec2(0), 0, 0);
	if (inside) k = key(j);
	row_addresses[row] = k.exists ? uvec4(k.k, k.v) : uvec4(0);
	row_factors[row] = vec2(k.key_factor, k.value_factor);
	return k.exists;
}

// lookup_own looks the own rows up, and returns whether any exists.
bool lookup_own(uint own, uint own_end) {
	if (gl_LocalInvocationIndex < 3) occupied[gl_LocalInvocationIndex] = 0;
	barrier();
	for (uint n = gl_LocalInvocationIndex; n < OWN_ROWS; n += THREADS) {
#ifdef QUERIES
		bool exists = lookup_query(n, own + n, own + n < own_end);
#else
		bool exists = lookup_key(n, own + n, own + n < own_end);
#endif
		if (exists) atomicOr(occupied[2], 1);
	}
	barrier();
	return occupied[2] != 0;
}

// lookup_other looks up the other rows from first on, and returns whether any exists. number counts the tiles.
bool lookup_other(uint number, uint first, uint end) {
	barrier(); // the tile before is no longer used
	if (gl_LocalInvocationIndex == 0) occupied[(number + 1) % 2] = 0;
	for (uint n = gl_LocalInvocationIndex; n < OTHER_ROWS; n += THREADS) {
		bool inside = first + n < end;
#ifdef QUERIES
		bool exists = lookup_key(OWN_ROWS + n, first + n, inside);
#else
		bool exists = lookup_query(OWN_ROWS + n, first + n, inside);
#endif
		if (exists) atomicOr(occupied[number % 2], 1);
	}
	barrier();
	return occupied[number % 2] != 0;
}

// thread_position is (x, y) of an invocation. 32 consecutive invocations cover 8 x 4 or 16 x 2, so that they read few
// different vec4.
uvec2 thread_position() {
	uint t = gl_LocalInvocationIndex;
	if (PAIRS < 16) return uvec2(t % THREADS_X, t / THREADS_X);
	return uvec2(t % 8 + t / 32 % (THREADS_X / 8) * 8, t / 8 % 4 + t / (4 * THREADS_X) * 4);
}

void load_slice(uint slice, bool both) {
	[[unroll]] for (uint i = 0; i < 2 * ROWS * SLICE / THREADS; i++) { // divisible
		uint n = gl_LocalInvocationIndex + i * THREADS, row = n / SLICE, column = n % SLICE;
		if (row >= ROWS && !both) continue;
		uvec4 pair = row_addresses[row % ROWS];
		uvec2 address = row < ROWS ? pair.xy : pair.zw;
		slices[row * PITCH + column] = present(address) ? load_row(address, slice * SLICE + column) : vec4(0);
	}
}

float add_dot(float sum, vec4 a, vec4 b) { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); }

// multiply computes products, and with `both` along, of the pairs of this invocation.
void multiply(bool both) {
	uvec2 thread = thread_position();
	[[unroll]] for (uint n = 0; n < PAIRS; n++) products[n] = along[n] = 0;
	for (uint slice = 0; slice < SLICES; slice++) {
		if (slice > 0) barrier();
		load_slice(slice, both);
		barrier();
		[[unroll]] for (uint part = 0; part < 2; part++) {
			if (part == 1 && !both) continue;
			[[unroll]] for (uint column = 0; column < SLICE; column++) {
				vec4 other[OTHER_PAIRS];
				[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++)
					other[b] = slices[(part * ROWS + OWN_ROWS + thread.x + b * THREADS_X) * PITCH + column];
				[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) {
					vec4 own = slices[(part * ROWS + thread.y + a * THREADS_Y) * PITCH + column];
					[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++) {
						uint n = a * OTHER_PAIRS + b;
						if (part == 0) products[n] = add_dot(products[n], own, other[b]);
						else along[n] = add_dot(along[n], own, other[b]);
					}
				}
			}
		}
	}
}

// Pair is a query and a key.
struct Pair {
	uint own, other; // rows of their tiles
	uint state; // index in query_states
	bool visible;
	float product, along; // s without factors, in powers of 2; e
	float query_factor, key_factor, value_factor;
	float logit; // s, in powers of 2
	float value; // h * e
};

// pair returns pair n of this invocation, whose tiles start with rows own and other.
Pair pair(uint n, uint own, uint other) {
	uvec2 thread = thread_position();
	Pair p;
	p.own = thread.y + n / OTHER_PAIRS * THREADS_Y;
	p.other = thread.x + n % OTHER_PAIRS * THREADS_X;
	p.visible = present(row_addresses[p.own].xy) && present(row_addresses[OWN_ROWS + p.other].xy);
#ifdef QUERIES
	uint query_row = p.own, key_row = OWN_ROWS + p.other;
	p.state = p.own;
	p.visible = p.visible && visible(own + p.own, other + p.other);
#else
	uint query_row = OWN_ROWS + p.other, key_row = p.own;
	p.state = p.other;
	p.visible = p.visible && visible(other + p.other, own + p.own);
#endif
	p.query_factor = ROW_FACTORS ? row_factors[query_row].x : 1;
	p.key_factor = ROW_FACTORS ? row_factors[key_row].x : 1;
	p.value_factor = ROW_FACTORS ? row_factors[key_row].y : 1;
	p.product = clamp_score(products[n] * SCALE, MAX_SCORE);
	p.logit = ROW_FACTORS ? clamp_score(p.product * (p.query_factor * p.key_factor), MAX_SCORE) : p.product;
	p.along = along[n];
	p.value = p.along * p.value_factor;
	return p;
}

#ifdef QUERIES

// Weights is a running softmax: the maximum of logits, and the sum of weights e^(logit - maximum).
struct Weights {
	float max_logit, sum;
};

Weights add(Weights a, Weights b) {
	float max_logit = max(a.max_logit, b.max_logit), keep_a = exp2(a.max_logit - max_logit), keep_b = exp2(b.max_logit - max_logit);
	return Weights(max_logit, fma(a.sum, keep_a, b.sum * keep_b));
}

// delta_of is delta of own query i, whose rows of q and dy are given.
float delta_of(uint i, uvec4 addresses) {
	if (!present(addresses.xy)) return 0;
	float sum = 0;
	uvec2 y = y_address(i);
	for (uint column = 0; column < ROW_VEC4; column++) sum = add_dot(sum, load_row(addresses.zw, column), load_row(y, column));
	return sum;
}

// compute_states computes the softmax of the own queries, and writes it to states.
void compute_states(uint own, uint own_end, uint other, uint other_end) {
	Weights weights[OWN_PAIRS];
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) weights[a] = Weights(MASKED_SCORE, 0);
	uint number = 0;
	for (uint first = other; first < other_end; first += OTHER_ROWS) {
		if (!lookup_other(number++, first, other_end)) continue;
		multiply(false);
		[[unroll]] for (uint n = 0; n < PAIRS; n++) {
			Pair p = pair(n, own, first);
			if (p.visible) weights[n / OTHER_PAIRS] = add(weights[n / OTHER_PAIRS], Weights(p.logit, 1));
		}
	}
	barrier();
	uvec2 thread = thread_position();
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++)
		slices[(thread.y + a * THREADS_Y) * THREADS_X + thread.x] = vec4(weights[a].max_logit, weights[a].sum, 0, 0);
	barrier();
	for (uint row = gl_LocalInvocationIndex; row < OWN_ROWS; row += THREADS) {
		Weights sum = Weights(MASKED_SCORE, 0);
		for (uint x = 0; x < THREADS_X; x++) {
			vec4 part = slices[row * THREADS_X + x];
			sum = add(sum, Weights(part.x, part.y));
		}
		// Without visible keys all is 0. A NaN stays one.
		vec4 state = sum.sum == 0 ? vec4(0) : vec4(sum.max_logit, 1 / sum.sum, delta_of(own + row, row_addresses[row]), row_factors[row].x);
		query_states[row] = state;
		if (own + row < own_end) F32x4(at(states(), state_row(own + row), 16)).v[0] = state;
	}
	barrier();
}

#endif

#ifdef ATTENTION_SCORES
float score_gradient(Pair p, float weight, float dlogit);

float score_sums[OWN_PAIRS]; // of the own rows, over the pairs of this invocation
#endif

// compute_weights writes the weights of the pairs of a tile to shared memory. Nested loops: compilers do not unroll a loop of 16
// long iterations, and then keep the arrays of pairs in memory.
void compute_weights(uint own, uint other) {
	barrier(); // the slices are no longer used
	[[unroll]] for (uint b = 0; b < OTHER_PAIRS; b++)
		[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) {
			Pair p = pair(a * OTHER_PAIRS + b, own, other);
			vec4 state = query_states[p.state];
			float below = p.logit - state.x; // not above 0 if both kernels compute the same logit
			float weight = exp2(below > 0 ? 0 : below) * state.y, dlogit = weight * (p.value - state.z);
			uint at = p.other * WEIGHT_PITCH + p.own / 4;
			slices[at][p.own % 4] = p.visible ? dlogit * (p.query_factor * p.key_factor) : 0;
#ifdef KEYS
			slices[VALUE_WEIGHTS + at][p.own % 4] = p.visible ? weight * p.value_factor : 0;
#endif
#ifdef ATTENTION_SCORES
			if (ATTENTION_SCORES && p.visible) score_sums[a] += score_gradient(p, weight, dlogit);
#endif
		}
}

vec4 product_sums[SUM_ROWS];
#ifdef KEYS
vec4 value_sums[SUM_ROWS];
#endif

// add_rows adds the rows of a tile, times their weights, to the sums. count rows are inside.
void add_rows(uint column, uint sum_row, uint count) {
	if (column >= ROW_VEC4) return;
	for (uint other = 0; other < count; other += 4) {
		[[unroll]] for (uint c = 0; c < 4; c++) {
			uvec4 pair = row_addresses[OWN_ROWS + other + c];
			vec4 first = present(pair.xy) ? load_row(pair.xy, column) : vec4(0);
#ifdef KEYS
			vec4 second = present(pair.zw) ? load_row(pair.zw, column) : vec4(0);
#endif
			[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
				uint at = (other + c) * WEIGHT_PITCH + (sum_row + r) / 4, part = (sum_row + r) % 4;
				product_sums[r] = fma(vec4(slices[at][part]), first, product_sums[r]);
#ifdef KEYS
				value_sums[r] = fma(vec4(slices[VALUE_WEIGHTS + at][part]), second, value_sums[r]);
#endif
			}
		}
	}
}

void write_sums(uint column, uint sum_row, uint own, uint own_end) {
	if (column >= ROW_VEC4) return;
	[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
		uint row = sum_row + r;
		if (own + row >= own_end) continue;
		bool exists = present(row_addresses[row].xy);
		vec4 product_sum = exists ? product_sums[r] * (SCALE * LN2) : vec4(0);
#ifdef QUERIES
		store_row(dq_address(own + row), column, product_sum);
#else
		store_row(dk_address(own + row), column, product_sum);
		store_row(dv_address(own + row), column, exists ? value_sums[r] : vec4(0));
#endif
	}
}

#ifdef ATTENTION_SCORES
// write_scores adds the parts of the gradients of factors, and writes those of the rows that are inside.
void write_scores(uint own, uint own_end) {
	uvec2 thread = thread_position();
	barrier();
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) slices[(thread.y + a * THREADS_Y) * THREADS_X + thread.x].x = score_sums[a];
	barrier();
	for (uint row = gl_LocalInvocationIndex; row < OWN_ROWS && own + row < own_end; row += THREADS) {
		float sum = 0;
		for (uint x = 0; x < THREADS_X; x++) sum += slices[row * THREADS_X + x].x;
		write_score(own + row, sum);
	}
}
#endif

void backward(uint own, uint own_end, uint other, uint other_end) {
	if (!lookup_own(own, own_end)) other_end = other;
#ifdef QUERIES
	compute_states(own, own_end, other, other_end);
	if (gl_LocalInvocationIndex < 2) occupied[gl_LocalInvocationIndex] = 0;
#endif
	uint column = gl_LocalInvocationIndex % COLUMNS, sum_row = gl_LocalInvocationIndex / COLUMNS * SUM_ROWS;
	[[unroll]] for (uint r = 0; r < SUM_ROWS; r++) {
		product_sums[r] = vec4(0);
#ifdef KEYS
		value_sums[r] = vec4(0);
#endif
	}
#ifdef ATTENTION_SCORES
	[[unroll]] for (uint a = 0; a < OWN_PAIRS; a++) score_sums[a] = 0;
#endif
	uint number = 0;
	for (uint first = other; first < other_end; first += OTHER_ROWS) {
		if (!lookup_other(number++, first, other_end)) continue;
		multiply(true);
		compute_weights(own, first);
		barrier();
		add_rows(column, sum_row, min(OTHER_ROWS, other_end - first));
	}
	write_sums(column, sum_row, own, own_end);
#ifdef ATTENTION_SCORES
	if (ATTENTION_SCORES) write_scores(own, own_end);
#endif
}
#endif

#endif
