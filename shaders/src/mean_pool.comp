#version 460
// Mean over tokens, or over the tokens that a mask keeps.
//
//	x [B, N, C]    mask [B, N] u8, with MASKED    y [B, C]
//	y[b, c] = sum_i x[b, i, c] / N;  MASKED: the sum and the count of tokens with a mask other than 0, and 0 for none
//
// A workgroup computes 32 columns of an item with 8 rows of 32 invocations. Each invocation adds every 8th token, in
// blocks of 32 whose sums are added separately to keep the rounding error of long sums small; the 8 sums are added in a
// tree. The order of summation depends on N only. Tokens that the mask leaves out are not read: they may hold NaN.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(constant_id = 0) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 1) const bool MASKED = false; // a mask is given
const uint COLUMNS = 32, ROWS = 8, BLOCK = 32;
layout(local_size_x = 32, local_size_y = 8) in;

layout(push_constant) uniform Push {
	uvec2 x, y, mask;
	uint n;
	uint items;
} p;

shared float partial_sums[ROWS * COLUMNS];
shared uint partial_tokens[MASKED ? ROWS * COLUMNS : 1];

float column_sum(uint item, uint column, out uint tokens) {
	float sum = 0, block_sum = 0;
	uint count = 0;
	tokens = 0;
	for (uint i = gl_LocalInvocationID.y; i < p.n; i += ROWS) {
		if (!MASKED || byte_at(p.mask, item * p.n + i) != 0) {
			block_sum += F32(at(p.x, item * p.n + i, 4 * CHANNELS)).v[column];
			tokens++;
		}
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
	uint tokens = 0;
	partial_sums[own] = inside ? column_sum(item, column, tokens) : 0;
	if (MASKED) partial_tokens[own] = tokens;
	for (uint rows = ROWS / 2; rows > 0; rows /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < rows) {
			partial_sums[own] += partial_sums[own + rows * COLUMNS];
			if (MASKED) partial_tokens[own] += partial_tokens[own + rows * COLUMNS];
		}
	}
	if (!inside || gl_LocalInvocationID.y != 0) return;
	uint divisor = MASKED ? max(partial_tokens[own], 1) : p.n;
	F32(at(p.y, item, 4 * CHANNELS)).v[column] = partial_sums[own] / float(divisor);
}
