#version 450
// y[0] = s_rounds    s_0 = 1, s_{i+1} = (s_i * 1664525 + 1013904223) ^ (s_i >> 7)
//
// For the tests of package vk: one invocation that keeps the device busy for as long as they want.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#include "../../shaders/include/address.glsl"

layout(local_size_x = 1) in;

layout(push_constant, std430) uniform Push {
	uvec2 y;
	uint rounds;
} p;

void main() {
	uint s = 1;
	for (uint i = 0; i < p.rounds; i++) s = (s * 1664525u + 1013904223u) ^ (s >> 7);
	U32(p.y).v[0] = s;
}
