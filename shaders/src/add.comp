#version 460
// Add: the sum of two tensors.
//
//	a, b, y [count] f32    y[i] = a[i] + b[i]
//
// y may be a or b. An invocation adds 4 consecutive elements, a workgroup 1024; the last invocation may have fewer.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 a, b, y;
	uint quads; // whole groups of 4 elements
	uint rest;  // elements after them, 0 to 3
} p;

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i < p.quads) {
		F32x4(at(p.y, i, 16)).v[0] = F32x4(at(p.a, i, 16)).v[0] + F32x4(at(p.b, i, 16)).v[0];
	} else if (i == p.quads) {
		for (uint j = 0; j < p.rest; j++) F32(at(p.y, i, 16)).v[j] = F32(at(p.a, i, 16)).v[j] + F32(at(p.b, i, 16)).v[j];
	}
}
