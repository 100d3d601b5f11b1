#version 460
// Gradients of the scores of routed_attention, which heads share:
//
//	parts [LISTS, SLOTS, ROUTES * HEADS] by head    scores [LISTS, ROUTES, SLOTS]: the sum over the heads of a route
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 128;
layout(local_size_x = 128) in;

layout(push_constant, std430) uniform Push {
	uvec2 parts, scores;
	uint count; // of all scores
	uint slots, routes;
	uint heads; // of a route
} p;

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationIndex;
	if (i >= p.count) return;
	uint list = i / p.slots / p.routes, route = i / p.slots % p.routes;
	F32 parts = F32(at(at(p.parts, list * p.slots + i % p.slots, 4 * p.heads * p.routes), route, 4 * p.heads));
	float sum = 0;
	for (uint head = 0; head < p.heads; head++) sum += parts.v[head];
	F32(p.scores).v[i] = sum;
}
