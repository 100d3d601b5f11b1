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
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "include/address.glsl"

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

void pass(uint row, uint item, uint first) {
	sum(first);
	if (invocation() % LANES_PER_ROW == 0) {
		[[unroll]] for (uint j = 0; j < ROWS_PER_LANE; j++) {
			uint i = row + j * ROW_STEP;
			if (i < p.rows) store(j, item * p.rows + i, first);
		}
	}
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
