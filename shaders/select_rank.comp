#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
bool inside = false;
#define INSIDE inside
#include "include/address.glsl"
#include "include/select.glsl"
#include "include/select_segment.glsl"

// The k largest entries of long segments, from the candidates that select_gather found, or these in the order of their indices.
//
//	from [segments, list] pairs    state [segments]: select_gather's, then x slots filled    counts: select_gather's
//	logits, mask as there    to [segments, slots] pairs, or indices, filled, values [segments, k]
//
// The slot of a pair is the number of pairs before it: no two are equal, so the order of the list does not matter. A workgroup
// takes PAIRS_PER_PASS pairs at a time, of each THREADS / PAIRS_PER_PASS threads count a share. step is the number of parts of select_gather, whose
// threshold settles what is chosen:
//	at least k entries above it, all in the list: the first k of the list;
//	fewer, but with those equal to it k or all there are: the list, and behind it the first of the equal ones, found part by part;
//	else the guess was bad, which no data but such made for it sees: the first workgroup chooses alone, as in select.comp.
// step 0: the pairs are the chosen ones, and go to the result by index.

layout(constant_id = 3) const uint PAIRS_PER_PASS = 16; // pairs that a workgroup ranks at a time: divides THREADS

shared uint ranks[PAIRS_PER_PASS];

uvec2 load(U32x2 from, uint i) {
	uvec2 pair = from.v[i];
	return p.step != 0 ? pair : uvec2(~pair.y, pair.y);
}

void rank(Segment s, uint part, uint count) {
	U32x2 from = U32x2(at(p.from, s.id, p.list * 8));
	uint own = thread() % PAIRS_PER_PASS, share = thread() / PAIRS_PER_PASS, shares = THREADS / PAIRS_PER_PASS;
	for (uint first = part * PAIRS_PER_PASS; first < count; first += p.parts * PAIRS_PER_PASS) {
		uvec2 pair = first + own < count ? load(from, first + own) : uvec2(0);
		uint ahead = 0;
		if (share == 0) ranks[own] = 0;
		for (uint done = 0; done < count; done += SORT_CAPACITY) {
			uint size = min(SORT_CAPACITY, count - done), whole = (size + 3) & ~3u;
			for (uint i = thread(); i < whole; i += THREADS) {
				uvec2 other = i < size ? load(from, done + i) : vacant(0);
				words[i] = other.x;
				words[SORT_CAPACITY + i] = other.y;
			}
			barrier();
			uint same = 0;
			for (uint i = 4 * share; i < size; i += 4 * shares) {
				[[unroll]] for (uint j = i; j < i + 4; j++) {
					ahead += uint(words[j] > pair.x);
					same += uint(words[j] == pair.x);
				}
			}
			uint self = first + own - done; // where the pair lies in words itself
			if (same > uint(self < size && self / 4 % shares == share)) {
				for (uint i = 4 * share; i < size; i += 4 * shares) {
					for (uint j = i; j < i + 4; j++) ahead += uint(words[j] == pair.x && words[SORT_CAPACITY + j] < pair.y);
				}
			}
			barrier();
		}
		atomicAdd(ranks[own], ahead);
		barrier();
		if (share == 0 && first + own < count && ranks[own] < p.k) put(s, ranks[own], pair);
	}
}

// equals puts the first of the entries equal to the threshold behind those above it.
void equals(Segment s, uint part, uvec4 seen) {
	uint done = 0, wanted = p.k - seen.y;
	for (uint summed = 0; part * p.span < granules(s); part += p.parts) {
		uvec2 sum = uvec2(0);
		for (uint i = summed + thread(); i < part; i += THREADS) sum.y += U32(p.counts).v[s.id * p.step + i];
		done += total(sum).y;
		if (done >= wanted) break;
		summed = part;
		place(s, part * p.span, min(part * p.span + p.span, granules(s)), uvec4(seen.x, wanted, 0, 0), uvec2(seen.y, done), true);
	}
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts;
	Segment s = segment(workgroup_index() / p.parts);
	U32x4 state = U32x4(at(p.state, s.id, 32));
	uint filled;
	if (p.step != 0) {
		uvec4 seen = state.v[0];
		filled = min(p.k, seen.y + seen.z);
		bool good = seen.y <= p.list && (filled == p.k || seen.x == 0);
		if (good) {
			rank(s, part, seen.y);
			if (seen.y < filled) equals(s, part, seen);
		} else if (part == 0) {
			inside = !present(p.to);
			filled = alone(s);
		}
		if (part == 0 && thread() == 0) state.v[1].x = filled;
		if (!good || present(p.to)) return;
	} else {
		filled = state.v[1].x;
		rank(s, part, filled);
	}
	for (uint slot = filled + part * THREADS + thread(); slot < p.k; slot += p.parts * THREADS) emit(s, slot, vacant(slot));
}
