#version 460
// Sum over items in a balanced binary tree, eight items at a time.
//
//	x [items, c] f32    y [ceil(items / 8), c] f32, may be the start of x where items <= 8
//	y[g] = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])), where x[i] is item 8 * g + i
//
// Operands that do not exist are left out: a sum with one operand is the operand. Dispatches over the rows of y
// complete the tree. An invocation computes one element of y, a workgroup 256 of a row.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint GROUP = 8, THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 x, y;
	uint items, c;
} p;

// pair returns a + b, or a if there is no b.
float pair(float a, float b, bool exists) { return exists ? a + b : a; }

void main() {
	uint workgroups_per_row = (p.c - 1) / THREADS + 1;
	uint group = workgroup_index() / workgroups_per_row;
	uint column = workgroup_index() % workgroups_per_row * THREADS + gl_LocalInvocationID.x;
	if (group > (p.items - 1) / GROUP || column >= p.c) return;
	uint count = min(p.items - group * GROUP, GROUP);
	// Items that do not exist repeat the last one. One loop for each level of the tree: NVIDIA's compiler of Mesa 26 keeps the
	// array in memory if the distance of operands is a variable.
	float v[GROUP];
	[[unroll]] for (uint i = 0; i < GROUP; i++) v[i] = F32(at(p.x, group * GROUP + min(i, count - 1), 4 * p.c)).v[column];
	[[unroll]] for (uint i = 0; i < GROUP / 2; i++) v[i] = pair(v[2 * i], v[2 * i + 1], 2 * i + 1 < count);
	[[unroll]] for (uint i = 0; i < GROUP / 4; i++) v[i] = pair(v[2 * i], v[2 * i + 1], 4 * i + 2 < count);
	F32(at(p.y, group, 4 * p.c)).v[column] = pair(v[0], v[1], GROUP / 2 < count);
}
