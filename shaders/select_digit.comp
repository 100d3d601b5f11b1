#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// One step towards the k largest entries of long segments: a histogram of a digit of the keys, or the count of what is chosen.
//
// A segment is cut into parts of p.span granules, one workgroup a part. step 0, 1, 2: find the digit before, from its histogram,
// and add up this digit's, of keys that have all digits before. step 3: find the last digit; count this part's entries above
// the threshold and equal to it. Every part finds the same digit for itself, the first part notes it for the next step.

const uint GRANULES = 2; // of a thread at a time; p.span is a multiple of GRANULES * THREADS

Raw next[GRANULES];

void load(Segment s, uint granule) {
	[[unroll]] for (uint i = 0; i < GRANULES; i++) next[i] = raw(s, granule + i * THREADS + thread());
}

// loaded are the keys of the i-th granule that load loaded.
uvec4 loaded(Segment s, uint granule, uint i) { return keys(s, granule + i * THREADS + thread(), next[i]); }

uvec4 search(uvec2 state) {
	uvec4 now = search_start();
	if (p.step > 1) now = U32x4(state).v[p.step - 1];
	if (p.step > 0 && now.y != 0) now = narrow(now, p.step - 1, at(state, 16 + (p.step - 1) * 2048, 4));
	return now;
}

void histogram(Segment s, uint begin, uint threshold, uvec2 hist) {
	uint bins = digit_bins(p.step);
	clear_histogram(bins);
	for (uint done = 0;;) {
		[[unroll]] for (uint i = 0; i < GRANULES; i++) tally(loaded(s, begin + done, i), p.step, threshold);
		if ((done += GRANULES * THREADS) >= p.span) break;
		load(s, begin + done);
	}
	barrier();
	for (uint i = thread(); i < bins; i += THREADS) {
		if (words[i] != 0) atomicAdd(U32(hist).v[i], words[i]);
	}
}

void count(Segment s, uint begin, uint threshold) {
	uvec2 sum = uvec2(0);
	for (uint done = 0;;) {
		[[unroll]] for (uint i = 0; i < GRANULES; i++) sum += unpack(kinds(loaded(s, begin + done, i), threshold));
		if ((done += GRANULES * THREADS) >= p.span) break;
		load(s, begin + done);
	}
	sum = total(sum);
	if (thread() == 0) U32x2(p.counts).v[workgroup_index()] = sum;
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts, begin = part * p.span;
	Segment s = segment(workgroup_index() / p.parts);
	uvec2 state = at(p.state, s.id, STATE_WORDS * 4);
	load(s, begin); // under way while the digit before is searched
	uvec4 now = search(state);
	if (part == 0 && thread() == 0) U32x4(state).v[p.step] = now;
	if (p.step == 3) count(s, begin, now.x);
	else if (now.y != 0) histogram(s, begin, now.x, at(state, 16 + p.step * 2048, 4));
}
