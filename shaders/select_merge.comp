#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// Merges neighbouring sorted runs of step pairs each into runs twice as long, or, at last, into the result.
//
//	from [segments, slots]    to [segments, slots], or indices, filled, values [segments, k]
//
// One thread a pair: its place is its place in its own run plus the number of pairs of the other run that come before it. No
// two pairs are equal. parts workgroups a segment; those past the pairs fill the empty slots of the result.

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint slot = workgroup_index() % p.parts * THREADS + thread();
	Segment s = segment(workgroup_index() / p.parts);
	if (slot >= p.slots) {
		if (!present(p.to) && slot < p.k) emit(s, slot, vacant(slot));
		return;
	}
	U32x2 from = U32x2(at(p.from, s.id, p.slots * 8));
	uvec2 pair = from.v[slot];
	uint run = slot / p.step, low = min((run ^ 1) * p.step, p.slots), high = min(low + p.step, p.slots), start = low;
	while (low < high) {
		uint middle = (low + high) / 2;
		if (before(from.v[middle], pair)) low = middle + 1;
		else high = middle;
	}
	put(s, (run & ~1u) * p.step + slot % p.step + low - start, pair);
}
