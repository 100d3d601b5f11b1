#version 460
// Writes the p.k largest entries of long segments in order. p.parameter is the number of parts of select_gather: the
// entries are written by descending key, from its candidates. p.parameter = 0: in the order of their indices, from pairs
// that are selected already.
//
//	source [segments, max_candidates] pairs    logits, mask, counts: as in select_gather
//	state [segments]: 2 uvec4, the first from select_gather; the second is written: x the number of selected entries
//	destination [segments, slots] pairs, or indices, valid, values [segments, k]
//
// The slot of a pair is the number of pairs that precede it. No two pairs are equal, so the order of the candidates
// does not matter. A workgroup ranks PAIRS_PER_PASS pairs at a time; THREADS / PAIRS_PER_PASS invocations per pair each
// compare it with a share of all pairs.
//
// With p.parameter > 0 the threshold decides what is selected:
//
//	At least k entries are above it, and all of them are candidates: the first k candidates.
//	Fewer are, but k (or all that exist) are above or equal to it: the candidates, then the first of the equal entries,
//	which are found part by part.
//	Otherwise the sampled threshold was wrong, which only adversarial data causes: the first workgroup selects them itself, as
//	in select.comp.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
bool sort_in_shared = false;
#define SORT_IN_SHARED sort_in_shared
#include "include/address.glsl"
#include "include/select.glsl"
#include "include/select_segment.glsl"

layout(constant_id = 3) const uint PAIRS_PER_PASS = 16; // pairs that a workgroup ranks at a time: divides THREADS

shared uint ranks[PAIRS_PER_PASS];

uvec2 load(U32x2 source, uint i) {
	uvec2 pair = source.v[i];
	return p.parameter != 0 ? pair : uvec2(~pair.y, pair.y);
}

void rank_pairs(Segment s, uint part, uint count) {
	U32x2 source = U32x2(at(p.source, s.id, p.max_candidates * 8));
	uint own = thread() % PAIRS_PER_PASS, share = thread() / PAIRS_PER_PASS, shares = THREADS / PAIRS_PER_PASS;
	for (uint first = part * PAIRS_PER_PASS; first < count; first += p.parts * PAIRS_PER_PASS) {
		uvec2 pair = first + own < count ? load(source, first + own) : uvec2(0);
		uint preceding = 0;
		if (share == 0) ranks[own] = 0;
		for (uint done = 0; done < count; done += SORT_CAPACITY) {
			uint size = min(SORT_CAPACITY, count - done), padded_size = (size + 3) & ~3u;
			for (uint i = thread(); i < padded_size; i += THREADS) {
				uvec2 other = i < size ? load(source, done + i) : empty_pair(0);
				shared_words[i] = other.x;
				shared_words[SORT_CAPACITY + i] = other.y;
			}
			barrier();
			uint equal_keys = 0;
			for (uint i = 4 * share; i < size; i += 4 * shares) {
				// Not from i to i + 4: Mesa's compilers searched the iteration count of that loop for 5 s.
				[[unroll]] for (uint c = 0; c < 4; c++) {
					preceding += uint(shared_words[i + c] > pair.x);
					equal_keys += uint(shared_words[i + c] == pair.x);
				}
			}
			uint self = first + own - done; // position of the pair itself in shared memory
			if (equal_keys > uint(self < size && self / 4 % shares == share)) {
				for (uint i = 4 * share; i < size; i += 4 * shares) {
					for (uint j = i; j < i + 4; j++) preceding += uint(shared_words[j] == pair.x && shared_words[SORT_CAPACITY + j] < pair.y);
				}
			}
			barrier();
		}
		atomicAdd(ranks[own], preceding);
		barrier();
		if (share == 0 && first + own < count && ranks[own] < p.k) put_pair(s, ranks[own], pair);
	}
}

// put_equal puts the first entries equal to the threshold after those above it. state: threshold, entries above it,
// entries equal to it.
void put_equal(Segment s, uint part, uvec4 state) {
	uint done = 0, remaining = p.k - state.y;
	for (uint summed = 0; part * p.span < chunk_count(s); part += p.parts) {
		uvec2 sum = uvec2(0);
		for (uint i = summed + thread(); i < part; i += THREADS) sum.y += U32(p.counts).v[s.id * p.parameter + i];
		done += workgroup_sum(sum).y;
		if (done >= remaining) break;
		summed = part;
		put_selected(s, part * p.span, min(part * p.span + p.span, chunk_count(s)), uvec4(state.x, remaining, 0, 0), uvec2(state.y, done), true);
	}
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts;
	Segment s = segment(workgroup_index() / p.parts);
	U32x4 states = U32x4(at(p.state, s.id, 32));
	uint selected;
	if (p.parameter != 0) {
		uvec4 state = states.v[0];
		selected = min(p.k, state.y + state.z);
		bool usable = state.y <= p.max_candidates && (selected == p.k || state.x == 0);
		if (usable) {
			rank_pairs(s, part, state.y);
			if (state.y < selected) put_equal(s, part, state);
		} else if (part == 0) {
			sort_in_shared = !present(p.destination);
			selected = select_segment(s);
		}
		if (part == 0 && thread() == 0) states.v[1].x = selected;
		if (!usable || present(p.destination)) return;
	} else {
		selected = states.v[1].x;
		rank_pairs(s, part, selected);
	}
	for (uint slot = selected + part * THREADS + thread(); slot < p.k; slot += p.parts * THREADS) write_slot(s, slot, empty_pair(slot));
}
