#version 460
// One step of the threshold search in long segments: the histogram of a digit of the keys, or the counts of selected
// entries.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional
//	state [segments]: 4 uvec4 (the search before digit 0, 1, 2, and its result), then three histograms; the host clears it
//	counts [segments, parts]: entries above the threshold, entries equal to it
//
// A workgroup processes a part of a segment: p.span chunks. p.parameter is the step. Steps 0, 1 and 2 find the previous
// digit from its histogram, and add up the histogram of this digit, of keys that agree with the threshold so far. Step 3
// finds the last digit, and counts the entries of the part above the threshold and equal to it. Each part finds the same digit by itself;
// part 0 stores the state for the next step.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

const uint CHUNKS_PER_THREAD = 2; // loaded at a time; p.span is a multiple of CHUNKS_PER_THREAD * THREADS

RawChunk next[CHUNKS_PER_THREAD];

void load(Segment s, uint chunk) {
	[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) next[i] = load_chunk(s, chunk + i * THREADS + thread());
}

// loaded_keys returns the keys of the i-th chunk that load loaded.
uvec4 loaded_keys(Segment s, uint chunk, uint i) { return chunk_keys(s, chunk + i * THREADS + thread(), next[i]); }

// search returns the search state after the digit before this step.
uvec4 search(uvec2 state_address) {
	uvec4 state = initial_search();
	if (p.parameter > 1) state = U32x4(state_address).v[p.parameter - 1];
	if (p.parameter > 0 && state.y != 0) state = narrow_search(state, p.parameter - 1, at(state_address, 16 + (p.parameter - 1) * 2048, 4));
	return state;
}

void histogram(Segment s, uint begin, uint threshold, uvec2 hist) {
	uint bins = digit_bins(p.parameter);
	clear_histogram(bins);
	for (uint done = 0;;) {
		[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) count_digits(loaded_keys(s, begin + done, i), p.parameter, threshold);
		if ((done += CHUNKS_PER_THREAD * THREADS) >= p.span) break;
		load(s, begin + done);
	}
	barrier();
	for (uint i = thread(); i < bins; i += THREADS) {
		if (shared_words[i] != 0) atomicAdd(U32(hist).v[i], shared_words[i]);
	}
}

void count(Segment s, uint begin, uint threshold) {
	uvec2 sum = uvec2(0);
	for (uint done = 0;;) {
		[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) sum += unpack_counts(packed_counts(loaded_keys(s, begin + done, i), threshold));
		if ((done += CHUNKS_PER_THREAD * THREADS) >= p.span) break;
		load(s, begin + done);
	}
	sum = workgroup_sum(sum);
	if (thread() == 0) U32x2(p.counts).v[workgroup_index()] = sum;
}

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	uint part = workgroup_index() % p.parts, begin = part * p.span;
	Segment s = segment(workgroup_index() / p.parts);
	uvec2 state_address = at(p.state, s.id, STATE_WORDS * 4);
	load(s, begin); // overlaps the search
	uvec4 state = search(state_address);
	if (part == 0 && thread() == 0) U32x4(state_address).v[p.parameter] = state;
	if (p.parameter == 3) count(s, begin, state.x);
	else if (state.y != 0) histogram(s, begin, state.x, at(state_address, 16 + p.parameter * 2048, 4));
}
