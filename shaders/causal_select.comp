#version 460
// Causal choice of queries: a token of a window is chosen by the threshold that the window before sets, first come first served.
//
//   logits [B, N]    values, filled [B, M, K]: what each window's largest K are, in any order    M = ceil(N / WINDOW)
//   indices [B, M, K]    chosen [B, M, K], 1 or 0    thresholds [B, M] optional
//   threshold of window m = the smallest filled value of window m - 1; where that has no more than K tokens, every token passes
//   token i of window m >= 1 is chosen if its logit >= threshold, and fewer than K tokens of the window before it are
//
// A workgroup takes one window of one item: the smallest value first, then the tokens, 256 at a time, whose number among those that
// pass is their slot. Window 0 stays empty. Comparisons are of integer keys of the same order, so that -0 equals +0.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 logits, values, filled, indices, chosen, thresholds;
	uint n, window, windows, k;
	uint groups; // B * M
} p;

shared uint sums[2 * THREADS];
shared uint least;

// order maps a float to an integer of the same order; NaN becomes 0, below everything.
uint order(float x) {
	uint bits = floatBitsToUint(x), magnitude = bits & 0x7fffffffu;
	if (magnitude > 0x7f800000u) return 0;
	return magnitude != 0 && bits >> 31 != 0 ? ~bits : magnitude | 0x80000000u;
}

float value_of(uint key) { return uintBitsToFloat(key >> 31 != 0 ? key & 0x7fffffffu : ~key); }

// scan is the sum of the threads' values up to and with this one's. Begins and ends with a barrier.
uint scan(uint value) {
	uint t = gl_LocalInvocationIndex, now = 0;
	barrier();
	sums[t] = value;
	barrier();
	for (uint reach = 1; reach < THREADS; reach *= 2) {
		uint sum = sums[now + t] + (t >= reach ? sums[now + t - reach] : 0);
		now = THREADS - now;
		sums[now + t] = sum;
		barrier();
	}
	return sums[now + t];
}

void main() {
	uint group = workgroup_index(), t = gl_LocalInvocationIndex;
	if (group >= p.groups) return;
	uint item = group / p.windows, m = group % p.windows;
	U32 indices = U32(at(p.indices, group, 4 * p.k)), chosen = U32(at(p.chosen, group, 4 * p.k));

	bool all = m == 0 || p.window <= p.k; // a window before a last one is never short
	if (t == 0) least = 0xffffffffu;
	barrier();
	if (!all) {
		F32 values = F32(at(p.values, group - 1, 4 * p.k));
		U32 filled = U32(at(p.filled, group - 1, 4 * p.k));
		for (uint i = t; i < p.k; i += THREADS)
			if (filled.v[i] != 0) atomicMin(least, order(values.v[i]));
	}
	barrier();
	uint threshold = all ? 0 : max(least, 1); // NaN passes only where everything does
	if (present(p.thresholds) && t == 0) F32(p.thresholds).v[group] = all || threshold == 1 ? -3.4e38 : threshold > order(3.4e38) ? 3.4e38 : value_of(threshold);

	uint start = m * p.window, size = m == 0 ? 0 : min(p.window, p.n - start);
	F32 logits = F32(at(at(p.logits, item, 4 * p.n), start, 4));
	uint taken = 0;
	for (uint first = 0; first < size && taken < p.k; first += THREADS) {
		uint i = first + t;
		bool passes = i < size && order(logits.v[i]) >= threshold;
		uint slot = taken + scan(passes ? 1 : 0);
		if (passes && slot <= p.k) {
			indices.v[slot - 1] = start + i;
			chosen.v[slot - 1] = 1;
		}
		barrier();
		if (t == THREADS - 1) sums[0] = slot;
		barrier();
		taken = sums[0];
	}
	for (uint i = min(taken, p.k) + t; i < p.k; i += THREADS) {
		indices.v[i] = 0;
		chosen.v[i] = 0;
	}
}
