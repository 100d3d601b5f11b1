#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#include "include/address.glsl"
#include "include/select.glsl"

// The k largest entries of a short segment, in one dispatch.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    indices, filled, values [rows, blocks, k]
//
// One workgroup chooses for one segment, with its keys in registers (at most GRANULES * THREADS granules). Three histograms in
// shared memory find the k-th largest key; the entries above it, and the first of those equal to it, go to the slots in the order
// of their indices. step 1: at most SLOTS of them are sorted in shared memory. step 0: they stay in this order.

void main() {
	if (workgroup() >= p.segments) return;
	Segment s = segment(workgroup());
	uvec4 key[GRANULES];
	[[unroll]] for (uint i = 0; i < GRANULES; i++) key[i] = keys(s, i * THREADS + thread());

	uvec4 now = search_start();
	for (uint digit = 0; digit < 3 && now.y != 0; digit++) {
		clear_histogram(digit_bins(digit));
		[[unroll]] for (uint i = 0; i < GRANULES; i++) tally(key[i], digit, now.x);
		barrier();
		now = narrow(now, digit, uvec2(0));
	}

	uint count[GRANULES];
	[[unroll]] for (uint i = 0; i < GRANULES; i++) count[i] = kinds(key[i], now.x);
	rank_kinds(count);
	[[unroll]] for (uint i = 0; i < GRANULES; i++) {
		uint e = entry(s, i * THREADS + thread());
		[[unroll]] for (uint c = 0; c < 4; c++) {
			uint equal = count[i] >> 16, slot = (count[i] & 0xffffu) + min(equal, now.y);
			if (key[i][c] > now.x || key[i][c] == now.x && equal < now.y) {
				if (p.step == 1) {
					words[slot] = key[i][c];
					words[SLOTS + slot] = e + c;
				} else {
					put(s, slot, uvec2(key[i][c], e + c));
				}
			}
			count[i] += kind(key[i][c], now.x);
		}
	}

	if (p.step != 1) {
		uint end = present(p.to) ? p.slots : p.k;
		for (uint slot = now.z + thread(); slot < end; slot += THREADS) put(s, slot, vacant(slot));
		return;
	}
	uint size = power(p.slots);
	for (uint slot = now.z + thread(); slot < size; slot += THREADS) {
		words[slot] = 0;
		words[SLOTS + slot] = ~slot;
	}
	barrier();
	sort_slots(size);
	for (uint slot = thread(); slot < p.k; slot += THREADS)
		emit(s, slot, slot < p.slots ? uvec2(words[slot], words[SLOTS + slot]) : vacant(slot));
}
