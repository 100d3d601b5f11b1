#version 460
// Sums over the rows of a matrix, by blocks of rows.
//
//	x [rows, C] f32    y [blocks, C] f32    y[b] (+)= sum of rows b * rows_per_block .. of x, rows_per_block of them
//
// A second dispatch, over the rows of y, adds the blocks. ADD adds to y. A workgroup computes 32 columns of a block with 8
// rows of 32 invocations. Each invocation adds every 8th row, in runs of 32 whose sums are added separately to keep the
// rounding error of long sums small; the 8 sums are added in a tree. The order of summation depends on the number of
// rows only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(constant_id = 0) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 1) const bool ADD = false; // add to y
const uint COLUMNS = 32, ROWS = 8, RUN = 32;
layout(local_size_x = 32, local_size_y = 8) in;

layout(push_constant) uniform Push {
	uvec2 x, y;
	uint rows, rows_per_block, blocks;
} p;

shared float partial_sums[ROWS * COLUMNS];

// run_sums returns the sum of an invocation's rows of first .. end - 1.
float run_sums(uint first, uint end, uint column) {
	float sum = 0, run_sum = 0;
	uint count = 0;
	for (uint i = first + gl_LocalInvocationID.y; i < end; i += ROWS) {
		run_sum += F32(at(p.x, i, 4 * CHANNELS)).v[column];
		if (++count == RUN) {
			sum += run_sum;
			run_sum = 0;
			count = 0;
		}
	}
	return sum + run_sum;
}

void main() {
	const uint groups_per_block = (CHANNELS + COLUMNS - 1) / COLUMNS;
	uint block = workgroup_index() / groups_per_block;
	uint column = workgroup_index() % groups_per_block * COLUMNS + gl_LocalInvocationID.x;
	bool inside = block < p.blocks && column < CHANNELS;
	uint own = gl_LocalInvocationID.y * COLUMNS + gl_LocalInvocationID.x, first = block * p.rows_per_block;
	partial_sums[own] = inside ? run_sums(first, first + min(p.rows_per_block, p.rows - first), column) : 0;
	for (uint rows = ROWS / 2; rows > 0; rows /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < rows) partial_sums[own] += partial_sums[own + rows * COLUMNS];
	}
	if (!inside || gl_LocalInvocationID.y != 0) return;
	F32 y = F32(at(p.y, block, 4 * CHANNELS));
	float sum = partial_sums[own];
	y.v[column] = ADD ? y.v[column] + sum : sum;
}
