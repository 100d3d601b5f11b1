#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#include "include/address.glsl"
#include "include/select.glsl"

// The chosen entries of long segments, in the order of their indices, once thresholds and counts are known (select_digit).
//
// One workgroup a part of a segment, as there. The counts of the parts before say where its slots begin.

// counted_before sums the counts of the parts before this one: x above the threshold, y equal to it.
uvec2 counted_before(uint part) {
	uvec2 sum = uvec2(0);
	for (uint i = thread(); i < part; i += THREADS) sum += U32x2(p.counts).v[workgroup() - part + i];
	return total(sum);
}

void main() {
	if (workgroup() >= p.segments * p.parts) return;
	uint part = workgroup() % p.parts;
	Segment s = segment(workgroup() / p.parts);
	uvec4 now = U32x4(at(p.state, s.id, STATE_WORDS * 4)).v[3];
	uvec2 done = counted_before(part);
	for (uint t = 0; t < p.tiles; t++) {
		uint granule = (part * p.tiles + t) * GRANULES * THREADS + thread();
		uvec4 key[GRANULES];
		uint count[GRANULES];
		[[unroll]] for (uint i = 0; i < GRANULES; i++) {
			key[i] = keys(s, granule + i * THREADS);
			count[i] = kinds(key[i], now.x);
		}
		uint all = rank_kinds(count);
		[[unroll]] for (uint i = 0; i < GRANULES; i++) {
			uint e = entry(s, granule + i * THREADS);
			uvec2 rank = done + uvec2(count[i] & 0xffffu, count[i] >> 16);
			[[unroll]] for (uint c = 0; c < 4; c++) {
				bool above = key[i][c] > now.x, equal = key[i][c] == now.x;
				if (above || equal && rank.y < now.y) put(s, rank.x + min(rank.y, now.y), uvec2(key[i][c], e + c));
				rank += uvec2(above, equal);
			}
		}
		done += uvec2(all & 0xffffu, all >> 16);
	}
	uint end = present(p.to) ? p.slots : p.k;
	for (uint slot = now.z + part * THREADS + thread(); slot < end; slot += p.parts * THREADS) put(s, slot, vacant(slot));
}
