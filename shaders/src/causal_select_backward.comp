#version 460
// Backward of the scores of causally selected queries. A score is 1, and its gradient that of sigmoid(logit - threshold)
// with the threshold held constant.
//
//	logits, dlogits [B, N]    thresholds [B, windows]    windows = ceil(N / window)
//	indices [B, windows, K] i32, ascending    valid [B, windows, K] u32, 0 from the first empty slot on
//	dscores [B, windows, K]
//	dlogits[i] = dscores[k] * s * (1 - s) where indices[k] = i, else 0    s = sigmoid(logits[i] - threshold of its window)
//
// If windows have at most K tokens, no threshold applies and dlogits is 0. A workgroup of 256 computes as many logits; an
// invocation finds the slot of its token by binary search.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 logits, thresholds, indices, valid, dscores, dlogits;
	uint n, window, windows, k;
	uint tokens; // B * N
} p;

// slot_of returns the slot of token i of an item in the list of a window, K if there is none.
uint slot_of(U32 indices, U32 valid, uint i) {
	uint low = 0, high = p.k; // slots before low have lower indices; those from high on are empty or have no lower one
	while (low < high) {
		uint middle = low + (high - low) / 2;
		if (valid.v[middle] != 0 && indices.v[middle] < i) low = middle + 1;
		else high = middle;
	}
	return low < p.k && valid.v[low] != 0 && indices.v[low] == i ? low : p.k;
}

void main() {
	uint token = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (token >= p.tokens) return;
	uint item = token / p.n, i = token % p.n, window = item * p.windows + i / p.window;
	float gradient = 0;
	if (p.window > p.k) { // else every token passes, whatever its logit
		uint slot = slot_of(U32(at(p.indices, window, 4 * p.k)), U32(at(p.valid, window, 4 * p.k)), i);
		if (slot < p.k) {
			// The logit is at least the threshold, so e is at most 1; from 87 on the gradient counts as 0.
			float distance = abs(F32(p.logits).v[token] - F32(p.thresholds).v[window]), e = exp(-min(distance, 87.0));
			float slope = distance < 87.0 ? e / ((1 + e) * (1 + e)) : 0.0;
			gradient = F32(at(p.dscores, window, 4 * p.k)).v[slot] * slope;
		}
	}
	F32(p.dlogits).v[token] = gradient;
}
