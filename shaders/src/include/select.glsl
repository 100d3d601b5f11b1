// Shared by the shaders select*.comp: arguments, keys, the radix search for a threshold, and, in
// select_sort.glsl, the bitonic sort in shared memory.
//
// A row of n logits is cut into blocks of p.block entries; the last one may be shorter. One block of one row is a
// segment, and p.k entries of each segment are selected into slots. With PREFIX_SEGMENTS a row has p.blocks windows
// instead: the segment of window m is the first m * p.block entries of the row, and there are [items, windows, routes]
// segments.
//
// A key is a logit mapped to an unsigned integer of the same order; key 0 means that there is no entry (masked, or
// outside the segment). A chunk is 4 keys, one 16-byte load; the first and last chunk of a segment may extend beyond
// it. A pair is a uvec2 (key, index in the segment). Each shader declares its own constant_id 3.
#ifndef COLT5_SELECT
#define COLT5_SELECT

#define THREADS gl_WorkGroupSize.x
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SORT_CAPACITY = 1024; // pairs sorted in shared memory at a time: a power of two, at least 1024
layout(constant_id = 2) const uint SUBGROUPS = 64; // at least THREADS / subgroup size
layout(constant_id = 4) const bool PREFIX_SEGMENTS = false; // segments are prefixes of a row, not blocks of it
layout(constant_id = 5) const bool MASKED = false; // there is a mask

// SORT_IN_SHARED: put_pair writes to shared memory, and the shader sorts the pairs there.
#ifndef SORT_IN_SHARED
#define SORT_IN_SHARED false
#endif

// All shaders have the same push block; addresses that one does not use may be absent.
layout(push_constant) uniform Push {
	uvec2 logits, mask, indices, valid, values;
	uvec2 state; // per segment: 4 uvec4 of search states, then the histograms of three digits; select_sample: 2 uvec4
	uvec2 counts; // per segment and part: entries above the threshold, equal to it; select_gather: equal to it only
	uvec2 source; // pairs [segments, slots] to read, or candidates [segments, max_candidates]
	uvec2 destination; // pairs [segments, slots] to write; absent: write indices, valid and values
	uint n, block, blocks, k;
	uint slots; // min(k, longest segment): no segment fills more
	uint routes; // rows of logits that share a row of mask
	uint segments; // rows * blocks
	uint parts; // workgroups per segment
	uint span; // chunks of a part
	uint parameter; // its meaning is in the header of each shader
	int empty_index; // the index written to an empty slot
	uint valid_word; // the valid word of a slot that is not empty
	uint max_candidates; // per segment
	uint skipped_blocks; // this many blocks at the start of a row select nothing; not with PREFIX_SEGMENTS
} p;

const uint PADDED = SORT_CAPACITY + SORT_CAPACITY / 32;
shared uint shared_words[2 * PADDED]; // a histogram; later the keys, then the indices of SORT_CAPACITY pairs
shared uvec2 subgroup_sums[SUBGROUPS];
shared uvec4 shared_result;

const uint STATE_WORDS = 16 + 2048 + 2048 + 1024;

// A key has three digits, from the top: 11, 11 and 10 bits. digit_mask has the bits above a digit.
uint digit_shift(uint digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
uint digit_bins(uint digit) { return digit == 2 ? 1024 : 2048; }
uint digit_mask(uint digit) { return digit == 0 ? 0 : digit == 1 ? 0xffe00000u : 0xfffffc00u; }

// Scans run over subgroups in the order of their lanes, so invocations are numbered in that order too.
uint thread() { return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID; }
bool last_lane() { return gl_SubgroupInvocationID == gl_SubgroupSize - 1; }

struct Segment {
	uvec2 logits, mask;   // addresses rounded down to 16 and to 4 bytes
	uint skew, mask_skew; // entries that the rounding added at the start
	uint id, first, size;
};

Segment segment(uint id) {
	Segment s;
	uint row;
	s.id = id;
	if (PREFIX_SEGMENTS) {
		uint window = id / p.routes;
		row = window / p.blocks * p.routes + id % p.routes;
		s.first = 0;
		s.size = min(window % p.blocks * p.block, p.n);
	} else {
		uint block = id % p.blocks;
		row = id / p.blocks;
		s.first = block * p.block;
		s.size = block < p.skipped_blocks ? 0 : min(p.block, p.n - s.first);
	}
	s.logits = at(at(p.logits, row, p.n * 4), s.first, 4);
	s.skew = s.logits.x >> 2 & 3;
	s.logits.x &= ~15u;
	s.mask = p.mask;
	s.mask_skew = 0;
	if (MASKED) {
		s.mask = at(at(p.mask, row / p.routes, p.n), s.first, 1);
		s.mask_skew = s.mask.x & 3;
		s.mask.x &= ~3u;
	}
	return s;
}

// order_key maps the bits of a float to a key: -0 equals +0, NaN comes below minus infinity, no float maps to 0. It
// works on bits because a driver may flush denormals or lose NaN in float operations.
uint order_key(uint bits) {
	uint magnitude = bits & 0x7fffffffu;
	if (magnitude > 0x7f800000u) return 1;
	return magnitude != 0 && bits >> 31 != 0 ? ~bits : magnitude | 0x80000000u;
}

// chunk_count is the number of chunks that hold a segment.
uint chunk_count(Segment s) { return (s.skew + s.size + 3) / 4; }

// first_entry is the index in the segment of the first entry of a chunk. It may wrap below 0; entry + c >= size then
// still holds.
uint first_entry(Segment s, uint chunk) { return 4 * chunk - s.skew; }

// RawChunk is a chunk as loaded: the bits of its logits if all are in the segment, else 0; the bytes of its mask if
// they are aligned too, else 0.
struct RawChunk {
	uvec4 bits;
	uint bytes;
};

bool is_whole(Segment s, uint chunk) {
	uint e = first_entry(s, chunk);
	return e < s.size && s.size - e >= 4;
}

// load_chunk loads a chunk. Load several chunks before computing keys, so that the loads overlap.
RawChunk load_chunk(Segment s, uint chunk) {
	RawChunk r = RawChunk(uvec4(0), 0);
	if (!is_whole(s, chunk)) return r;
	r.bits = U32x4(s.logits).v[chunk];
	uint byte = first_entry(s, chunk) + s.mask_skew;
	if (MASKED && (byte & 3) == 0) r.bytes = U32(s.mask).v[byte >> 2];
	return r;
}

// chunk_keys returns the keys of a chunk; entries that are masked or outside the segment have key 0.
uvec4 chunk_keys(Segment s, uint chunk, RawChunk r) {
	bool all = is_whole(s, chunk);
	uint e = first_entry(s, chunk), byte = e + s.mask_skew;
	uvec4 result;
	if (all && !MASKED) {
		[[unroll]] for (uint c = 0; c < 4; c++) result[c] = order_key(r.bits[c]);
		return result;
	}
	[[unroll]] for (uint c = 0; c < 4; c++) {
		bool valid = e + c < s.size;
		if (valid && !all) r.bits[c] = U32(s.logits).v[4 * chunk + c];
		if (valid && MASKED) valid = (all && (byte & 3) == 0 ? r.bytes >> 8 * c & 0xffu : byte_at(s.mask, byte + c)) != 0;
		result[c] = valid ? order_key(r.bits[c]) : 0;
	}
	return result;
}

uvec4 chunk_keys(Segment s, uint chunk) { return chunk_keys(s, chunk, load_chunk(s, chunk)); }

// entry_key returns the key of entry e of the segment.
uint entry_key(Segment s, uint e) {
	bool valid = !MASKED || byte_at(s.mask, s.mask_skew + e) != 0;
	return valid ? order_key(U32(s.logits).v[s.skew + e]) : 0;
}

// count_digits adds the keys that agree with the threshold above a digit to the histogram of that digit in shared
// memory. Combining equal digits within a subgroup first was slower, even where all keys are equal.
void count_digits(uvec4 key, uint digit, uint threshold) {
	uint above = digit_mask(digit), shift = digit_shift(digit), last = digit_bins(digit) - 1;
	[[unroll]] for (uint c = 0; c < 4; c++) {
		if (key[c] != 0 && ((key[c] ^ threshold) & above) == 0) atomicAdd(shared_words[key[c] >> shift & last], 1);
	}
}

void clear_histogram(uint bins) {
	for (uint i = thread(); i < bins; i += THREADS) shared_words[i] = 0;
	barrier();
}

// workgroup_sum returns the sum over the workgroup. It begins and ends with a barrier.
uvec2 workgroup_sum(uvec2 value) {
	value = subgroupAdd(value);
	barrier();
	if (thread() == 0) shared_result = uvec4(0);
	barrier();
	if (subgroupElect()) {
		atomicAdd(shared_result.x, value.x);
		atomicAdd(shared_result.y, value.y);
	}
	barrier();
	return shared_result.xy;
}

// sum_before_subgroup returns the sum of subgroup_sums[].x over the subgroups before this one. It loads only this
// component: RADV of Mesa 26.1.6 crashes on vectors in shared memory that are loaded whole but of which only one
// component has a use.
uint sum_before_subgroup() {
	uint sum = 0;
	for (uint i = 0; i < gl_NumSubgroups; i += gl_SubgroupSize) {
		uint other = i + gl_SubgroupInvocationID;
		sum += subgroupAdd(other < gl_SubgroupID ? subgroup_sums[other].x : 0);
	}
	return sum;
}

// sums_before_subgroup is sum_before_subgroup of both components.
uvec2 sums_before_subgroup() {
	uvec2 sum = uvec2(0);
	for (uint i = 0; i < gl_NumSubgroups; i += gl_SubgroupSize) {
		uint other = i + gl_SubgroupInvocationID;
		sum += subgroupAdd(other < gl_SubgroupID ? subgroup_sums[other] : uvec2(0));
	}
	return sum;
}

// State of a search for the threshold: x the bits of the threshold found so far; y how many of the keys with these bits
// are still to be selected; z how many slots will be filled; w how many keys have these bits. y = 0 ends the search:
// every key above x is selected, none equal to it.
uvec4 initial_search() { return uvec4(0, p.k, p.k, 0); }

// narrow_search finds the next digit of the threshold: the largest with at least state.y keys at or above it. If
// exactly state.y keys are, or fewer exist at all, they are all selected and the search ends. The histogram is at
// address hist, or in shared memory if hist is absent. Ends with a barrier.
uvec4 narrow_search(uvec4 state, uint digit, uvec2 hist) {
	uint bins = digit_bins(digit), bins_per_thread = (bins + THREADS - 1) / THREADS;
	// The bins of this invocation end here; if there are more invocations than bins, some have none.
	uint top = bins - thread() * bins_per_thread;
	uint sum = 0;
	if (thread() * bins_per_thread < bins) {
		for (uint j = 1; j <= bins_per_thread; j++) sum += present(hist) ? U32(hist).v[top - j] : shared_words[top - j];
	}
	uint inclusive = subgroupInclusiveAdd(sum);
	if (last_lane()) subgroup_sums[gl_SubgroupID].x = inclusive;
	barrier();
	inclusive += sum_before_subgroup();
	uint above = inclusive - sum;
	if (above < state.y && state.y <= inclusive) {
		uint bin = top, count = 0;
		while (above + count < state.y) {
			above += count;
			bin--;
			count = present(hist) ? U32(hist).v[bin] : shared_words[bin];
		}
		uint bits = state.x | bin << digit_shift(digit), remaining = state.y - above;
		shared_result = remaining < count ? uvec4(bits, remaining, state.z, count) : uvec4(max(bits, 1) - 1, 0, state.z, count);
	}
	if (thread() == THREADS - 1 && inclusive < state.y) shared_result = uvec4(0, 0, inclusive, 0);
	barrier();
	return shared_result;
}

uint packed_count(uint key, uint threshold) { return key > threshold ? 1 : key == threshold ? 0x10000u : 0; }

// packed_counts returns the number of keys of a chunk that are above the threshold (low half) and equal to it (high
// half). The halves do not overflow when a subgroup adds them.
uint packed_counts(uvec4 key, uint threshold) {
	return packed_count(key.x, threshold) + packed_count(key.y, threshold) + packed_count(key.z, threshold) + packed_count(key.w, threshold);
}

uvec2 unpack_counts(uint packed) { return uvec2(packed & 0xffffu, packed >> 16); }

// write_slot writes a slot of the result; a pair with key 0 makes it empty.
void write_slot(Segment s, uint slot, uvec2 pair) {
	bool is_valid = pair.x != 0;
	U32(at(p.indices, s.id, p.k * 4)).v[slot] = is_valid ? s.first + pair.y : uint(p.empty_index);
	U32(at(p.valid, s.id, p.k * 4)).v[slot] = is_valid ? p.valid_word : 0;
	if (present(p.values)) U32(at(p.values, s.id, p.k * 4)).v[slot] = is_valid ? U32(s.logits).v[s.skew + pair.y] : 0;
}

// bank_padded inserts a gap after every 32 pairs, so that invocations which access every fourth pair use different
// banks of shared memory.
uint bank_padded(uint position) { return position + (position >> 5); }

uvec2 pair_at(uint position) { return uvec2(shared_words[bank_padded(position)], shared_words[PADDED + bank_padded(position)]); }

void set_pair(uint position, uvec2 pair) {
	shared_words[bank_padded(position)] = pair.x;
	shared_words[PADDED + bank_padded(position)] = pair.y;
}

// put_pair writes a pair to its slot: in memory, in shared memory, or in the result.
void put_pair(Segment s, uint slot, uvec2 pair) {
	if (present(p.destination)) {
		U32x2(at(p.destination, s.id, p.slots * 8)).v[slot] = pair;
	} else if (SORT_IN_SHARED) {
		set_pair(slot, pair);
	} else {
		write_slot(s, slot, pair);
	}
}

// put_selected writes the selected entries of chunks begin .. end - 1, in the order of their indices. done: the number
// of entries before begin, x above the threshold, y equal to it. Each subgroup counts the entries of its own chunks to
// find its first slot, and then passes over them again without waiting for other subgroups. only_equal: writes only
// entries equal to the threshold, after done.x slots. Contains barriers.
void put_selected(Segment s, uint begin, uint end, uvec4 state, uvec2 done, bool only_equal) {
	uint counted = only_equal ? 0xffff0000u : ~0u;
	uint subgroup_chunks = (end - begin + gl_NumSubgroups - 1) / gl_NumSubgroups;
	subgroup_chunks = (subgroup_chunks + gl_SubgroupSize - 1) / gl_SubgroupSize * gl_SubgroupSize;
	begin += gl_SubgroupID * subgroup_chunks;
	end = min(end, begin + subgroup_chunks);
	uvec2 sum = uvec2(0);
	for (uint chunk = begin + gl_SubgroupInvocationID; chunk < end; chunk += gl_SubgroupSize)
		sum += unpack_counts(packed_counts(chunk_keys(s, chunk), state.x) & counted);
	sum = subgroupAdd(sum);
	if (subgroupElect()) subgroup_sums[gl_SubgroupID] = sum;
	barrier();
	done += sums_before_subgroup();
	for (; begin < end; begin += gl_SubgroupSize) {
		uint chunk = begin + gl_SubgroupInvocationID, e = first_entry(s, chunk);
		uvec4 key = chunk < end ? chunk_keys(s, chunk) : uvec4(0);
		uint packed = packed_counts(key, state.x) & counted;
		uvec2 rank = done + unpack_counts(subgroupExclusiveAdd(packed));
		[[unroll]] for (uint c = 0; c < 4; c++) {
			bool above = !only_equal && key[c] > state.x, equal = key[c] == state.x;
			if (above || equal && rank.y < state.y) put_pair(s, rank.x + min(rank.y, state.y), uvec2(key[c], e + c));
			rank += uvec2(above, equal);
		}
		done += unpack_counts(subgroupAdd(packed));
	}
}

#include "select_sort.glsl"

#endif
