#version 460
// A step of AdamW, over parameters in memory of their own, whose gradients and moments are flat tensors.
//
//	p [..] f32 in and out, of each parameter    g, m, v [..] f32, those of all parameters, m and v in and out
//	table [workgroups] of 4 words    state [16] words, see include/optimizer_state.glsl
//
//	g' = g * factor              m' = m + (1 - beta1) * (g' - m)    v' = v + (1 - beta2) * (g'^2 - v)
//	p' = p - rate * decay * p - step_size * m' / (sqrt(v' * inverse) + eps)
//
// Gradients beyond +-MAX_GRADIENT count as that, so that squares do not overflow: an infinite v would stay infinite. If the
// state says skip, nothing is written. A workgroup has up to 1024 elements of one parameter, an invocation 4 consecutive ones,
// the last invocation perhaps fewer. The workgroup's row of the table: the address of its elements of p, the place of those
// of g, m and v in groups of 4 elements, and their count times 2, plus 1 if they decay.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/optimizer_state.glsl"

const uint THREADS = 256;
const float MAX_GRADIENT = 1e18;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 table, g, m, v, state;
	uint workgroups;
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
	uint workgroup = workgroup_index();
	if (workgroup >= p.workgroups || U32(p.state).v[STATE_SKIP] != 0) return;
	uvec4 row = U32x4(at(p.table, workgroup, 16)).v[0];
	uint count = row.w / 2, i = gl_LocalInvocationID.x, quad = row.z + i;
	float decay = row.w % 2 == 1 ? F32(p.state).v[STATE_RATE] * p.decay : 0;
	uvec2 xs = at(row.xy, i, 16), ms = at(p.m, quad, 16), vs = at(p.v, quad, 16), gs = at(p.g, quad, 16);
	if (i < count / 4) {
		vec4 x = F32x4(xs).v[0], m = F32x4(ms).v[0], v = F32x4(vs).v[0];
		update(x, F32x4(gs).v[0], m, v, decay);
		F32x4(xs).v[0] = x;
		F32x4(ms).v[0] = m;
		F32x4(vs).v[0] = v;
	} else if (i == count / 4) {
		for (uint j = 0; j < count % 4; j++) {
			vec4 x = vec4(F32(xs).v[j]), m = vec4(F32(ms).v[j]), v = vec4(F32(vs).v[j]);
			update(x, vec4(F32(gs).v[j]), m, v, decay);
			F32(xs).v[j] = x.x;
			F32(ms).v[j] = m.x;
			F32(vs).v[j] = v.x;
		}
	}
}
