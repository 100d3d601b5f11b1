#version 460
// Sums over the rows of each item of a batch, by blocks of rows.
//
//	x [items, rows, C] f32, or with X_DTYPE of 16 bits    skip [items, rows] u32 optional    y [items, blocks, C] f32
//	y[b] (+)= sum of rows b * rows_per_block .. of an item of x, rows_per_block of them, without those whose skip is not 0
//
// With VEC4, rows are of groups of 4 elements, CHANNELS of them, with the same order for each element.
//
// A second dispatch, over the rows of y, adds the blocks. ADD_SUM adds to y. include/column_sum.glsl has the order of
// summation.
//
// With FEW_ROWS, an invocation adds all rows of a column, ROWS of them and at most 256, in the same order, and then the
// sums of up to 8 items as tree_sum.comp does. A workgroup computes 64 columns.
//
//	x [outputs, items, ROWS, C]    skip [outputs, items, ROWS]    y [outputs, C]
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#ifdef FEW_ROWS
#extension GL_EXT_control_flow_attributes : require
#endif
#include "include/address.glsl"

layout(push_constant) uniform Push {
	uvec2 x, y, skip;
#ifdef FEW_ROWS
	uint rows, items, outputs;
#else
	uint rows, rows_per_block, blocks, all_blocks;
#endif
} p;

#ifdef VEC4
#define SUM vec4
#else
#define SUM float
#endif
#ifdef FEW_ROWS
layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 7) const bool ADD_SUM = false; // add the sums to what is there
layout(constant_id = 8) const uint ROWS = 1; // p.rows
const uint THREADS = 64, SUM_ROWS = 8; // SUM_ROWS of include/column_sum.glsl
layout(local_size_x = 64) in;
#else
#include "include/column_sum.glsl"
#endif
#include "include/pack16.glsl"

layout(constant_id = 9) const uint X_DTYPE = DTYPE_F32; // CHANNELS is even with 16 bits

#ifdef VEC4
vec4 term(uint item, uint row, uint column) {
	uint i = item * p.rows + row;
	if (present(p.skip) && U32(p.skip).v[i] != 0) return vec4(0);
	if (X_DTYPE == DTYPE_F32) return F32x4(at(p.x, i, 16 * CHANNELS)).v[column];
	uvec2 words = U32x2(at(p.x, i, 8 * CHANNELS)).v[column];
	return vec4(unpack16(X_DTYPE, words.x), unpack16(X_DTYPE, words.y));
}

#ifndef FEW_ROWS
void main() {
	uint block, column;
	vec4 sum;
	if (!block_sum(block, column, sum)) return;
	F32x4 row = F32x4(at(p.y, block, 16 * CHANNELS));
	row.v[column] = ADD_SUM ? row.v[column] + sum : sum;
}
#endif
#else
float term(uint item, uint row, uint column) {
	uint i = item * p.rows + row;
	if (present(p.skip) && U32(p.skip).v[i] != 0) return 0;
	if (X_DTYPE == DTYPE_F32) return F32(at(p.x, i, 4 * CHANNELS)).v[column];
	vec2 pair = unpack16(X_DTYPE, U32(at(p.x, i, 2 * CHANNELS)).v[column / 2]);
	return column % 2 == 0 ? pair.x : pair.y;
}

#ifndef FEW_ROWS
void main() {
	uint block, column;
	float sum;
	if (block_sum(block, column, sum)) store_sum(p.y, block, column, sum);
}
#endif
#endif

#ifdef FEW_ROWS
// item_sum adds the rows of an item: every 8th row, then the 8 sums in a tree.
SUM item_sum(uint item, uint column) {
	SUM sums[SUM_ROWS];
	[[unroll]] for (uint i = 0; i < SUM_ROWS; i++) sums[i] = SUM(0);
	for (uint row = 0; row < ROWS / SUM_ROWS * SUM_ROWS; row += SUM_ROWS)
		[[unroll]] for (uint i = 0; i < SUM_ROWS; i++) sums[i] += term(item, row + i, column);
	[[unroll]] for (uint i = 0; i < SUM_ROWS; i++)
		if (i < ROWS % SUM_ROWS) sums[i] += term(item, ROWS / SUM_ROWS * SUM_ROWS + i, column);
	return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// items_sum adds the sums of items first .. first + p.items - 1. Operands of the tree that do not exist are left out.
SUM items_sum(uint first, uint column) {
	SUM one = SUM(0), two = SUM(0), four = SUM(0), sum = SUM(0); // sums of so many items, which wait for as many more
	for (uint i = 0; i < p.items; i++) {
		sum = item_sum(first + i, column);
		if ((i & 1) == 0) {
			one = sum;
			continue;
		}
		sum = one + sum;
		if ((i & 2) == 0) {
			two = sum;
			continue;
		}
		sum = two + sum;
		if ((i & 4) == 0) four = sum;
		else sum = four + sum;
	}
	// After an odd number of items, or of pairs, sum is that of the last ones alone.
	if ((p.items & 1) != 0 && (p.items & 2) != 0) sum = two + sum;
	if ((p.items & 3) != 0 && (p.items & 4) != 0) sum = four + sum;
	return sum;
}

void main() {
	uint index = workgroup_index() * THREADS + gl_LocalInvocationID.x, row = index / CHANNELS, column = index % CHANNELS;
	if (row >= p.outputs) return;
	SUM sum = items_sum(row * p.items, column);
#ifdef VEC4
	F32x4 y = F32x4(at(p.y, row, 16 * CHANNELS));
#else
	F32 y = F32(at(p.y, row, 4 * CHANNELS));
#endif
	y.v[column] = ADD_SUM ? y.v[column] + sum : sum;
}
#endif
