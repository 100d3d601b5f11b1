#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#define INSIDE (p.step == 1)
#include "include/address.glsl"
#include "include/select.glsl"

// The k largest entries of a short segment, in one dispatch.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    indices, filled, values [rows, blocks, k]
//
// One workgroup chooses for one segment. Three histograms in shared memory find the k-th largest key; the entries above it, and
// the first of those equal to it, go to the slots in the order of their indices. The segment is read five times, from caches after
// the first: its keys would not fit the registers without spilling. step 1: what was chosen, at most SLOTS, is sorted in shared
// memory. step 0: it stays in this order.

const uint GRANULES = 4; // on their way at a time

void histogram(Segment s, uint digit, uint threshold) {
	clear_histogram(digit_bins(digit));
	for (uint g = thread(); g < granules(s) + thread(); g += GRANULES * THREADS) {
		uvec4 key[GRANULES];
		[[unroll]] for (uint i = 0; i < GRANULES; i++) key[i] = keys(s, g + i * THREADS);
		[[unroll]] for (uint i = 0; i < GRANULES; i++) tally(key[i], digit, threshold);
	}
	barrier();
}

void main() {
	if (workgroup() >= p.segments) return;
	Segment s = segment(workgroup());
	uvec4 now = search_start();
	for (uint digit = 0; digit < 3 && now.y != 0; digit++) {
		histogram(s, digit, now.x);
		now = narrow(now, digit, uvec2(0));
	}
	place(s, 0, granules(s), now, uvec2(0));
	if (!INSIDE) {
		uint end = present(p.to) ? p.slots : p.k;
		for (uint slot = now.z + thread(); slot < end; slot += THREADS) put(s, slot, vacant(slot));
		return;
	}
	uint size = power(p.slots);
	for (uint slot = now.z + thread(); slot < size; slot += THREADS) put(s, slot, vacant(slot));
	barrier();
	sort_slots(size);
	for (uint slot = thread(); slot < p.k; slot += THREADS)
		emit(s, slot, slot < p.slots ? uvec2(words[slot], words[SLOTS + slot]) : vacant(slot));
}
