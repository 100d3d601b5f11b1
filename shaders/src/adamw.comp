#version 460
// A step of AdamW, over flat tensors.
//
//	p, m, v [count] f32 in and out    g [count] f32    state [16] words, see include/optimizer_state.glsl
//
//	g' = g * factor              m' = m + (1 - beta1) * (g' - m)    v' = v + (1 - beta2) * (g'^2 - v)
//	p' = p - rate * decay * p - step_size * m' / (sqrt(v' * inverse) + eps)
//
// Gradients beyond +-MAX_GRADIENT count as that, so that squares do not overflow: an infinite v would stay infinite.
// Only the first decayed groups of 4 elements decay. If the state says skip, nothing is written. An invocation has 4
// consecutive elements, a workgroup 1024; the last invocation may have fewer.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/optimizer_state.glsl"

const uint THREADS = 256;
const float MAX_GRADIENT = 1e18;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 p, g, m, v, state;
	uint quads;   // whole groups of 4 elements
	uint rest;    // elements after them, 0 to 3
	uint decayed; // groups of 4 elements that decay, the last of them perhaps with fewer
	float rest_of_beta1, rest_of_beta2; // 1 - beta, rounded from the difference
	float eps, decay;
} p;

// update computes the new elements from the old ones.
void update(inout vec4 x, vec4 g, inout vec4 m, inout vec4 v, float decay) {
	F32 state = F32(p.state);
	g = clamp(g * state.v[STATE_FACTOR], -MAX_GRADIENT, MAX_GRADIENT);
	m += p.rest_of_beta1 * (g - m);
	v += p.rest_of_beta2 * (g * g - v);
	x -= decay * x;
	x -= state.v[STATE_STEP_SIZE] * m / (sqrt(v * state.v[STATE_INVERSE]) + p.eps);
}

void main() {
	if (U32(p.state).v[STATE_SKIP] != 0) return;
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	float decay = i < p.decayed ? F32(p.state).v[STATE_RATE] * p.decay : 0;
	uvec2 xs = at(p.p, i, 16), ms = at(p.m, i, 16), vs = at(p.v, i, 16), gs = at(p.g, i, 16);
	if (i < p.quads) {
		vec4 x = F32x4(xs).v[0], m = F32x4(ms).v[0], v = F32x4(vs).v[0];
		update(x, F32x4(gs).v[0], m, v, decay);
		F32x4(xs).v[0] = x;
		F32x4(ms).v[0] = m;
		F32x4(vs).v[0] = v;
	} else if (i == p.quads) {
		for (uint j = 0; j < p.rest; j++) {
			vec4 x = vec4(F32(xs).v[j]), m = vec4(F32(ms).v[j]), v = vec4(F32(vs).v[j]);
			update(x, vec4(F32(gs).v[j]), m, v, decay);
			F32(xs).v[j] = x.x;
			F32(ms).v[j] = m.x;
			F32(vs).v[j] = v.x;
		}
	}
}
