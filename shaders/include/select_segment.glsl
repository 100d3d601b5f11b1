// One workgroup chooses the k largest entries of a segment by itself: select.comp, and select_rank.comp where its list does not do.
#ifndef COLT5_SELECT_ALONE
#define COLT5_SELECT_ALONE

const uint GRANULES = 4; // on their way at a time

void histogram(Segment s, uint digit, uint threshold) {
	clear_histogram(digit_bins(digit));
	for (uint g = thread(); g < granules(s) + thread(); g += GRANULES * THREADS) {
		Raw next[GRANULES];
		[[unroll]] for (uint i = 0; i < GRANULES; i++) next[i] = raw(s, g + i * THREADS);
		[[unroll]] for (uint i = 0; i < GRANULES; i++) tally(keys(s, g + i * THREADS, next[i]), digit, threshold);
	}
	barrier();
}

const uint SORTED_WHOLE = 1024; // a segment of so many entries is sorted sooner than its k-th largest is found

// put_all puts all entries of a segment, vacant ones where they are masked.
void put_all(Segment s) {
	for (uint g = thread(); g < granules(s); g += THREADS) {
		uvec4 key = keys(s, g);
		[[unroll]] for (uint c = 0; c < 4; c++) {
			uint e = entry(s, g) + c;
			if (e < s.size) put(s, e, key[c] != 0 ? uvec2(key[c], e) : vacant(e));
		}
	}
}

// alone puts the chosen entries, in the order of their indices, or sorted if INSIDE (at most SORT_CAPACITY). Returns how many there are.
uint alone(Segment s) {
	uint count = s.size;
	if (INSIDE && !present(p.to) && s.size <= SORTED_WHOLE) {
		put_all(s);
	} else {
		uvec4 now = search_start();
		for (uint digit = 0; digit < 3 && now.y != 0; digit++) {
			histogram(s, digit, now.x);
			now = narrow(now, digit, uvec2(0));
		}
		place(s, 0, granules(s), now, uvec2(0), false);
		count = now.z;
	}
	uint size = INSIDE ? power(count) : present(p.to) ? p.slots : p.k;
	for (uint slot = count + thread(); slot < size; slot += THREADS) put(s, slot, vacant(slot));
	if (!INSIDE) return count;
	barrier();
	uint want = min(power(p.k), size);
	sort_first(size, want);
	for (uint slot = thread(); slot < p.k; slot += THREADS) emit(s, slot, slot < want ? slot_at(slot) : vacant(slot));
	return count;
}

#endif
