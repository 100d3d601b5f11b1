#version 450
// Images cut into patches, each normalised like a row of layernorm.
//
//   x [B, CHANNELS, HEIGHT, WIDTH]    weight, bias [P1 * P2 * CHANNELS]    y [B * HEIGHT/P1 * WIDTH/P2, P1 * P2 * CHANNELS]
//   y[patch, (i, j, c)] = (v - mean) / sqrt(var + 1e-5) * weight + bias    v = x[b, c, top + i, left + j]
//
// A workgroup takes ROWS patches, LANES invocations a patch. The sums go over a patch in the order of the image and the result is
// written in the order of y, so that both sides are coalesced; what is read again comes from the caches. The order of summation
// depends on the sizes of a patch alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/row_norm.glsl"

layout(constant_id = 2) const uint CHANNELS = 1;
layout(constant_id = 3) const uint HEIGHT = 1;
layout(constant_id = 4) const uint WIDTH = 1;
layout(constant_id = 5) const uint P1 = 1;
layout(constant_id = 6) const uint P2 = 1;
const uint LENGTH = P1 * P2 * CHANNELS;
const uint DOWN = HEIGHT / P1, ACROSS = WIDTH / P2; // patches of an image

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, bias, y;
	uint rows; // B * DOWN * ACROSS
} p;

// planar is where element i of a patch lies behind its first one, counted as the image is: channel, row, column.
uint planar(uint i) { return (i / (P1 * P2) * HEIGHT + i / P2 % P1) * WIDTH + i % P2; }

// interleaved is the same for element i as y counts: row, column, channel.
uint interleaved(uint i) { return (i % CHANNELS * HEIGHT + i / (CHANNELS * P2)) * WIDTH + i / CHANNELS % P2; }

void main() {
	uint lane = gl_LocalInvocationID.x;
	uint row = workgroup() * ROWS + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint length_ = inside ? LENGTH : 0; // a row that is not there has no elements, but takes part in the barriers
	uint patch_ = row % (DOWN * ACROSS);
	uint first = patch_ / ACROSS * P1 * WIDTH + patch_ % ACROSS * P2;
	F32 x = F32(at(at(p.x, row / (DOWN * ACROSS), 4 * CHANNELS * HEIGHT * WIDTH), first, 4)), y = F32(at(p.y, row, 4 * LENGTH));
	float sum = 0;
	for (uint i = lane; i < length_; i += LANES) sum += x.v[planar(i)];
	float near = row_sum(vec2(sum, 0)).x / float(LENGTH);
	vec2 differences = vec2(0);
	for (uint i = lane; i < length_; i += LANES) {
		float v = x.v[planar(i)] - near;
		differences += vec2(v, v * v);
	}
	Norm n = row_norm(near, differences, float(LENGTH));
	F32 weight = F32(p.weight), bias = F32(p.bias);
	for (uint i = lane; i < length_; i += LANES)
		y.v[i] = ((x.v[interleaved(i)] - n.near) - n.rest) * n.factor * weight.v[i] + bias.v[i];
}
