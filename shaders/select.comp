#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(constant_id = 3) const bool SORTED = false; // sort the selected entries by falling key
#define INSIDE SORTED
#include "include/address.glsl"
#include "include/select.glsl"
#include "include/select_segment.glsl"

// The k largest entries of a short segment, in one dispatch.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    indices, filled, values [segments, k]
//
// One workgroup chooses for one segment. Three histograms in shared memory find the k-th largest key; the entries above it, and
// the first of those equal to it, go to the slots in the order of their indices. The segment is read up to five times, from caches after
// the first: its keys would not fit the registers without spilling. SORTED: what was chosen, at most SORT_CAPACITY, is then sorted in
// shared memory, or, where the segment is short, all of it.

void main() {
	if (workgroup_index() >= p.segments) return;
	alone(segment(workgroup_index()));
}
