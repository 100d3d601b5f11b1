// Part of select.glsl: the order of pairs, and the bitonic sort in shared memory.

// empty_pair is the pair of an empty slot: after all others in the order, and different from all others.
uvec2 empty_pair(uint slot) { return uvec2(0, ~slot); }

// precedes is the order of the result: by descending key, then by ascending index.
bool precedes(uvec2 a, uvec2 b) { return a.x > b.x || a.x == b.x && a.y < b.y; }

// The bitonic networks access pairs through network_position: runs of run_length pairs are run_distance times as far
// apart.
uint run_length = ~0u, run_distance = 1;

uint network_position(uint slot) { return (slot & run_length - 1) + (slot & ~(run_length - 1)) * run_distance; }

void compare_exchange(inout uvec2 a, inout uvec2 b, bool descending) {
	if (precedes(b, a) != descending) return;
	uvec2 c = a;
	a = b;
	b = c;
}

// compare_exchange_four applies two strides to four pairs in registers: 2 * stride, then stride. fresh: the pairs are
// unsorted, and stride is applied first as well.
void compare_exchange_four(uint slot, uint stride, uint run, bool fresh) {
	uint i = network_position(slot);
	bool descending = (slot & run) == 0;
	uvec2 a = pair_at(i), b = pair_at(i + stride), c = pair_at(i + 2 * stride), d = pair_at(i + 3 * stride);
	if (fresh) {
		compare_exchange(a, b, true);
		compare_exchange(c, d, false);
	}
	compare_exchange(a, c, descending);
	compare_exchange(b, d, descending);
	compare_exchange(a, b, descending);
	compare_exchange(c, d, descending);
	set_pair(i, a);
	set_pair(i + stride, b);
	set_pair(i + 2 * stride, c);
	set_pair(i + 3 * stride, d);
}

// bitonic_merge sorts every bitonic run of pairs (one half descending, one ascending); the results alternate between
// descending and ascending. It applies two strides at a time to four pairs in registers; if the number of strides is
// odd, the first one is applied alone. Strides within the pairs of a subgroup need no workgroup barrier. count and run
// are powers of two. Ends with a barrier.
void bitonic_merge(uint count, uint run) {
	uint stride = run / 2;
	if ((findMSB(run) & 1) != 0) {
		for (uint t = thread(); t < count / 2; t += THREADS) {
			uint slot = 2 * t - (t & (stride - 1)), i = network_position(slot);
			uvec2 a = pair_at(i), b = pair_at(i + stride);
			compare_exchange(a, b, (slot & run) == 0);
			set_pair(i, a);
			set_pair(i + stride, b);
		}
		barrier();
		stride /= 2;
	}
	for (; stride > 0; stride /= 4) {
		uint half_stride = stride / 2;
		for (uint t = thread(); t < count / 4; t += THREADS) compare_exchange_four(4 * t - 3 * (t & (half_stride - 1)), half_stride, run, false);
		if (stride == 2 || half_stride > gl_SubgroupSize) {
			barrier();
		} else {
			subgroupMemoryBarrierShared();
			subgroupBarrier();
		}
	}
}

// sort_runs sorts runs of `length` pairs, alternately descending and ascending. Call it after a barrier; it ends with
// one.
void sort_runs(uint count, uint length) {
	uint run = 2;
	if (length >= 4) {
		for (uint t = thread(); t < count / 4; t += THREADS) compare_exchange_four(4 * t, 1, 4, true);
		barrier();
		run = 8;
	}
	for (; run <= length; run *= 2) bitonic_merge(count, run);
}

// sort_pairs sorts the first size pairs in shared memory; size is a power of two. Ends with a barrier.
void sort_pairs(uint size) { sort_runs(size, size); }

// sort_first moves the first `keep` of size pairs in the order to the front, sorted; the others are lost. Both numbers
// are powers of two. Runs of `keep` pairs are sorted; of a descending and an ascending run, the first of each two
// opposite pairs are the ones to keep. Call it after a barrier; it ends with one.
void sort_first(uint size, uint keep) {
	sort_runs(size, keep);
	run_length = keep;
	for (; size > keep; size /= 2) {
		for (uint t = thread(); t < size / 2; t += THREADS) {
			uint i = network_position(2 * t - (t & (keep - 1)));
			uvec2 a = pair_at(i), b = pair_at(i + keep * run_distance);
			if (precedes(b, a)) set_pair(i, b);
		}
		barrier();
		run_distance *= 2;
		bitonic_merge(size / 2, keep);
	}
}

// next_power_of_two is the least power of two that is at least count.
uint next_power_of_two(uint count) { return count <= 1 ? 1 : 2u << findMSB(count - 1); }
