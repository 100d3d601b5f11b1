#version 460
// Selects the p.k largest entries of a short segment, in one dispatch.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    indices, valid, values [segments, k]
//
// A workgroup processes a segment. Histograms of three digits, in shared memory, find the k-th largest key; the entries
// above it, and the first of those equal to it, are written to the slots in the order of their indices. The segment is
// read up to five times, from the cache after the first: its keys would not fit registers without spilling. With SORTED
// the selected entries, at most SORT_CAPACITY, are then sorted in shared memory; of a segment of up to 1,024 entries
// all are sorted instead.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(constant_id = 3) const bool SORTED = false; // sort the selected entries by descending key
#define SORT_IN_SHARED SORTED
#include "include/address.glsl"
#include "include/select.glsl"
#include "include/select_segment.glsl"

void main() {
	if (workgroup_index() >= p.segments) return;
	select_segment(segment(workgroup_index()));
}
