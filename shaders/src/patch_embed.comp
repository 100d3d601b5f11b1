#version 460
// Patch embedding input: images cut into patches, each normalised by LayerNorm.
//
//	x [B, C, H, W]    weight, bias [PH * PW * C]    y [B * H/PH * W/PW, PH * PW * C]
//	C = CHANNELS, H = HEIGHT, W = WIDTH, PH = PATCH_HEIGHT, PW = PATCH_WIDTH
//	y[patch, (i, j, c)] = (v - mean) / sqrt(var + 1e-5) * weight + bias    v = x[b, c, top + i, left + j]
//
// A workgroup computes ROWS_PER_WORKGROUP patches with INVOCATIONS_PER_ROW invocations each. The sums read a patch in the
// order of x and the result is written in the order of y, so both are coalesced; repeated reads hit the cache. The
// order of summation depends on the sizes of a patch only.
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
const uint LENGTH = PATCH_HEIGHT * PATCH_WIDTH * CHANNELS; // elements of a patch
const uint PATCHES_Y = HEIGHT / PATCH_HEIGHT, PATCHES_X = WIDTH / PATCH_WIDTH; // patches of an image

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, bias, y;
	uint rows; // B * PATCHES_Y * PATCHES_X
} p;

// chw_offset is the offset in x of element i of a patch from the patch's first element, i counted by channel, row,
// column.
uint chw_offset(uint i) { return (i / (PATCH_HEIGHT * PATCH_WIDTH) * HEIGHT + i / PATCH_WIDTH % PATCH_HEIGHT) * WIDTH + i % PATCH_WIDTH; }

// hwc_offset is the same for i counted by row, column, channel, the order of y.
uint hwc_offset(uint i) { return (i % CHANNELS * HEIGHT + i / (CHANNELS * PATCH_WIDTH)) * WIDTH + i / CHANNELS % PATCH_WIDTH; }

void main() {
	uint invocation = gl_LocalInvocationID.x;
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint length_ = inside ? LENGTH : 0; // invocations past the last row have no elements, but take part in the barriers
	uint patch_ = row % (PATCHES_Y * PATCHES_X);
	uint first = patch_ / PATCHES_X * PATCH_HEIGHT * WIDTH + patch_ % PATCHES_X * PATCH_WIDTH;
	F32 x = F32(at(at(p.x, row / (PATCHES_Y * PATCHES_X), 4 * CHANNELS * HEIGHT * WIDTH), first, 4)), y = F32(at(p.y, row, 4 * LENGTH));
	float sum = 0;
	for (uint i = invocation; i < length_; i += INVOCATIONS_PER_ROW) sum += x.v[chw_offset(i)];
	float near_mean = row_sum(vec2(sum, 0)).x / float(LENGTH);
	vec2 differences = vec2(0);
	for (uint i = invocation; i < length_; i += INVOCATIONS_PER_ROW) {
		float v = x.v[chw_offset(i)] - near_mean;
		differences += vec2(v, v * v);
	}
	Norm n = row_norm(near_mean, differences, float(LENGTH));
	F32 weight = F32(p.weight), bias = F32(p.bias);
	for (uint i = invocation; i < length_; i += INVOCATIONS_PER_ROW)
		y.v[i] = ((x.v[hwc_offset(i)] - n.near_mean) - n.correction) * n.inverse_deviation * weight.v[i] + bias.v[i];
}
