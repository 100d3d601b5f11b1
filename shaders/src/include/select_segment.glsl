// Selection of the p.k largest entries of a segment by one workgroup: in select.comp, and in select_rank.comp where
// sampling failed. Include select.glsl first.
#ifndef COLT5_SELECT_SEGMENT
#define COLT5_SELECT_SEGMENT

const uint CHUNKS_PER_THREAD = 4; // loaded at a time

// histogram computes the histogram of a digit in shared memory.
void histogram(Segment s, uint digit, uint threshold) {
	clear_histogram(digit_bins(digit));
	for (uint chunk = thread(); chunk < chunk_count(s) + thread(); chunk += CHUNKS_PER_THREAD * THREADS) {
		RawChunk next[CHUNKS_PER_THREAD];
		[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) next[i] = load_chunk(s, chunk + i * THREADS);
		[[unroll]] for (uint i = 0; i < CHUNKS_PER_THREAD; i++) count_digits(chunk_keys(s, chunk + i * THREADS, next[i]), digit, threshold);
	}
	barrier();
}

const uint SORT_ALL_SIZE = 1024; // up to this size, sorting all entries is faster than searching the threshold first

// put_all_entries puts all entries of a segment; masked ones become empty pairs.
void put_all_entries(Segment s) {
	for (uint chunk = thread(); chunk < chunk_count(s); chunk += THREADS) {
		uvec4 key = chunk_keys(s, chunk);
		[[unroll]] for (uint c = 0; c < 4; c++) {
			uint e = first_entry(s, chunk) + c;
			if (e < s.size) put_pair(s, e, key[c] != 0 ? uvec2(key[c], e) : empty_pair(e));
		}
	}
}

// select_segment puts the selected entries in the order of their indices, or sorted with SORT_IN_SHARED (at most
// SORT_CAPACITY). It returns their number.
uint select_segment(Segment s) {
	uint count = s.size;
	if (SORT_IN_SHARED && !present(p.destination) && s.size <= SORT_ALL_SIZE) {
		put_all_entries(s);
	} else {
		uvec4 state = initial_search();
		for (uint digit = 0; digit < 3 && state.y != 0; digit++) {
			histogram(s, digit, state.x);
			state = narrow_search(state, digit, uvec2(0));
		}
		put_selected(s, 0, chunk_count(s), state, uvec2(0), false);
		count = state.z;
	}
	uint size = SORT_IN_SHARED ? next_power_of_two(count) : present(p.destination) ? p.slots : p.k;
	for (uint slot = count + thread(); slot < size; slot += THREADS) put_pair(s, slot, empty_pair(slot));
	if (!SORT_IN_SHARED) return count;
	barrier();
	uint keep = min(next_power_of_two(p.k), size);
	sort_first(size, keep);
	for (uint slot = thread(); slot < p.k; slot += THREADS) write_slot(s, slot, slot < keep ? pair_at(slot) : empty_pair(slot));
	return count;
}

#endif
