#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// Gathers the entries of long segments above the threshold of select_sample, and counts them and those equal to it.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    state [segments]: x the threshold, y entries above it, z equal to it
//	counts [segments, parts]: equal ones    to [segments, list] pairs, in any order; what does not fit is only counted
//
// One workgroup a part of p.span granules, GRANULES a thread.

const uint GRANULES = 2; // select.go knows it

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	Segment s = segment(workgroup_index() / p.parts);
	uint begin = workgroup_index() % p.parts * p.span + thread();
	Raw next[GRANULES];
	[[unroll]] for (uint i = 0; i < GRANULES; i++) next[i] = raw(s, begin + i * THREADS);
	uvec4 key[GRANULES];
	[[unroll]] for (uint i = 0; i < GRANULES; i++) key[i] = keys(s, begin + i * THREADS, next[i]);
	U32 state = U32(at(p.state, s.id, 32));
	uint threshold = state.v[0], both = 0;
	[[unroll]] for (uint i = 0; i < GRANULES; i++) both += kinds(key[i], threshold);
	if (threshold == 0) both &= 0xffffu; // what is equal is not there
	uint inclusive = subgroupInclusiveAdd(both);
	if (last_lane()) totals[gl_SubgroupID] = unpack(inclusive);
	barrier();
	uvec2 done = earlier() + unpack(inclusive);
	if (thread() == THREADS - 1) { // done are those of the whole part
		found.x = done.x == 0 ? 0 : atomicAdd(state.v[1], done.x);
		if (done.y != 0) atomicAdd(state.v[2], done.y);
		U32(p.counts).v[workgroup_index()] = done.y;
	}
	barrier();
	uint slot = found.x + done.x - unpack(both).x;
	U32x2 list = U32x2(at(p.to, s.id, p.list * 8));
	[[unroll]] for (uint i = 0; i < GRANULES; i++) {
		uint e = entry(s, begin + i * THREADS);
		[[unroll]] for (uint c = 0; c < 4; c++) {
			if (key[i][c] <= threshold) continue;
			if (slot < p.list) list.v[slot] = uvec2(key[i][c], e + c);
			slot++;
		}
	}
}
