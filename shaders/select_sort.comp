#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// Sorts chosen pairs (key, index) by falling key, then by rising index.
//
//	from [segments, slots]    to [segments, slots], or indices, filled, values [segments, k]
//
// One workgroup sorts SORT_CAPACITY pairs of one segment in shared memory. Where a segment has more, the runs are merged by select_merge.

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint first = workgroup_index() % p.parts * SORT_CAPACITY, count = min(SORT_CAPACITY, p.slots - first), size = power(count);
	Segment s = segment(workgroup_index() / p.parts);
	U32x2 from = U32x2(at(p.from, s.id, p.slots * 8));
	for (uint i = thread(); i < size; i += THREADS) set_slot(i, i < count ? from.v[first + i] : vacant(first + i));
	barrier();
	sort_slots(size);
	for (uint i = thread(); i < count; i += THREADS) put(s, first + i, slot_at(i));
	if (present(p.to)) return;
	for (uint slot = count + thread(); slot < p.k; slot += THREADS) put(s, slot, vacant(slot));
}
