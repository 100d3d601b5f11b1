#version 450
// y[0] = s_{64 rounds}    s_0 = 1, s_{i+1} = (s_i * 1664525 + 1013904223) ^ (s_i >> 7)
//
// For the tests of package vk: one invocation that keeps the device busy. The loop is unrolled, because the CPU driver
// of Mesa 22.3 silently ends all loops of an invocation after 65,534 iterations in total.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#include "../../shaders/src/include/address.glsl"

layout(local_size_x = 1) in;

layout(push_constant, std430) uniform Push {
	uvec2 y;
	uint rounds;
} p;

#define STEP s = (s * 1664525u + 1013904223u) ^ (s >> 7);
#define STEP8 STEP STEP STEP STEP STEP STEP STEP STEP

void main() {
	uint s = 1;
	for (uint i = 0; i < p.rounds; i++) { STEP8 STEP8 STEP8 STEP8 STEP8 STEP8 STEP8 STEP8 }
	U32(p.y).v[0] = s;
}
