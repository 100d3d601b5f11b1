#version 460
// Backward of the exact GELU, x * Phi(x), with the normal distribution function Phi and density phi.
//
//	x, dy, dx [count] f32    y [count] f32 optional
//	dx[i] = dy[i] * (Phi(x[i]) + x[i] * phi(x[i]))    y[i] = x[i] * Phi(x[i])
//
// dx may be dy or x, and y may be x or dy. An invocation has 4 consecutive elements, a workgroup 1024; the last
// invocation may have fewer.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/gelu.glsl"

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

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i < p.quads) {
		vec4 x = F32x4(at(p.x, i, 16)).v[0];
		vec4 dx = F32x4(at(p.dy, i, 16)).v[0] * slope(x);
		F32x4(at(p.dx, i, 16)).v[0] = dx;
		if (present(p.y)) F32x4(at(p.y, i, 16)).v[0] = x * normal_cdf(x);
	} else if (i == p.quads) {
		for (uint j = 0; j < p.rest; j++) {
			vec4 x = vec4(F32(at(p.x, i, 16)).v[j]);
			float dx = F32(at(p.dy, i, 16)).v[j] * slope(x).x;
			F32(at(p.dx, i, 16)).v[j] = dx;
			if (present(p.y)) F32(at(p.y, i, 16)).v[j] = (x * normal_cdf(x)).x;
		}
	}
}
