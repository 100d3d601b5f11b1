#version 460
// Backward of LayerNorm, y[r] = n[r] * weight + bias with n[r] = (x[r] - mean) / sqrt(var + 1e-5): the gradient of x,
// and partial sums of those of weight and bias for each item.
//
//	x, dy, dx, base [items, rows, C] f32, dy with DY_DTYPE of 16 bits    weight [C]    dweight, dbias [items, blocks, C]
//	norms [items, rows, 3]: scratch; the Norm of each row
//
// With ADD_DX dx is base, which may be dx, plus its gradient. Three variants:
//
//	FUSED       all gradients in one pass, for rows of a multiple of 4 elements; include/norm_backward.glsl has the order
//	none        dx (+)= (g - mean(g) - n * mean(g * n)) / sqrt(var + 1e-5), with g = weight * dy; and norms. A workgroup
//	            computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each; sums are added in a tree
//	PARAMETERS  dweight (+)= sum of dy * n, dbias (+)= sum of dy over a block of rows. include/column_sum.glsl has the
//	            order; another kernel adds the blocks
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, dy, dx, dweight, dbias, norms, base;
	uint rows; // of an item; for dx of all items
#if defined(PARAMETERS) || defined(FUSED)
	uint rows_per_block, blocks, all_blocks;
#endif
} p;

#ifdef FUSED
#include "include/norm_backward.glsl"

void main() {
	uint block = workgroup_index();
	if (block >= p.all_blocks) return;
	uint item = block / p.blocks, first = block % p.blocks * p.rows_per_block, count = min(p.rows_per_block, p.rows - first);
	vec4 weight[COLUMNS], weight_sums[COLUMNS], bias_sums[COLUMNS];
	[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
		weight[c] = group_of(c) < GROUPS ? F32x4(p.weight).v[group_of(c)] : vec4(0);
		weight_sums[c] = bias_sums[c] = vec4(0);
	}
	const float length = float(CHANNELS);
	for (uint r0 = 0; r0 < count; r0 += ROWS_PER_WORKGROUP) {
		uint r = r0 + gl_LocalInvocationID.y, row = item * p.rows + first + r;
		bool exists = r < count;
		vec4 x[COLUMNS], dy[COLUMNS];
		float sum = 0;
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			x[c] = dy[c] = vec4(0);
			if (!exists || group_of(c) >= GROUPS) continue;
			x[c] = F32x4(at(p.x, row, 4 * CHANNELS)).v[group_of(c)];
			dy[c] = load_dy(row, group_of(c));
		}
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) sum += (x[c].x + x[c].y) + (x[c].z + x[c].w);
		float near_mean = row_sum(vec2(sum, 0)).x / length;
		vec2 differences = vec2(0);
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			if (group_of(c) >= GROUPS) continue;
			vec4 v = x[c] - near_mean;
			differences += vec2((v.x + v.y) + (v.z + v.w), dot(v, v));
		}
		Norm norm = row_norm(near_mean, differences, length);
		vec2 sums = vec2(0); // of g and of g * n, with g = weight * dy
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			x[c] = ((x[c] - norm.near_mean) - norm.correction) * norm.inverse_deviation;
			vec4 g = weight[c] * dy[c];
			sums += vec2((g.x + g.y) + (g.z + g.w), dot(g, x[c]));
		}
		vec2 means = row_sum(sums) / length;
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			if (!exists || group_of(c) >= GROUPS) continue;
			store_dx(p.dx, row, group_of(c), (weight[c] * dy[c] - means.x - x[c] * means.y) * norm.inverse_deviation);
			weight_sums[c] += dy[c] * x[c];
			bias_sums[c] += dy[c];
		}
	}
	[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
		store_block(p.dweight, block, c, weight_sums[c]);
		store_block(p.dbias, block, c, bias_sums[c]);
	}
}
#elif defined(PARAMETERS)
#define SUM vec2
#include "include/column_sum.glsl"

vec2 term(uint item, uint row, uint column) {
	uint r = item * p.rows + row;
	F32 norm = F32(at(p.norms, r, 12));
	float dy = F32(at(p.dy, r, 4 * CHANNELS)).v[column];
	float n = ((F32(at(p.x, r, 4 * CHANNELS)).v[column] - norm.v[0]) - norm.v[1]) * norm.v[2];
	return dy * vec2(n, 1);
}

void main() {
	uint block, column;
	vec2 sum;
	if (!block_sum(block, column, sum)) return;
	store_sum(p.dweight, block, column, sum.x);
	store_sum(p.dbias, block, column, sum.y);
}
#else
#include "include/row_norm.glsl"

layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 8) const bool ADD_DX = false; // add to dx

void main() {
	uint invocation = gl_LocalInvocationID.x;
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint channels = inside ? CHANNELS : 0; // invocations past the last row have no elements, but take part in the barriers
	F32 x = F32(at(p.x, row, 4 * CHANNELS)), dy = F32(at(p.dy, row, 4 * CHANNELS)), dx = F32(at(p.dx, row, 4 * CHANNELS));
	F32 weight = F32(p.weight);
	const float count = float(CHANNELS);
	float sum = 0;
	for (uint i = invocation; i < channels; i += INVOCATIONS_PER_ROW) sum += x.v[i];
	float near_mean = row_sum(vec2(sum, 0)).x / count;
	vec2 differences = vec2(0);
	for (uint i = invocation; i < channels; i += INVOCATIONS_PER_ROW) {
		float v = x.v[i] - near_mean;
		differences += vec2(v, v * v);
	}
	Norm norm = row_norm(near_mean, differences, count);
	vec2 sums = vec2(0); // of g and of g * n
	for (uint i = invocation; i < channels; i += INVOCATIONS_PER_ROW) {
		float n = ((x.v[i] - norm.near_mean) - norm.correction) * norm.inverse_deviation;
		sums += dy.v[i] * weight.v[i] * vec2(1, n);
	}
	vec2 means = row_sum(sums) / count;
	if (inside && invocation == 0) {
		F32 norms = F32(at(p.norms, row, 12));
		norms.v[0] = norm.near_mean;
		norms.v[1] = norm.correction;
		norms.v[2] = norm.inverse_deviation;
	}
	for (uint i = invocation; i < channels; i += INVOCATIONS_PER_ROW) {
		float n = ((x.v[i] - norm.near_mean) - norm.correction) * norm.inverse_deviation;
		float gradient = (dy.v[i] * weight.v[i] - means.x - n * means.y) * norm.inverse_deviation;
		dx.v[i] = ADD_DX ? dx.v[i] + gradient : gradient;
	}
}
#endif
