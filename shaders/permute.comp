#version 460
// Permute: reorders the axes of a tensor.
//
//	x, y: tensors of up to six axes    y[i_0, .., i_5] = x[sum_a i_a * stride_a]
//
// An invocation copies one element, a workgroup 256 consecutive elements of y, so writes are coalesced. Where the last
// axes of y are short, neighbouring reads share cache lines.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint AXES = 6, THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint count;        // elements, less than 2^31
	uint size[AXES];   // of the axes of y, the last one fastest
	uint stride[AXES]; // in x, in floats
} p;

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i >= p.count) return;
	uint rest = i, source = 0;
	[[unroll]] for (int a = int(AXES) - 1; a >= 0; a--) {
		source += rest % p.size[a] * p.stride[a];
		rest /= p.size[a];
	}
	F32(at(p.y, i, 4)).v[0] = F32(at(p.x, source, 4)).v[0];
}
