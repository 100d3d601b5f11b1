#version 450
// y[i] = words[WORDS - 1 - i mod WORDS], words being 0, 1, 2, ... in shared memory    y [LX] uint
//
// For the tests of package vk: specialization constants set the workgroup size and the shared memory. The macro WIDE
// adds 64-bit integers, which a device may not support.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#include "../../shaders/src/include/address.glsl"

layout(constant_id = 0) const uint LX = 32;
layout(constant_id = 1) const uint LY = 1;
layout(constant_id = 2) const uint LZ = 1;
layout(constant_id = 3) const uint WORDS = 32;
layout(local_size_x = 32, local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

layout(push_constant, std430) uniform Push { uvec2 y; } p;

shared uint words[WORDS];

void main() {
	for (uint i = gl_LocalInvocationIndex; i < WORDS; i += LX * LY * LZ) words[i] = i;
	barrier();
	if (gl_LocalInvocationID.y > 0 || gl_LocalInvocationID.z > 0) return;
	uint i = gl_LocalInvocationID.x, v = words[WORDS - 1 - i % WORDS];
#ifdef WIDE
	v = uint(uint64_t(v) * 0x100000001ul >> 32);
#endif
	U32(p.y).v[i] = v;
}
