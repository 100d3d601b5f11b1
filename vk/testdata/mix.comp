#version 450
// y[i] = a[i] * mul + b[i] + i + ADD    a (absent: zeros), b, y [n] uint
//
// For the tests of package vk: exact integer arithmetic, so any wrong order of steps changes the result. An invocation
// computes one element.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#include "../../shaders/src/include/address.glsl"

layout(constant_id = 0) const uint WIDTH = 64;
layout(constant_id = 1) const uint ADD = 0;
layout(local_size_x = 64, local_size_x_id = 0) in; // without the 64 the default is 1, not WIDTH

layout(push_constant, std430) uniform Push {
	uvec2 a, b, y;
	uint n, mul;
} p;

void main() {
	uint i = workgroup() * WIDTH + gl_LocalInvocationID.x;
	if (i >= p.n) return;
	uint a = present(p.a) ? U32(p.a).v[i] : 0;
	U32(p.y).v[i] = a * p.mul + U32(p.b).v[i] + i + ADD;
}
