#version 460
// Collects the entries of long segments above the threshold of select_sample, and counts them and those equal to it.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional
//	state [segments]: x threshold, y entries above it, z entries equal to it
//	counts [segments, parts]: entries equal to the threshold
//	destination [segments, max_candidates] pairs, in any order; those that do not fit are only counted
//
// A workgroup processes a part of a segment: p.span chunks, CHUNKS_PER_THREAD per invocation.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

const uint CHUNKS_PER_THREAD = 2; // as selectGatherChunks in pipelines/select_plan.go

void main() {
	if (workgroup_index() >= p.segments * p.parts) return;
	Segment s = segment(workgroup_index() / p.parts);
	uint begin = workgroup_index() % p.parts * p.span + thread();
	RawChunk next[CHUNKS_PER_THREAD];
	[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) next[i] = load_chunk(s, begin + i * THREADS);
	uvec4 key[CHUNKS_PER_THREAD];
	[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) key[i] = chunk_keys(s, begin + i * THREADS, next[i]);
	U32 state = U32(at(p.state, s.id, 32));
	uint threshold = state.v[0], packed = 0;
	[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) packed += packed_counts(key[i], threshold);
	if (threshold == 0) packed &= 0xffffu; // key 0 is no entry
	uint inclusive = subgroupInclusiveAdd(packed);
	if (last_lane()) subgroup_sums[gl_SubgroupID] = unpack_counts(inclusive);
	barrier();
	uvec2 done = sums_before_subgroup() + unpack_counts(inclusive);
	if (thread() == THREADS - 1) { // here done counts the whole part
		shared_result.x = done.x == 0 ? 0 : atomicAdd(state.v[1], done.x);
		if (done.y != 0) atomicAdd(state.v[2], done.y);
		U32(p.counts).v[workgroup_index()] = done.y;
	}
	barrier();
	uint slot = shared_result.x + done.x - unpack_counts(packed).x;
	U32x2 candidates = U32x2(at(p.destination, s.id, p.max_candidates * 8));
	[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) {
		uint e = first_entry(s, begin + i * THREADS);
		[[unroll]] for (uint c = 0; c < 4; c++) {
			if (key[i][c] <= threshold) continue;
			if (slot < p.max_candidates) candidates.v[slot] = uvec2(key[i][c], e + c);
			slot++;
		}
	}
}
