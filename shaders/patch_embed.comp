#version 450
// Images cut into patches, each normalised like a row of layernorm.
//
//   x [B, CHANNELS, HEIGHT, WIDTH]    weight, bias [PATCH_HEIGHT * PATCH_WIDTH * CHANNELS]    y [B * HEIGHT/PATCH_HEIGHT * WIDTH/PATCH_WIDTH, PATCH_HEIGHT * PATCH_WIDTH * CHANNELS]
//   y[patch, (i, j, c)] = (v - mean) / sqrt(var + 1e-5) * weight + bias    v = x[b, c, top + i, left + j]
//
// A workgroup takes ROWS_PER_WORKGROUP patches, LANES_PER_ROW invocations a patch. The sums go over a patch in the order of the image and the result is
// written in the order of y, so that both sides are coalesced; what is read again comes from the caches. The order of summation
// depends on the sizes of a patch alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/row_norm.glsl"

layout(constant_id = 2) const uint CHANNELS = 1; // channels of an image
layout(constant_id = 3) const uint HEIGHT = 1; // rows of an image
layout(constant_id = 4) const uint WIDTH = 1; // columns of an image
layout(constant_id = 5) const uint PATCH_HEIGHT = 1; // rows of a patch
layout(constant_id = 6) const uint PATCH_WIDTH = 1; // columns of a patch
const uint LENGTH = PATCH_HEIGHT * PATCH_WIDTH * CHANNELS;
const uint DOWN = HEIGHT / PATCH_HEIGHT, ACROSS = WIDTH / PATCH_WIDTH; // patches of an image

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, bias, y;
	uint rows; // B * DOWN * ACROSS
} p;

// planar is where element i of a patch lies behind its first one, counted as the image is: channel, row, column.
uint planar(uint i) { return (i / (PATCH_HEIGHT * PATCH_WIDTH) * HEIGHT + i / PATCH_WIDTH % PATCH_HEIGHT) * WIDTH + i % PATCH_WIDTH; }

// interleaved is the same for element i as y counts: row, column, channel.
uint interleaved(uint i) { return (i % CHANNELS * HEIGHT + i / (CHANNELS * PATCH_WIDTH)) * WIDTH + i / CHANNELS % PATCH_WIDTH; }

void main() {
	uint lane = gl_LocalInvocationID.x;
	uint row = workgroup() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint length_ = inside ? LENGTH : 0; // a row that is not there has no elements, but takes part in the barriers
	uint patch_ = row % (DOWN * ACROSS);
	uint first = patch_ / ACROSS * PATCH_HEIGHT * WIDTH + patch_ % ACROSS * PATCH_WIDTH;
	F32 x = F32(at(at(p.x, row / (DOWN * ACROSS), 4 * CHANNELS * HEIGHT * WIDTH), first, 4)), y = F32(at(p.y, row, 4 * LENGTH));
	float sum = 0;
	for (uint i = lane; i < length_; i += LANES_PER_ROW) sum += x.v[planar(i)];
	float near = row_sum(vec2(sum, 0)).x / float(LENGTH);
	vec2 differences = vec2(0);
	for (uint i = lane; i < length_; i += LANES_PER_ROW) {
		float v = x.v[planar(i)] - near;
		differences += vec2(v, v * v);
	}
	Norm n = row_norm(near, differences, float(LENGTH));
	F32 weight = F32(p.weight), bias = F32(p.bias);
	for (uint i = lane; i < length_; i += LANES_PER_ROW)
		y.v[i] = ((x.v[interleaved(i)] - n.near) - n.rest) * n.factor * weight.v[i] + bias.v[i];
}
