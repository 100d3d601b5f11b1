#version 460
// Merges neighbouring sorted runs of p.parameter pairs into runs twice as long; the last merge writes the result.
//
//	source [segments, slots] pairs    destination [segments, slots] pairs, or indices, valid, values [segments, k]
//
// An invocation moves one pair: its new position is its position in its own run plus the number of pairs of the other
// run that precede it (binary search). No two pairs are equal. A segment has p.parts workgroups; those past the pairs
// fill the empty slots of the result.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint slot = workgroup_index() % p.parts * THREADS + thread();
	Segment s = segment(workgroup_index() / p.parts);
	if (slot >= p.slots) {
		if (!present(p.destination) && slot < p.k) write_slot(s, slot, empty_pair(slot));
		return;
	}
	U32x2 source = U32x2(at(p.source, s.id, p.slots * 8));
	uvec2 pair = source.v[slot];
	uint run = slot / p.parameter, low = min((run ^ 1) * p.parameter, p.slots), high = min(low + p.parameter, p.slots), start = low;
	while (low < high) {
		uint middle = (low + high) / 2;
		if (precedes(source.v[middle], pair)) low = middle + 1;
		else high = middle;
	}
	put_pair(s, (run & ~1u) * p.parameter + slot % p.parameter + low - start, pair);
}
