#version 460
// Mean over tokens.
//
//   x [B, N, CHANNELS]    y [B, CHANNELS]:  y[b, c] = sum_i x[b, i, c] / N
//
// A workgroup makes 32 columns of an item: 8 rows of 32 threads each add every 8th token, in stretches of 32 whose sums are added on
// their own, so that the error of a long sum stays small; the eight sums end in a tree. The order depends on N alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint COLUMNS = 32, ROWS = 8, STRETCH = 32;
layout(local_size_x = 32, local_size_y = 8) in;
layout(constant_id = 0) const uint CHANNELS = 1; // elements in a row

layout(push_constant) uniform Push {
	uvec2 x, y;
	uint n;
	uint items;
} p;

shared float part[ROWS * COLUMNS];

float column_sum(uint item, uint column) {
	float sum = 0, stretch = 0;
	uint count = 0;
	for (uint i = gl_LocalInvocationID.y; i < p.n; i += ROWS) {
		stretch += F32(at(p.x, item * p.n + i, 4 * CHANNELS)).v[column];
		if (++count == STRETCH) {
			sum += stretch;
			stretch = 0;
			count = 0;
		}
	}
	return sum + stretch;
}

void main() {
	const uint across = (CHANNELS + COLUMNS - 1) / COLUMNS;
	uint item = workgroup() / across, column = workgroup() % across * COLUMNS + gl_LocalInvocationID.x;
	bool inside = item < p.items && column < CHANNELS;
	uint own = gl_LocalInvocationID.y * COLUMNS + gl_LocalInvocationID.x;
	part[own] = inside ? column_sum(item, column) : 0;
	for (uint rows = ROWS / 2; rows > 0; rows /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < rows) part[own] += part[own + rows * COLUMNS];
	}
	if (inside && gl_LocalInvocationID.y == 0) F32(at(p.y, item, 4 * CHANNELS)).v[column] = part[own] / float(p.n);
}
