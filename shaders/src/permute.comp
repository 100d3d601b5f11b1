#version 460
// Permute: reorders the axes of a tensor.
//
//	x, y: tensors of up to six axes    y[i_0, .., i_5] = x[sum_a i_a * stride_a]
//
// An invocation copies one element, or with BYTES four, a workgroup 256 consecutive words of y, so writes are coalesced.
// Where the last axes of y are short, neighbouring reads share cache lines. With BYTES the last word of y is padded
// with 0.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint AXES = 6, THREADS = 256;
layout(local_size_x = 256) in;
layout(constant_id = 0) const bool BYTES = false; // elements are bytes, not floats
layout(constant_id = 1) const bool TRUTH = false; // only with BYTES: elements of y are 1 where those of x are not 0

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint count;        // elements, less than 2^31
	uint size[AXES];   // of the axes of y, the last one fastest
	uint stride[AXES]; // in x, in elements
} p;

// source_of returns the element of x that element i of y is a copy of.
uint source_of(uint i) {
	uint rest = i, source = 0;
	[[unroll]] for (int a = int(AXES) - 1; a >= 0; a--) {
		source += rest % p.size[a] * p.stride[a];
		rest /= p.size[a];
	}
	return source;
}

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (BYTES) {
		if (4 * i >= p.count) return;
		uint word = 0;
		for (uint e = 0; e < 4 && 4 * i + e < p.count; e++) {
			uint element = byte_at(p.x, source_of(4 * i + e));
			word |= (TRUTH ? min(element, 1) : element) << (8 * e);
		}
		U32(at(p.y, i, 4)).v[0] = word;
		return;
	}
	if (i >= p.count) return;
	F32(at(p.y, i, 4)).v[0] = F32(at(p.x, source_of(i), 4)).v[0];
}
