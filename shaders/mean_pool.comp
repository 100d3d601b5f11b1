#version 460
// Mean over tokens.
//
//	x [B, N, C]    y [B, C]:  y[b, c] = sum_i x[b, i, c] / N
//
// A workgroup computes 32 columns of an item with 8 rows of 32 invocations. Each invocation adds every 8th token, in
// blocks of 32 whose sums are added separately to keep the rounding error of long sums small; the 8 sums are added in a
// tree. The order of summation depends on N only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(constant_id = 0) const uint CHANNELS = 1; // elements in a row
const uint COLUMNS = 32, ROWS = 8, BLOCK = 32;
layout(local_size_x = 32, local_size_y = 8) in;

layout(push_constant) uniform Push {
	uvec2 x, y;
	uint n;
	uint items;
} p;

shared float partial_sums[ROWS * COLUMNS];

float column_sum(uint item, uint column) {
	float sum = 0, block_sum = 0;
	uint count = 0;
	for (uint i = gl_LocalInvocationID.y; i < p.n; i += ROWS) {
		block_sum += F32(at(p.x, item * p.n + i, 4 * CHANNELS)).v[column];
		if (++count == BLOCK) {
			sum += block_sum;
			block_sum = 0;
			count = 0;
		}
	}
	return sum + block_sum;
}

void main() {
	const uint groups_per_item = (CHANNELS + COLUMNS - 1) / COLUMNS;
	uint item = workgroup_index() / groups_per_item;
	uint column = workgroup_index() % groups_per_item * COLUMNS + gl_LocalInvocationID.x;
	bool inside = item < p.items && column < CHANNELS;
	uint own = gl_LocalInvocationID.y * COLUMNS + gl_LocalInvocationID.x;
	partial_sums[own] = inside ? column_sum(item, column) : 0;
	for (uint rows = ROWS / 2; rows > 0; rows /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < rows) partial_sums[own] += partial_sums[own + rows * COLUMNS];
	}
	if (inside && gl_LocalInvocationID.y == 0) F32(at(p.y, item, 4 * CHANNELS)).v[column] = partial_sums[own] / float(p.n);
}
