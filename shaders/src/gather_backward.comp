#version 460
// Backward of Gather: the gradient of the scores. That of x is a Scatter that adds.
//
//	x [B, N, C] f32    indices [B, K] i32 optional    score [B, K] optional    valid [B, K] u32 optional
//	dy [B, K, C]    dscore [B, K]
//	dscore[b, k] (+)= x[b, indices[b, k]] . dy[b, k]; without indices the row is k. 0 for slots that Gather skips
//
// A workgroup computes ROWS_PER_WORKGROUP slots with INVOCATIONS_PER_ROW invocations each. Invocation i of a slot adds
// the products of elements i, i + INVOCATIONS_PER_ROW, ..., and the sums are added in a tree of fixed shape.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/row_norm.glsl"

layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 3) const bool ADD = false; // add to dscore

layout(push_constant, std430) uniform Push {
	uvec2 x, indices, score, valid, dy, dscore;
	uint n, k;
	uint slots; // B * K
} p;

void main() {
	uint slot = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y, index = 0;
	bool inside = slot < p.slots, exists = inside;
	if (inside) {
		index = present(p.indices) ? U32(p.indices).v[slot] : slot % p.k;
		if (index >= p.n) exists = false; // a negative index is at least 2^31
		if (present(p.score) && F32(p.score).v[slot] == 0) exists = false;
		if (present(p.valid) && U32(p.valid).v[slot] == 0) exists = false;
	}
	F32 x = F32(at(p.x, slot / p.k * p.n + index, 4 * CHANNELS)), dy = F32(at(p.dy, slot, 4 * CHANNELS));
	uint channels = exists ? CHANNELS : 0; // others take part in the barriers
	float sum = 0;
	for (uint i = gl_LocalInvocationID.x; i < channels; i += INVOCATIONS_PER_ROW) sum = fma(x.v[i], dy.v[i], sum);
	sum = row_sum(vec2(sum, 0)).x;
	if (!inside || gl_LocalInvocationID.x != 0) return;
	F32 dscore = F32(p.dscore);
	dscore.v[slot] = ADD ? dscore.v[slot] + sum : sum;
}
