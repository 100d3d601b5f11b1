#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// The chosen entries of long segments, in the order of their indices, once thresholds and counts are known (select_digit).
//
// One workgroup a part of a segment, as there. The counts of the parts before say where its slots begin.

// counted_before sums the counts of the parts before this one: x above the threshold, y equal to it.
uvec2 counted_before(uint part) {
	uvec2 sum = uvec2(0);
	for (uint i = thread(); i < part; i += THREADS) sum += U32x2(p.counts).v[workgroup_index() - part + i];
	return total(sum);
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts;
	Segment s = segment(workgroup_index() / p.parts);
	uvec4 now = U32x4(at(p.state, s.id, STATE_WORDS * 4)).v[3];
	uint begin = min(part * p.span, granules(s)), end = min(begin + p.span, granules(s));
	place(s, begin, end, now, counted_before(part), false);
	end = present(p.to) ? p.slots : p.k;
	for (uint slot = now.z + part * THREADS + thread(); slot < end; slot += p.parts * THREADS) put(s, slot, vacant(slot));
}
