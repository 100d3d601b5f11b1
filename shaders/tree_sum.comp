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

void main() {
	uint workgroups_per_row = (p.c - 1) / THREADS + 1;
	uint group = workgroup_index() / workgroups_per_row;
	uint column = workgroup_index() % workgroups_per_row * THREADS + gl_LocalInvocationID.x;
	if (group > (p.items - 1) / GROUP || column >= p.c) return;
	uint count = min(p.items - group * GROUP, GROUP);
	float v[GROUP];
	[[unroll]] for (uint i = 0; i < GROUP; i++)
		if (i < count) v[i] = F32(at(p.x, group * GROUP + i, 4 * p.c)).v[column];
	[[unroll]] for (uint width = 1; width < GROUP; width *= 2)
		[[unroll]] for (uint i = 0; i < GROUP; i += 2 * width)
			if (i + width < count) v[i] += v[i + width];
	F32(at(p.y, group, 4 * p.c)).v[column] = v[0];
}
