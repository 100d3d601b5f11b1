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
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(push_constant) uniform Push {
	uvec2 x, y, skip;
	uint rows, rows_per_block, blocks, all_blocks;
} p;

#ifdef VEC4
#define SUM vec4
#else
#define SUM float
#endif
#include "include/column_sum.glsl"
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

void main() {
	uint block, column;
	vec4 sum;
	if (!block_sum(block, column, sum)) return;
	F32x4 row = F32x4(at(p.y, block, 16 * CHANNELS));
	row.v[column] = ADD_SUM ? row.v[column] + sum : sum;
}
#else
float term(uint item, uint row, uint column) {
	uint i = item * p.rows + row;
	if (present(p.skip) && U32(p.skip).v[i] != 0) return 0;
	if (X_DTYPE == DTYPE_F32) return F32(at(p.x, i, 4 * CHANNELS)).v[column];
	vec2 pair = unpack16(X_DTYPE, U32(at(p.x, i, 2 * CHANNELS)).v[column / 2]);
	return column % 2 == 0 ? pair.x : pair.y;
}

void main() {
	uint block, column;
	float sum;
	if (block_sum(block, column, sum)) store_sum(p.y, block, column, sum);
}
#endif
