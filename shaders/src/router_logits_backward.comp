#version 460
// Backward of router logits: the gradients of tokens, and of routing tokens for each item.
//
//	x, dx [B, N, C] f32    tokens [R, C] or [B, R, C]    dlogits [B, R, N]    dtokens [B, R, C]    R: ROUTING_TOKENS
//	dot product: dx[b, i] += sum_r dlogits[b, r, i] * tokens[r]    dtokens[b, r] (+)= sum_i dlogits[b, r, i] * x[b, i]
//	cosine:      the same sums g with rows u = v / max(|v|, 1e-12) in place of both v, then
//	             dv (+)= COSINE_SCALE * (g - u * (u . g)) / max(|v|, 1e-12); u . g is left out where |v| <= 1e-12
//	row_factors [B, N, 2], token_factors [R, 2] or [B, R, 2] with COSINE_SCALE: scratch; a row times both has length 1
//
// Four variants:
//
//	FUSED    dx, which is base, if present, plus its gradient, and sums as below, of dot products in one pass over x. Rows have a
//	         multiple of 4 elements; include/norm_backward.glsl has the order
//	neither  dx, and row_factors. A workgroup computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each;
//	         sums over columns are added in a tree
//	SUMS     sums [B * R, blocks, C]: the sums over a block of tokens i. include/column_sum.glsl has the order; another
//	         kernel adds the blocks. Without COSINE_SCALE that is dtokens
//	TOKENS   with COSINE_SCALE: token_factors, if present, and dtokens from sums [B, R, C], if present. A workgroup
//	         computes rows as in the first variant
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

#ifndef FUSED
layout(constant_id = 6) const float COSINE_SCALE = 0; // factor of the cosine; 0: dot product
#endif

#if defined(FUSED)
layout(constant_id = 3) const uint ROUTING_TOKENS = 1; // routing tokens of an item

layout(push_constant, std430) uniform Push {
	uvec2 x, tokens, dlogits, dx, base, sums;
	uint token_stride; // rows of tokens from one item to the next: R, or 0 if all items share them
	uint rows, rows_per_block, blocks, all_blocks; // rows: N
} p;

#define WITHOUT_DY
#include "include/norm_backward.glsl"

void main() {
	uint block = workgroup_index();
	if (block >= p.all_blocks) return;
	uint item = block / p.blocks, first = block % p.blocks * p.rows_per_block, count = min(p.rows_per_block, p.rows - first);
	vec4 tokens[ROUTING_TOKENS][COLUMNS], sums[ROUTING_TOKENS][COLUMNS];
	[[unroll]] for (uint r = 0; r < ROUTING_TOKENS; r++) {
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			uint row = item * p.token_stride + r;
			tokens[r][c] = group_of(c) < GROUPS ? F32x4(at(p.tokens, row, 4 * CHANNELS)).v[group_of(c)] : vec4(0);
			sums[r][c] = vec4(0);
		}
	}
	for (uint n = gl_LocalInvocationID.y; n < count; n += ROWS_PER_WORKGROUP) {
		uint row = item * p.rows + first + n;
		float dlogits[ROUTING_TOKENS];
		[[unroll]] for (uint r = 0; r < ROUTING_TOKENS; r++) {
			dlogits[r] = F32(at(p.dlogits, item * ROUTING_TOKENS + r, 4 * p.rows)).v[first + n];
		}
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			if (group_of(c) >= GROUPS) continue;
			vec4 x = F32x4(at(p.x, row, 4 * CHANNELS)).v[group_of(c)], gradient = vec4(0);
			[[unroll]] for (uint r = 0; r < ROUTING_TOKENS; r++) {
				gradient = fma(vec4(dlogits[r]), tokens[r][c], gradient);
				sums[r][c] += dlogits[r] * x;
			}
			store_dx(p.dx, row, group_of(c), gradient);
		}
	}
	[[unroll]] for (uint r = 0; r < ROUTING_TOKENS; r++) {
		uint to = (item * ROUTING_TOKENS + r) * p.blocks + block % p.blocks;
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) store_block(p.sums, to, c, sums[r][c]);
	}
}

#elif defined(SUMS)
layout(constant_id = 3) const uint ROUTING_TOKENS = 1; // routing tokens of an item

layout(push_constant, std430) uniform Push {
	uvec2 x, dlogits, sums, row_factors;
	uint rows, rows_per_block, blocks, all_blocks; // rows: N
} p;

#define SUM float
#include "include/column_sum.glsl"
#include "include/square_sum.glsl"

// An item of the sum is a routing token of an item of the batch.
float term(uint item, uint row, uint column) {
	uint r = item / ROUTING_TOKENS * p.rows + row;
	float v = F32(at(p.x, r, 4 * CHANNELS)).v[column];
	if (COSINE_SCALE != 0) {
		F32 factors = F32(at(p.row_factors, r, 8));
		v = scaled(v, factors.v[0]) * factors.v[1];
	}
	return F32(at(p.dlogits, item, 4 * p.rows)).v[row] * v;
}

void main() {
	uint block, column;
	float sum;
	if (block_sum(block, column, sum)) store_sum(p.sums, block, column, sum);
}

#else
layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
#include "include/unit_row.glsl"

// store_factors writes the factors of a row.
void store_factors(uvec2 factors, uint row, Unit unit) {
	F32 f = F32(at(factors, row, 8));
	f.v[0] = unit.scale;
	f.v[1] = unit.inverse;
}

#ifdef TOKENS
layout(constant_id = 8) const bool ADD_TOKENS = false; // add to dtokens

layout(push_constant, std430) uniform Push {
	uvec2 tokens, sums, dtokens, token_factors;
	uint rows;       // B * R, or R for token_factors of tokens that all items share
	uint token_rows; // rows of tokens
} p;

uvec2 sums; // the invocation's row

float upstream(uint i) { return present(p.sums) ? F32(sums).v[i] : 0; }

void main() {
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint channels = inside ? CHANNELS : 0; // invocations past the last row have no elements, but take part in the barriers
	uvec2 token = at(p.tokens, row % p.token_rows, 4 * CHANNELS);
	sums = at(p.sums, row, 4 * CHANNELS);
	Unit unit = unit_of(token, channels);
	if (inside && gl_LocalInvocationID.x == 0 && present(p.token_factors)) store_factors(p.token_factors, row, unit);
	if (!present(p.dtokens)) return;
	F32 dtokens = F32(at(p.dtokens, row, 4 * CHANNELS));
	for (uint i = gl_LocalInvocationID.x; i < channels; i += INVOCATIONS_PER_ROW) {
		float gradient = COSINE_SCALE * unit_gradient(unit, F32(token).v[i], upstream(i));
		dtokens.v[i] = ADD_TOKENS ? dtokens.v[i] + gradient : gradient;
	}
}

#else
layout(constant_id = 3) const uint ROUTING_TOKENS = 1; // routing tokens of an item

layout(push_constant, std430) uniform Push {
	uvec2 x, tokens, dlogits, dx, row_factors, token_factors;
	uint n, rows;       // rows: B * N
	uint token_stride;  // rows of tokens from one item to the next: R, or 0 if all items share them
} p;

uint item, position;            // of the invocation's row
uvec2 tokens, token_factors; // of the item

// upstream returns the sum over the routing tokens r of dlogits[r] times element i of the token.
float upstream(uint i) {
	float sum = 0;
	[[dont_unroll]] for (uint r = 0; r < ROUTING_TOKENS; r++) {
		float token = F32(at(tokens, r, 4 * CHANNELS)).v[i];
		if (COSINE_SCALE != 0) token = scaled(token, F32(token_factors).v[2 * r]) * F32(token_factors).v[2 * r + 1];
		sum = fma(F32(at(p.dlogits, item * ROUTING_TOKENS + r, 4 * p.n)).v[position], token, sum);
	}
	return sum;
}

void main() {
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint channels = inside ? CHANNELS : 0; // invocations past the last row have no elements, but take part in the barriers
	item = row / p.n;
	position = row % p.n;
	tokens = at(p.tokens, item * p.token_stride, 4 * CHANNELS);
	token_factors = at(p.token_factors, item * p.token_stride, 8);
	F32 x = F32(at(p.x, row, 4 * CHANNELS)), dx = F32(at(p.dx, row, 4 * CHANNELS));
	Unit unit;
	if (COSINE_SCALE != 0) {
		unit = unit_of(at(p.x, row, 4 * CHANNELS), channels);
		if (inside && gl_LocalInvocationID.x == 0) store_factors(p.row_factors, row, unit);
	}
	for (uint i = gl_LocalInvocationID.x; i < channels; i += INVOCATIONS_PER_ROW) {
		float gradient = upstream(i);
		if (COSINE_SCALE != 0) gradient = COSINE_SCALE * unit_gradient(unit, x.v[i], gradient);
		dx.v[i] += gradient;
	}
}
#endif
#endif
