#version 460
// Backward of RMSNorm, y[r] = x[r] / max(|x[r]|, 1e-12) * sqrt(C) * gamma: the gradient of x, and partial sums of that
// of gamma for each item.
//
//	x, dx [items, in_rows, C] f32    gamma [C]    dy [items, rows, C]    dgamma [items, blocks, C]
//	gather [items, lists, rows] i32, valid [items, lists, rows] u32 optional, with GATHER
//	factors [items, rows, 2]: scratch; a row of x times both factors is y / gamma. The first one is a power of two
//
// With GATHER row r of dy belongs to row gather[r] of that item of x; an empty slot adds nothing. The rows of a list
// are distinct, so that no two invocations add to the same row. Two variants:
//
//	neither     dx (+)= sqrt(C) / |x| * (g - u * (u . g)), with u = x / |x| and g = gamma * dy; and factors. A workgroup
//	            computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each; sums are added in a tree
//	PARAMETERS  dgamma (+)= sum over a block of rows of dy * u * sqrt(C). include/column_sum.glsl has the order; another
//	            kernel adds the blocks
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(constant_id = 5) const bool GATHER = false; // rows of x are gathered

layout(push_constant, std430) uniform Push {
	uvec2 x, gamma, dy, dx, dgamma, factors, gather, valid;
	uint rows, in_rows, lists, list; // of an item
#ifdef PARAMETERS
	uint rows_per_block, blocks, all_blocks;
#else
	uint all_rows; // of all items
#endif
} p;

// source_row returns the row of x that row r of an item of dy belongs to, counted over the items, and whether there is
// one.
bool source_row(uint item, uint r, out uint source) {
	uint index = r;
	bool exists = true;
	if (GATHER) {
		uint slot = (item * p.lists + p.list) * p.rows + r;
		index = U32(p.gather).v[slot];
		exists = index < p.in_rows && !(present(p.valid) && U32(p.valid).v[slot] == 0); // a negative index is at least 2^31
	}
	source = item * p.in_rows + (exists ? index : 0);
	return exists;
}

#ifdef PARAMETERS
#define SUM float
#include "include/column_sum.glsl"
#include "include/square_sum.glsl"

float term(uint item, uint row, uint column) {
	uint source;
	if (!source_row(item, row, source)) return 0;
	F32 factors = F32(at(p.factors, item * p.rows + row, 8));
	float v = scaled(F32(at(p.x, source, 4 * CHANNELS)).v[column], factors.v[0]) * factors.v[1];
	return F32(at(p.dy, item * p.rows + row, 4 * CHANNELS)).v[column] * v;
}

void main() {
	uint block, column;
	float sum;
	if (block_sum(block, column, sum)) store_sum(p.dgamma, block, column, sum);
}
#else
layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 8) const bool ADD_DX = false; // add to dx
#include "include/unit_row.glsl"

uvec2 dy; // the invocation's row

float upstream(uint i) { return F32(p.gamma).v[i] * F32(dy).v[i]; }

void main() {
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y, source = 0;
	bool inside = row < p.all_rows, exists = inside && source_row(row / p.rows, row % p.rows, source);
	F32 x = F32(at(p.x, source, 4 * CHANNELS)), dx = F32(at(p.dx, source, 4 * CHANNELS));
	dy = at(p.dy, row, 4 * CHANNELS);
	uint channels = exists ? CHANNELS : 0;
	Unit unit = unit_of(at(p.x, source, 4 * CHANNELS), channels);
	float root = sqrt(float(CHANNELS));
	if (inside && gl_LocalInvocationID.x == 0) {
		F32 factors = F32(at(p.factors, row, 8));
		factors.v[0] = unit.scale;
		factors.v[1] = root * unit.inverse;
	}
	for (uint i = gl_LocalInvocationID.x; i < channels; i += INVOCATIONS_PER_ROW) {
		float gradient = root * unit_gradient(unit, x.v[i], upstream(i));
		dx.v[i] = ADD_DX ? dx.v[i] + gradient : gradient;
	}
}
#endif
