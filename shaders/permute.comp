#version 460
// Permute: a tensor with its axes in another order.
//
//   x, y: tensors of up to six axes    y[i0, .., i5] = x[sum_a i_a * stride_a]
//
// A thread copies one element of y: writes are coalesced, and where an axis of y is short, reads share lines that the cache keeps.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint AXES = 6, THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint count;         // elements, less than 2^31
	uint size[AXES];    // of y's axes, the last one fastest
	uint stride[AXES];  // of x, in floats
} p;

void main() {
	uint i = workgroup() * THREADS + gl_LocalInvocationID.x;
	if (i >= p.count) return;
	uint rest = i, from = 0;
	[[unroll]] for (int a = int(AXES) - 1; a >= 0; a--) {
		from += rest % p.size[a] * p.stride[a];
		rest /= p.size[a];
	}
	F32(at(p.y, i, 4)).v[0] = F32(at(p.x, from, 4)).v[0];
}
