#version 460
// Causal selection of queries: the threshold of a window comes from the previous window, and tokens are selected first
// come, first served.
//
//	logits [B, N]    values, valid [B, windows, K]: the K largest logits of each window, in any order
//	windows = ceil(N / window)
//	indices [B, windows, K] i32    selected [B, windows, K] u32, 1 or 0    thresholds [B, windows] optional
//	threshold of window m = smallest valid value of window m - 1; if that window has at most K tokens, all tokens pass
//	token i of window m >= 1 is selected if its logit >= threshold and fewer than K earlier tokens are selected
//
// A workgroup processes a window of an item: it reduces the values to the threshold, then processes 256 tokens at a
// time; the rank of a token among those that pass is its slot. Window 0 stays empty. Logits are compared as integer
// keys of the same order, so -0 equals +0.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 logits, values, valid, indices, selected, thresholds;
	uint n, window, windows, k;
	uint groups; // B * windows
} p;

shared uint sums[2 * THREADS]; // double-buffered
shared uint min_key;

// order_key maps a float to an integer of the same order; NaN becomes 0, the lowest key.
uint order_key(float x) {
	uint bits = floatBitsToUint(x), magnitude = bits & 0x7fffffffu;
	if (magnitude > 0x7f800000u) return 0;
	return magnitude != 0 && bits >> 31 != 0 ? ~bits : magnitude | 0x80000000u;
}

// value_of is the inverse of order_key.
float value_of(uint key) { return uintBitsToFloat(key >> 31 != 0 ? key & 0x7fffffffu : ~key); }

// inclusive_scan returns the sum of the values of invocations 0 .. t, t being this one. It begins and ends with a
// barrier.
uint inclusive_scan(uint value) {
	uint t = gl_LocalInvocationIndex, buf = 0;
	barrier();
	sums[t] = value;
	barrier();
	for (uint distance = 1; distance < THREADS; distance *= 2) {
		uint sum = sums[buf + t] + (t >= distance ? sums[buf + t - distance] : 0);
		buf = THREADS - buf;
		sums[buf + t] = sum;
		barrier();
	}
	return sums[buf + t];
}

void main() {
	uint group = workgroup_index(), t = gl_LocalInvocationIndex;
	if (group >= p.groups) return;
	uint item = group / p.windows, window = group % p.windows;
	U32 indices = U32(at(p.indices, group, 4 * p.k)), selected = U32(at(p.selected, group, 4 * p.k));

	bool all = window == 0 || p.window <= p.k; // only the last window may be shorter, and it sets no threshold
	if (t == 0) min_key = 0xffffffffu;
	barrier();
	if (!all) {
		F32 values = F32(at(p.values, group - 1, 4 * p.k));
		U32 valid = U32(at(p.valid, group - 1, 4 * p.k));
		for (uint i = t; i < p.k; i += THREADS)
			if (valid.v[i] != 0) atomicMin(min_key, order_key(values.v[i]));
	}
	barrier();
	uint threshold = all ? 0 : max(min_key, 1); // NaN passes only if all tokens pass
	if (present(p.thresholds) && t == 0) F32(p.thresholds).v[group] =
		all || threshold == 1 ? -3.4e38 : threshold > order_key(3.4e38) ? 3.4e38 : value_of(threshold);

	uint start = window * p.window, size = window == 0 ? 0 : min(p.window, p.n - start);
	F32 logits = F32(at(at(p.logits, item, 4 * p.n), start, 4));
	uint passed = 0;
	for (uint first = 0; first < size && passed < p.k; first += THREADS) {
		uint i = first + t;
		bool passes = i < size && order_key(logits.v[i]) >= threshold;
		uint slot = passed + inclusive_scan(passes ? 1 : 0);
		if (passes && slot <= p.k) {
			indices.v[slot - 1] = start + i;
			selected.v[slot - 1] = 1;
		}
		barrier();
		if (t == THREADS - 1) sums[0] = slot;
		barrier();
		passed = sums[0];
	}
	for (uint i = min(passed, p.k) + t; i < p.k; i += THREADS) {
		indices.v[i] = 0;
		selected.v[i] = 0;
	}
}
