// What the shaders of the room select share: the push block, keys, the search for a digit, the sort in shared memory.
//
// A row of n logits is cut into blocks of p.block entries, the last one maybe short; one block of one row is a segment, and each
// segment chooses p.k slots. With PREFIX_SEGMENTS a row has p.blocks windows instead, and window m's segment is the row's first m * p.block
// entries: window 0 has none. A key is a logit as an unsigned integer of the same order; 0 stands for "not there" (masked or
// outside). Keys come in granules of four, one 16-byte load; the first and last granule of a segment may reach over its ends.
#ifndef COLT5_SELECT
#define COLT5_SELECT

#define THREADS gl_WorkGroupSize.x
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SORT_CAPACITY = 1024; // pairs that are sorted in shared memory at a time: a power of two, at least 1024
layout(constant_id = 2) const uint SUBGROUPS = 64; // at least THREADS / subgroup size
// 3 is a shader's own
layout(constant_id = 4) const bool PREFIX_SEGMENTS = false; // segments are prefixes of a row, not blocks of it
layout(constant_id = 5) const bool MASKED = false; // there is a mask

// Whether a shader sorts what it puts in shared memory.
#ifndef INSIDE
#define INSIDE false
#endif

// A pair in memory, a uvec2: x the key, y the index in the segment.

// The same block for all shaders; what one does not use is absent.
layout(push_constant) uniform Push {
	uvec2 logits, mask, indices, filled, values;
	uvec2 state;  // a segment: 4 uvec4 of progress, then the histograms of the three digits; or 2 uvec4 (select_sample)
	uvec2 counts; // a segment and part: entries above the threshold, entries equal to it; or the latter alone (select_gather)
	uvec2 from;   // pairs [segments, slots] to read; or candidates [segments, list]
	uvec2 to;     // pairs [segments, slots] to write; absent: write indices, filled and values
	uint n, block, blocks, k;
	uint slots;    // min(k, longest segment): none fills more
	uint routes;   // rows that share a row of the mask
	uint segments; // rows * blocks
	uint parts;    // workgroups a segment
	uint span;     // granules of a part
	uint step;     // see each shader
	int empty;     // the index in a slot that stays empty
	uint word;     // what marks a filled slot in filled
	uint list;     // most candidates a segment
	uint skip;     // the first blocks of a row, which stay empty; not with PREFIX_SEGMENTS
} p;

const uint PADDED = SORT_CAPACITY + SORT_CAPACITY / 32;
shared uint words[2 * PADDED]; // a histogram, later the keys and then the indices of SORT_CAPACITY pairs
shared uvec2 totals[SUBGROUPS];
shared uvec4 found;

const uint STATE_WORDS = 16 + 2048 + 2048 + 1024;

// The three digits of a key, from the top: 11, 11 and 10 bits.
uint digit_shift(uint digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
uint digit_bins(uint digit) { return digit == 2 ? 1024 : 2048; }
uint digit_above(uint digit) { return digit == 0 ? 0 : digit == 1 ? 0xffe00000u : 0xfffffc00u; } // bits known before it

// Scans run over subgroups in the order of their lanes, so a thread's number must follow that order too.
uint thread() { return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID; }
bool last_lane() { return gl_SubgroupInvocationID == gl_SubgroupSize - 1; }

struct Segment {
	uvec2 logits, mask;   // addresses rounded down to 16 and to 4 bytes
	uint skew, mask_skew; // entries that the rounding added in front
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
		s.size = block < p.skip ? 0 : min(p.block, p.n - s.first);
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

// order maps the bits of a float to a key: an integer of the same order. -0 equals +0, NaN comes below minus infinity, nothing maps to 0.
// Bits, not floats: no driver may flush a denormal or drop a NaN on the way.
uint order(uint bits) {
	uint magnitude = bits & 0x7fffffffu;
	if (magnitude > 0x7f800000u) return 1;
	return magnitude != 0 && bits >> 31 != 0 ? ~bits : magnitude | 0x80000000u;
}

// granules is the number of granules that hold a segment.
uint granules(Segment s) { return (s.skew + s.size + 3) / 4; }

// entry is the index in the segment of a granule's first entry. Below 0 it wraps, and entry + c >= size holds all the same.
uint entry(Segment s, uint granule) { return 4 * granule - s.skew; }

// What a granule looks like in memory: entries, 0 where it reaches over an end of the segment, and their bytes of the mask, 0 there and where they are not one word.
struct Raw {
	uvec4 bits;
	uint bytes;
};

bool whole(Segment s, uint granule) {
	uint e = entry(s, granule);
	return e < s.size && s.size - e >= 4;
}

// raw loads a granule. Loads of several granules go before the first of their keys is worked out, and are on their way together.
Raw raw(Segment s, uint granule) {
	Raw r = Raw(uvec4(0), 0);
	if (!whole(s, granule)) return r;
	r.bits = U32x4(s.logits).v[granule];
	uint byte = entry(s, granule) + s.mask_skew;
	if (MASKED && (byte & 3) == 0) r.bytes = U32(s.mask).v[byte >> 2];
	return r;
}

// keys of a granule; entries outside the segment or masked have key 0.
uvec4 keys(Segment s, uint granule, Raw r) {
	bool all = whole(s, granule);
	uint e = entry(s, granule), byte = e + s.mask_skew;
	uvec4 result;
	if (all && !MASKED) {
		[[unroll]] for (uint c = 0; c < 4; c++) result[c] = order(r.bits[c]);
		return result;
	}
	[[unroll]] for (uint c = 0; c < 4; c++) {
		bool valid = e + c < s.size;
		if (valid && !all) r.bits[c] = U32(s.logits).v[4 * granule + c];
		if (valid && MASKED) valid = (all && (byte & 3) == 0 ? r.bytes >> 8 * c & 0xffu : byte_at(s.mask, byte + c)) != 0;
		result[c] = valid ? order(r.bits[c]) : 0;
	}
	return result;
}

uvec4 keys(Segment s, uint granule) { return keys(s, granule, raw(s, granule)); }

// key_at is the key of entry e of the segment.
uint key_at(Segment s, uint e) {
	bool valid = !MASKED || byte_at(s.mask, s.mask_skew + e) != 0;
	return valid ? order(U32(s.logits).v[s.skew + e]) : 0;
}

// tally counts a digit of the keys that have all digits before it, in words. GPUs add equal addresses of a subgroup fast enough:
// finding them first took longer, even where all keys are equal.
void tally(uvec4 key, uint digit, uint threshold) {
	uint known = digit_above(digit), shift = digit_shift(digit), last = digit_bins(digit) - 1;
	[[unroll]] for (uint c = 0; c < 4; c++) {
		if (key[c] != 0 && ((key[c] ^ threshold) & known) == 0) atomicAdd(words[key[c] >> shift & last], 1);
	}
}

void clear_histogram(uint bins) {
	for (uint i = thread(); i < bins; i += THREADS) words[i] = 0;
	barrier();
}

// total is the sum of the workgroup's values. Begins and ends with a barrier.
uvec2 total(uvec2 value) {
	value = subgroupAdd(value);
	barrier();
	if (thread() == 0) found = uvec4(0);
	barrier();
	if (subgroupElect()) {
		atomicAdd(found.x, value.x);
		atomicAdd(found.y, value.y);
	}
	barrier();
	return found.xy;
}

// earlier is the sum of totals over the subgroups before this one.
uvec2 earlier() {
	uvec2 sum = uvec2(0);
	for (uint i = 0; i < gl_NumSubgroups; i += gl_SubgroupSize) {
		uint other = i + gl_SubgroupInvocationID;
		sum += subgroupAdd(other < gl_SubgroupID ? totals[other] : uvec2(0));
	}
	return sum;
}

// Progress of a search: x the bits of the threshold known so far, y how many of the keys with these bits are still wanted,
// z slots that will be filled, w how many keys with these bits there are. y = 0 ends it: every key above x is taken, none equal to it.
uvec4 search_start() { return uvec4(0, p.k, p.k, 0); }

// narrow finds a digit of the threshold: the largest with at least now.y keys at or above it. If that is their number, or there are not
// so many at all, all these keys are taken and the search is over. The histogram lies at hist, or in words if that is absent. Ends with a barrier.
uvec4 narrow(uvec4 now, uint digit, uvec2 hist) {
	uint bins = digit_bins(digit), each = (bins + THREADS - 1) / THREADS;
	uint top = bins - thread() * each; // a thread's bins are those below it; where there are more threads than bins, none
	uint sum = 0;
	if (thread() * each < bins) {
		for (uint j = 1; j <= each; j++) sum += present(hist) ? U32(hist).v[top - j] : words[top - j];
	}
	uint inclusive = subgroupInclusiveAdd(sum);
	if (last_lane()) totals[gl_SubgroupID].x = inclusive;
	barrier();
	inclusive += earlier().x;
	uint above = inclusive - sum;
	if (above < now.y && now.y <= inclusive) {
		uint bin = top, count = 0;
		while (above + count < now.y) {
			above += count;
			bin--;
			count = present(hist) ? U32(hist).v[bin] : words[bin];
		}
		uint bits = now.x | bin << digit_shift(digit), wanted = now.y - above;
		found = wanted < count ? uvec4(bits, wanted, now.z, count) : uvec4(max(bits, 1) - 1, 0, now.z, count);
	}
	if (thread() == THREADS - 1 && inclusive < now.y) found = uvec4(0, 0, inclusive, 0);
	barrier();
	return found;
}

// Entries of a granule above and equal to the threshold, in the lower and upper half of a word: few enough to add up a subgroup's.
uint kind(uint key, uint threshold) { return key > threshold ? 1 : key == threshold ? 0x10000u : 0; }

uint kinds(uvec4 key, uint threshold) {
	return kind(key.x, threshold) + kind(key.y, threshold) + kind(key.z, threshold) + kind(key.w, threshold);
}

uvec2 unpack(uint kinds) { return uvec2(kinds & 0xffffu, kinds >> 16); }

// emit writes a slot of the result; key 0 leaves it empty.
void emit(Segment s, uint slot, uvec2 pair) {
	bool full = pair.x != 0;
	U32(at(p.indices, s.id, p.k * 4)).v[slot] = full ? s.first + pair.y : uint(p.empty);
	U32(at(p.filled, s.id, p.k * 4)).v[slot] = full ? p.word : 0;
	if (present(p.values)) U32(at(p.values, s.id, p.k * 4)).v[slot] = full ? U32(s.logits).v[s.skew + pair.y] : 0;
}

// padded leaves a gap after every 32 slots: threads that take every fourth slot then do not meet in the same banks of shared memory.
uint padded(uint place) { return place + (place >> 5); }

uvec2 slot_at(uint place) { return uvec2(words[padded(place)], words[PADDED + padded(place)]); }

void set_slot(uint place, uvec2 pair) {
	words[padded(place)] = pair.x;
	words[PADDED + padded(place)] = pair.y;
}

// put writes a pair where it belongs: among those to be sorted, in words or in memory, or to the result.
void put(Segment s, uint slot, uvec2 pair) {
	if (present(p.to)) {
		U32x2(at(p.to, s.id, p.slots * 8)).v[slot] = pair;
	} else if (INSIDE) {
		set_slot(slot, pair);
	} else {
		emit(s, slot, pair);
	}
}

// place puts the chosen entries of granules begin to end - 1, in the order of their indices; done are the entries before begin, x
// above the threshold, y equal to it. Each subgroup counts those of its own stretch, so it knows where its slots begin, and then
// walks along it once more without waiting for the others. ties: only those equal to it, behind done.x slots. Has barriers.
void place(Segment s, uint begin, uint end, uvec4 now, uvec2 done, bool ties) {
	uint counted = ties ? 0xffff0000u : ~0u;
	uint stretch = (end - begin + gl_NumSubgroups - 1) / gl_NumSubgroups;
	stretch = (stretch + gl_SubgroupSize - 1) / gl_SubgroupSize * gl_SubgroupSize;
	begin += gl_SubgroupID * stretch;
	end = min(end, begin + stretch);
	uvec2 sum = uvec2(0);
	for (uint g = begin + gl_SubgroupInvocationID; g < end; g += gl_SubgroupSize) sum += unpack(kinds(keys(s, g), now.x) & counted);
	sum = subgroupAdd(sum);
	if (subgroupElect()) totals[gl_SubgroupID] = sum;
	barrier();
	done += earlier();
	for (; begin < end; begin += gl_SubgroupSize) {
		uint g = begin + gl_SubgroupInvocationID, e = entry(s, g);
		uvec4 key = g < end ? keys(s, g) : uvec4(0);
		uint both = kinds(key, now.x) & counted;
		uvec2 rank = done + unpack(subgroupExclusiveAdd(both));
		[[unroll]] for (uint c = 0; c < 4; c++) {
			bool above = !ties && key[c] > now.x, equal = key[c] == now.x;
			if (above || equal && rank.y < now.y) put(s, rank.x + min(rank.y, now.y), uvec2(key[c], e + c));
			rank += uvec2(above, equal);
		}
		done += unpack(subgroupAdd(both));
	}
}

// vacant is the pair of an empty slot: behind every other, and unlike any other.
uvec2 vacant(uint slot) { return uvec2(0, ~slot); }

// before is the order of the result: by falling key, then by rising index.
bool before(uvec2 a, uvec2 b) { return a.x > b.x || a.x == b.x && a.y < b.y; }

// The bitonic networks below see the slots of words through place_of: runs of `run_length` slots lie `run_distance` times as far apart.
uint run_length = ~0u, run_distance = 1;

uint place_of(uint slot) { return (slot & run_length - 1) + (slot & ~(run_length - 1)) * run_distance; }

void exchange(inout uvec2 a, inout uvec2 b, bool falling) {
	if (before(b, a) != falling) return;
	uvec2 c = a;
	a = b;
	b = c;
}

// exchange_four takes two strides at once, over four slots in registers: pairs at twice `stride`, then pairs at `stride`. fresh: the
// slots are in no order yet, and pairs at `stride` come first as well.
void exchange_four(uint slot, uint stride, uint run, bool fresh) {
	uint i = place_of(slot);
	bool falling = (slot & run) == 0;
	uvec2 a = slot_at(i), b = slot_at(i + stride), c = slot_at(i + 2 * stride), d = slot_at(i + 3 * stride);
	if (fresh) {
		exchange(a, b, true);
		exchange(c, d, false);
	}
	exchange(a, c, falling);
	exchange(b, d, falling);
	exchange(a, b, falling);
	exchange(c, d, falling);
	set_slot(i, a);
	set_slot(i + stride, b);
	set_slot(i + 2 * stride, c);
	set_slot(i + 3 * stride, d);
}

// merge makes of every run of slots, of which one half falls and the other rises, one in order: they fall and rise in turns. It takes
// two strides at a time, over four slots in registers; where their number is odd the first is taken alone. Strides that stay among
// the slots of a subgroup wait for no other. count and run are powers of two. Ends with a barrier.
void merge(uint count, uint run) {
	uint stride = run / 2;
	if ((findMSB(run) & 1) != 0) {
		for (uint t = thread(); t < count / 2; t += THREADS) {
			uint slot = 2 * t - (t & (stride - 1)), i = place_of(slot);
			uvec2 a = slot_at(i), b = slot_at(i + stride);
			exchange(a, b, (slot & run) == 0);
			set_slot(i, a);
			set_slot(i + stride, b);
		}
		barrier();
		stride /= 2;
	}
	for (; stride > 0; stride /= 4) {
		uint half_stride = stride / 2;
		for (uint t = thread(); t < count / 4; t += THREADS) exchange_four(4 * t - 3 * (t & (half_stride - 1)), half_stride, run, false);
		if (stride == 2 || half_stride > gl_SubgroupSize) {
			barrier();
		} else {
			subgroupMemoryBarrierShared();
			subgroupBarrier();
		}
	}
}

// sort_runs sorts runs of slots, which fall and rise in turns. Begins behind a barrier and ends with one.
void sort_runs(uint count, uint length) {
	uint run = 2;
	if (length >= 4) {
		for (uint t = thread(); t < count / 4; t += THREADS) exchange_four(4 * t, 1, 4, true);
		barrier();
		run = 8;
	}
	for (; run <= length; run *= 2) merge(count, run);
}

// sort_slots puts the first size slots of words in order; size is a power of two. Ends with a barrier.
void sort_slots(uint size) { sort_runs(size, size); }

// sort_first puts the first `want` of the first size slots in order, both powers of two; what comes after them is lost. Runs of so many
// are sorted; of two of them, one falling and one rising, the better of each two slots are the first `want`. Begins behind a barrier and ends with one.
void sort_first(uint size, uint want) {
	sort_runs(size, want);
	run_length = want;
	for (; size > want; size /= 2) {
		for (uint t = thread(); t < size / 2; t += THREADS) {
			uint i = place_of(2 * t - (t & (want - 1)));
			uvec2 a = slot_at(i), b = slot_at(i + want * run_distance);
			if (before(b, a)) set_slot(i, b);
		}
		barrier();
		run_distance *= 2;
		merge(size / 2, want);
	}
}

// power is the least power of two that is at least count.
uint power(uint count) { return count <= 1 ? 1 : 2u << findMSB(count - 1); }

#endif
