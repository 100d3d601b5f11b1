#version 460
// Router logits: the products of every token with the routing tokens of one or two sets, in one pass over x.
//
//	x [B, N, C]    tokens [R, C] or [B, R, C]    tokens2 [R2, C] or [B, R2, C]    R, R2: ROUTING_TOKENS, ROUTING_TOKENS2
//	logits [B, R, N], logits2 [B, R2, N]:  logits[b, r, i] = x[b, i] . tokens[r]
//	with COSINE_SCALE:  COSINE_SCALE * (x[b, i] / max(||x[b, i]||, 1e-12)) . (tokens[r] / max(||tokens[r]||, 1e-12))
//	factors [B, N] optional:  sqrt(C) / max(||x[b, i]||, 1e-12), the factor of RMSNorm, for callers; no other shader reads it
//
// A workgroup of 256 computes 256 / LANES_PER_ROW * ROWS_PER_LANE rows. LANES_PER_ROW neighbours of a subgroup share a
// row: with 8 lanes they read 128 bytes at once, and three shuffles complete a sum. A lane processes ROWS_PER_LANE rows
// at a time: it has ROWS_PER_LANE loads in flight, and uses each element of a routing token ROWS_PER_LANE times. A pass
// over the rows computes TOKENS_PER_PASS routing tokens; more than 16 take several passes. Order of summation: a lane
// adds columns lane, lane + LANES_PER_ROW, ..., then lanes are added in pairs, whatever ROWS_PER_LANE, TOKENS_PER_PASS
// and the subgroup size are.
//
// With COSINE, COSINE_SCALE is not 0. A cosine is the product divided by the product of both lengths, with an exact square root and quotient: tokens of one
// nonzero element, and tokens that are copies of each other up to a power of two, have equal logits.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "include/address.glsl"
#ifdef COSINE
#include "include/divide.glsl"
#include "include/square_sum.glsl"
#endif

#ifdef VEC4 // C is a multiple of 4
#define T vec4
#define ROW F32x4
#define T_FLOATS 4
#else
#define T float
#define ROW F32
#define T_FLOATS 1
#endif

layout(local_size_x = 256) in;
layout(constant_id = 0) const uint COLUMNS = 1; // elements of type T in a row
layout(constant_id = 1) const uint LANES_PER_ROW = 1; // invocations per row: a power of two, at most the subgroup size
layout(constant_id = 2) const uint ROWS_PER_LANE = 1; // rows that an invocation computes at a time
layout(constant_id = 3) const uint ROUTING_TOKENS = 1; // rows of tokens
layout(constant_id = 4) const uint ROUTING_TOKENS2 = 0; // rows of tokens2
layout(constant_id = 5) const uint TOKENS_PER_PASS = 1; // routing tokens per pass over x
layout(constant_id = 6) const float COSINE_SCALE = 0; // factor of the cosine; 0: dot product

const uint STRIDE = COLUMNS * (4 * T_FLOATS);
const uint ROW_STEP = 256 / LANES_PER_ROW; // rows that the workgroup processes at a time
const uint STEPS = COLUMNS / LANES_PER_ROW;
const float MIN_SQUARE_NORM = 1e-24; // square of the smallest divisor

layout(push_constant) uniform Push {
	uvec2 x, tokens, tokens2, logits, logits2, factors;
	uint n;
	uint rows;   // per item: N if each of B items has its own tokens, else B * N and there is one item
	uint tiles;  // workgroups per item
	uint groups; // workgroups
} p;

// invocation numbers invocations such that LANES_PER_ROW neighbours are in one subgroup; subgroups are full.
uint invocation() { return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID; }

#ifdef VEC4
float add_product(vec4 a, vec4 b, float sum) {
	return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
#else
float add_product(float a, float b, float sum) { return fma(a, b, sum); }
#endif

float lane_sum(float v) {
	[[unroll]] for (uint m = 1; m < LANES_PER_ROW; m *= 2) v += subgroupShuffleXor(v, m);
	return v;
}

uvec2 x[ROWS_PER_LANE], tokens, tokens2; // addresses of the rows of this lane, and of the tokens of this item
float square_sums[ROWS_PER_LANE], token_square_sums[TOKENS_PER_PASS], dots[ROWS_PER_LANE * TOKENS_PER_PASS];

// token_column returns column col of routing token r, counted over both sets; for r past the last one that of the last
// one.
T token_column(uint r, uint col) {
	r = min(r, ROUTING_TOKENS + ROUTING_TOKENS2 - 1);
	if (r < ROUTING_TOKENS) return ROW(tokens).v[r * COLUMNS + col];
	return ROW(tokens2).v[(r - ROUTING_TOKENS) * COLUMNS + col];
}

void add_column(uint first, uint col) {
	T v[ROWS_PER_LANE];
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
		v[j] = ROW(x[j]).v[col];
	}
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
		square_sums[j] = add_product(v[j], v[j], square_sums[j]);
	}
	[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) {
		T t = token_column(first + r, col);
		if (COSINE_SCALE != 0) token_square_sums[r] = add_product(t, t, token_square_sums[r]);
		[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
			dots[j * TOKENS_PER_PASS + r] = add_product(v[j], t, dots[j * TOKENS_PER_PASS + r]);
		}
	}
}

// sum computes, in every lane, the sums of its rows with tokens first .. first + TOKENS_PER_PASS - 1.
void sum(uint first) {
	uint lane = invocation() % LANES_PER_ROW;
	[[unroll]] for (uint i = 0; i < ROWS_PER_LANE * TOKENS_PER_PASS; i++) dots[i] = 0;
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) square_sums[j] = 0;
	[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) token_square_sums[r] = 0;
	for (uint s = 0; s < STEPS; s++) add_column(first, s * LANES_PER_ROW + lane);
	if (lane < COLUMNS % LANES_PER_ROW) add_column(first, STEPS * LANES_PER_ROW + lane);
	[[unroll]] for (uint i = 0; i < ROWS_PER_LANE * TOKENS_PER_PASS; i++) dots[i] = lane_sum(dots[i]);
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) square_sums[j] = lane_sum(square_sums[j]);
	if (COSINE_SCALE != 0) {
		[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) token_square_sums[r] = lane_sum(token_square_sums[r]);
	}
}

#ifdef COSINE
// length_of is the length of a vector with a sum of squares, at least 1e-12; 1 if the sum overflows.
float length_of(float square_sum) { return overflowed(square_sum) ? 1 : exact_sqrt(max(square_sum, MIN_SQUARE_NORM)); }

void store(uint j, uint row, uint first, float token_lengths[TOKENS_PER_PASS]) {
	uint b = row / p.n, i = row - b * p.n;
	if (first == 0 && present(p.factors))
		F32(p.factors).v[row] = sqrt(float(COLUMNS * T_FLOATS)) * inversesqrt(max(square_sums[j], MIN_SQUARE_NORM));
	float row_length = COSINE_SCALE != 0 ? length_of(square_sums[j]) : 1;
	[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) {
		float logit = dots[j * TOKENS_PER_PASS + r];
		if (COSINE_SCALE != 0) {
			// The product of two lengths below 2^64 may exceed what exact_quotient takes. Powers of two are exact.
			float scale = row_length > 4294967296.0 ? 2.3283064365386963e-10 : 1;
			logit = exact_quotient(logit * scale, row_length * scale * token_lengths[r]) * COSINE_SCALE;
		}
		uint token = first + r;
		if (token < ROUTING_TOKENS) F32(at(p.logits, b * ROUTING_TOKENS + token, p.n * 4)).v[i] = logit;
		else if (token < ROUTING_TOKENS + ROUTING_TOKENS2) F32(at(p.logits2, b * ROUTING_TOKENS2 + (token - ROUTING_TOKENS), p.n * 4)).v[i] = logit;
	}
}

// divide_logit divides the logit of a row, counted over the batch, with routing token r by length / SCALE_DOWN.
void divide_logit(uint row, uint r, float length) {
	uint b = row / p.n;
	F32 logits = F32(r < ROUTING_TOKENS ? at(p.logits, b * ROUTING_TOKENS + r, p.n * 4)
		: at(p.logits2, b * ROUTING_TOKENS2 + (r - ROUTING_TOKENS), p.n * 4));
	logits.v[row - b * p.n] = logits.v[row - b * p.n] * SCALE_DOWN / length;
}

// divide_by_row divides the logits of a row whose sum of squares overflows by its length, and writes its factor.
void divide_by_row(uint row, uint first) {
	if (COSINE_SCALE == 0 && !(first == 0 && present(p.factors))) return;
	float length = sqrt(scaled_square_sum(at(p.x, row, STRIDE), COLUMNS * T_FLOATS)); // of the row times SCALE_DOWN
	if (first == 0 && present(p.factors)) F32(p.factors).v[row] = sqrt(float(COLUMNS * T_FLOATS)) / length * SCALE_DOWN;
	if (COSINE_SCALE == 0) return;
	[[dont_unroll]] for (uint r = first; r < min(first + TOKENS_PER_PASS, ROUTING_TOKENS + ROUTING_TOKENS2); r++)
		divide_logit(row, r, length);
}

// divide_by_token divides the logits of routing token r, whose sum of squares overflows, by its length in the rows of
// this lane.
void divide_by_token(uint row, uint item, uint r) {
	uvec2 token = r < ROUTING_TOKENS ? at(tokens, r, STRIDE) : at(tokens2, r - ROUTING_TOKENS, STRIDE);
	float length = sqrt(scaled_square_sum(token, COLUMNS * T_FLOATS));
	[[dont_unroll]] for (uint j = 0; j < ROWS_PER_LANE && row + j * ROW_STEP < p.rows; j++)
		divide_logit(item * p.rows + row + j * ROW_STEP, r, length);
}

// finish writes the logits of the lane's rows.
void finish(uint row, uint item, uint first) {
	uint row_overflows = 0, token_overflows = 0; // bits: whose sums of squares overflow
	float token_lengths[TOKENS_PER_PASS];
	[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) {
		token_lengths[r] = COSINE_SCALE != 0 ? length_of(token_square_sums[r]) : 1;
		if (COSINE_SCALE != 0 && first + r < ROUTING_TOKENS + ROUTING_TOKENS2 && overflowed(token_square_sums[r])) token_overflows |= 1u << r;
	}
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
		uint i = row + j * ROW_STEP;
		if (i >= p.rows) continue;
		store(j, item * p.rows + i, first, token_lengths);
		if (overflowed(square_sums[j])) row_overflows |= 1u << j;
	}
	for (; row_overflows != 0; row_overflows &= row_overflows - 1)
		divide_by_row(item * p.rows + row + findLSB(row_overflows) * ROW_STEP, first);
	for (; token_overflows != 0; token_overflows &= token_overflows - 1) divide_by_token(row, item, first + findLSB(token_overflows));
}
#else
void store(uint j, uint row, uint first) {
	uint b = row / p.n, i = row - b * p.n;
	float inverse = inversesqrt(max(square_sums[j], MIN_SQUARE_NORM));
	if (first == 0 && present(p.factors)) F32(p.factors).v[row] = sqrt(float(COLUMNS * T_FLOATS)) * inverse;
	[[unroll]] for (uint r = 0; r < TOKENS_PER_PASS; r++) {
		float logit = dots[j * TOKENS_PER_PASS + r];
		if (COSINE_SCALE != 0) logit = logit * inverse * inversesqrt(max(token_square_sums[r], MIN_SQUARE_NORM)) * COSINE_SCALE;
		uint token = first + r;
		if (token < ROUTING_TOKENS) F32(at(p.logits, b * ROUTING_TOKENS + token, p.n * 4)).v[i] = logit;
		else if (token < ROUTING_TOKENS + ROUTING_TOKENS2) F32(at(p.logits2, b * ROUTING_TOKENS2 + (token - ROUTING_TOKENS), p.n * 4)).v[i] = logit;
	}
}
#endif

void pass(uint row, uint item, uint first) {
	sum(first);
#ifdef COSINE
	if (invocation() % LANES_PER_ROW == 0) finish(row, item, first);
#else
	if (invocation() % LANES_PER_ROW == 0) {
		[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
			uint i = row + j * ROW_STEP;
			if (i < p.rows) store(j, item * p.rows + i, first);
		}
	}
#endif
}

void main() {
	if (workgroup_index() >= p.groups) return;
	uint item = workgroup_index() / p.tiles;
	// The lane's first row in the item.
	uint row = (workgroup_index() - item * p.tiles) * (ROWS_PER_LANE * ROW_STEP) + invocation() / LANES_PER_ROW;
	[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
		// Rows past the end repeat the last one.
		x[j] = at(p.x, item * p.rows + min(row + j * ROW_STEP, p.rows - 1), STRIDE);
	}
	tokens = at(p.tokens, item * ROUTING_TOKENS, STRIDE);
	tokens2 = at(p.tokens2, item * ROUTING_TOKENS2, STRIDE);
	if (TOKENS_PER_PASS >= ROUTING_TOKENS + ROUTING_TOKENS2) {
		pass(row, item, 0);
	} else {
		for (uint first = 0; first < ROUTING_TOKENS + ROUTING_TOKENS2; first += TOKENS_PER_PASS) pass(row, item, first);
	}
}
