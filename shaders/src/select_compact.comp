#version 460
// Writes the selected entries of long segments in the order of their indices, after select_digit has found thresholds
// and counts.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    state, counts: from select_digit
//	destination [segments, slots] pairs, or indices, valid, values [segments, k]
//
// A workgroup processes a part of a segment, as in select_digit. The counts of the parts before it give its first slot.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// counts_before returns the counts of the parts before this one: x above the threshold, y equal to it.
uvec2 counts_before(uint part) {
	uvec2 sum = uvec2(0);
	for (uint i = thread(); i < part; i += THREADS) sum += U32x2(p.counts).v[workgroup_index() - part + i];
	return workgroup_sum(sum);
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts;
	Segment s = segment(workgroup_index() / p.parts);
	uvec4 state = U32x4(at(p.state, s.id, STATE_WORDS * 4)).v[3];
	uint begin = min(part * p.span, chunk_count(s)), end = min(begin + p.span, chunk_count(s));
	put_selected(s, begin, end, state, counts_before(part), false);
	end = present(p.destination) ? p.slots : p.k;
	for (uint slot = state.z + part * THREADS + thread(); slot < end; slot += p.parts * THREADS) put_pair(s, slot, empty_pair(slot));
}
