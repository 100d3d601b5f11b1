#version 460
// Backward of RMSNorm, y[r] = x[r] / max(|x[r]|, 1e-12) * sqrt(C) * gamma: the gradient of x, and partial sums of that
// of gamma for each item.
//
//	x, dx, base [items, in_rows, C] f32    gamma [C]    dy [items, rows, C] f32, or with DY_DTYPE of 16 bits
//	dgamma [items, blocks, C]
//	gather [items, lists, rows] i32, valid [items, lists, rows] u32 optional, with GATHER
//	factors [items, rows, 2]: scratch; a row of x times both factors is y / gamma. The first one is a power of two
//
// With GATHER row r of dy belongs to row gather[r] of that item of x; an empty slot adds nothing. The rows of a list
// are distinct, so that no two invocations add to the same row. With ADD_DX dx is base, which may be dx, plus its
// gradient. Three variants:
//
//	FUSED       dx and dgamma in one pass, for rows of a multiple of 4 elements; include/norm_backward.glsl has the order
//	none        dx (+)= sqrt(C) / |x| * (g - u * (u . g)), with u = x / |x| and g = gamma * dy; and factors. A workgroup
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
	uvec2 x, gamma, dy, dx, dgamma, factors, gather, valid, base;
	uint rows, in_rows, lists, list; // of an item
#if defined(PARAMETERS) || defined(FUSED)
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

#ifdef FUSED
#include "include/norm_backward.glsl"
#include "include/square_sum.glsl"

shared uint overflows[2]; // whether a row's sum of squares overflows, of the rows of even and of odd loop iterations

void main() {
	uint block = workgroup_index();
	if (block >= p.all_blocks) return;
	uint item = block / p.blocks, first = block % p.blocks * p.rows_per_block, count = min(p.rows_per_block, p.rows - first);
	vec4 gamma[COLUMNS], sums[COLUMNS];
	[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
		gamma[c] = group_of(c) < GROUPS ? F32x4(p.gamma).v[group_of(c)] : vec4(0);
		sums[c] = vec4(0);
	}
	if (gl_LocalInvocationIndex == 0) overflows[0] = 0;
	float root = sqrt(float(CHANNELS));
	uint odd = 0;
	for (uint r0 = 0; r0 < count; r0 += ROWS_PER_WORKGROUP) {
		uint r = r0 + gl_LocalInvocationID.y, source = 0;
		bool exists = r < count && source_row(item, first + r, source);
		vec4 x[COLUMNS], dy[COLUMNS];
		vec2 products = vec2(0); // of x with itself, and with the gradient of x / |x|
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			x[c] = dy[c] = vec4(0);
			if (!exists || group_of(c) >= GROUPS) continue;
			x[c] = F32x4(at(p.x, source, 4 * CHANNELS)).v[group_of(c)];
			dy[c] = load_dy(item * p.rows + first + r, group_of(c));
		}
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) products += vec2(dot(x[c], x[c]), dot(x[c], gamma[c] * dy[c]));
		products = row_sum(products);
		float scale = 1;
		if (overflowed(products.x)) overflows[odd] = 1;
		barrier();
		if (overflows[odd] != 0) { // some row of the workgroup
			vec2 scaled_products = vec2(0);
			[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
				vec4 v = scaled(x[c], SCALE_DOWN);
				scaled_products += vec2(dot(v, v), dot(v, gamma[c] * dy[c]));
			}
			scaled_products = row_sum(scaled_products);
			if (overflowed(products.x)) {
				products = scaled_products;
				scale = SCALE_DOWN;
			}
		}
		odd = 1 - odd;
		if (gl_LocalInvocationIndex == 0) overflows[odd] = 0; // all invocations have read that of the iteration before

		float length = sqrt(products.x), inverse = 1 / max(length, 1e-12), along = length > 1e-12 ? products.y * inverse : 0;
		[[unroll]] for (uint c = 0; c < COLUMNS; c++) {
			if (!exists || group_of(c) >= GROUPS) continue;
			vec4 u = scaled(x[c], scale) * inverse;
			store_dx(p.dx, source, group_of(c), root * ((gamma[c] * dy[c] - u * along) * inverse * scale));
			sums[c] += dy[c] * (u * root);
		}
	}
	[[unroll]] for (uint c = 0; c < COLUMNS; c++) store_block(p.dgamma, block, c, sums[c]);
}
#elif defined(PARAMETERS)
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
