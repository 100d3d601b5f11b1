#version 460
// Sorts selected pairs (key, index) by descending key, then by ascending index.
//
//	source [segments, slots] pairs    destination [segments, slots] pairs, or indices, valid, values [segments, k]
//
// A workgroup sorts SORT_CAPACITY pairs of a segment in shared memory. If a segment has more, select_merge merges the
// sorted runs.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint first = workgroup_index() % p.parts * SORT_CAPACITY, count = min(SORT_CAPACITY, p.slots - first), size = next_power_of_two(count);
	Segment s = segment(workgroup_index() / p.parts);
	U32x2 source = U32x2(at(p.source, s.id, p.slots * 8));
	for (uint i = thread(); i < size; i += THREADS) set_pair(i, i < count ? source.v[first + i] : empty_pair(first + i));
	barrier();
	sort_pairs(size);
	for (uint i = thread(); i < count; i += THREADS) put_pair(s, first + i, pair_at(i));
	if (present(p.destination)) return;
	for (uint slot = count + thread(); slot < p.k; slot += THREADS) put_pair(s, slot, empty_pair(slot));
}
