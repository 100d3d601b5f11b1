#version 460
// Backward of the exact GELU, x * Phi(x), with the normal distribution function Phi and density phi.
//
//	x, dy, dx [count]    y [count] optional    all of them f32, or with DTYPE all of 16 bits and of a multiple of 4 elements
//	dx[i] = dy[i] * (Phi(x[i]) + x[i] * phi(x[i]))    y[i] = x[i] * Phi(x[i])
//
// dx may be dy or x, and y may be x or dy. An invocation has 4 consecutive elements, a workgroup 1024; the last
// invocation may have fewer.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/gelu.glsl"
#include "include/pack16.glsl"

layout(constant_id = 0) const uint DTYPE = DTYPE_F32; // of all tensors
const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 x, dy, dx, y;
	uint quads; // whole groups of 4 elements
	uint rest;  // elements after them, 0 to 3
} p;

// weighted_density returns x * phi(x). It is 0 in float from 15 on, where the square could overflow.
vec4 weighted_density(vec4 x) {
	vec4 z = clamp(x, -15.0, 15.0);
	return z * (exp2(-0.72134752 * z * z) * 0.39894228);
}

vec4 slope(vec4 x) { return normal_cdf(x) + weighted_density(x); }

// load and store access group i of 4 elements.
vec4 load(uvec2 base, uint i) {
	if (DTYPE == DTYPE_F32) return F32x4(at(base, i, 16)).v[0];
	uvec2 words = U32x2(at(base, i, 8)).v[0];
	return vec4(unpack16(DTYPE, words.x), unpack16(DTYPE, words.y));
}

void store(uvec2 base, uint i, vec4 v) {
	if (DTYPE == DTYPE_F32) F32x4(at(base, i, 16)).v[0] = v;
	else U32x2(at(base, i, 8)).v[0] = uvec2(pack16(DTYPE, v.xy), pack16(DTYPE, v.zw));
}

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i < p.quads) {
		vec4 x = load(p.x, i);
		vec4 dx = load(p.dy, i) * slope(x);
		store(p.dx, i, dx);
		if (present(p.y)) store(p.y, i, x * normal_cdf(x));
	} else if (i == p.quads) {
		for (uint j = 0; j < p.rest; j++) {
			vec4 x = vec4(F32(at(p.x, i, 16)).v[j]);
			float dx = F32(at(p.dy, i, 16)).v[j] * slope(x).x;
			F32(at(p.dx, i, 16)).v[j] = dx;
			if (present(p.y)) F32(at(p.y, i, 16)).v[j] = (x * normal_cdf(x)).x;
		}
	}
}
