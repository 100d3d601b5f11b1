#version 460
// Estimates a threshold from samples such that p.k entries of a long segment are above it, and not many more;
// select_gather counts them.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    state [segments]: 2 uvec4
//
// A workgroup processes a segment. It samples one entry of every interval of p.span entries, at a hashed position, and
// searches the p.parameter-th largest sample digit by digit, until at most an eighth more samples are above the threshold.
// With fewer samples the threshold is 0, below every valid entry. The counts in the state are set to 0.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

layout(constant_id = 3) const uint SAMPLES_PER_THREAD = 8;

// jitter is a hash of the interval in [0, p.span). It keeps periodic entries from biasing the samples.
uint jitter(uint interval) {
	uint h = interval * 0x9e3779b1u;
	h = (h ^ h >> 15) * 0x85ebca6bu;
	uint high, low;
	umulExtended(h ^ h >> 13, p.span, high, low);
	return high;
}

void main() {
	if (workgroup_index() >= p.segments) return;
	Segment s = segment(workgroup_index());
	uint key[SAMPLES_PER_THREAD];
	[[unroll]] for (uint i = 0; i < SAMPLES_PER_THREAD; i++) {
		uint interval = i * THREADS + thread(), e = interval * p.span + jitter(interval);
		key[i] = e < s.size ? entry_key(s, e) : 0;
	}
	uvec4 state = uvec4(0, p.parameter, 0, 0);
	for (uint digit = 0; digit < 3 && state.y != 0; digit++) {
		if (digit > 0 && state.w - state.y <= p.parameter / 8) {
			state.x -= min(state.x, 1); // all samples with these bits are above
			break;
		}
		clear_histogram(digit_bins(digit));
		uint above = digit_mask(digit);
		[[unroll]] for (uint i = 0; i < SAMPLES_PER_THREAD; i++) {
			bool counted = key[i] != 0 && ((key[i] ^ state.x) & above) == 0;
			if (counted) atomicAdd(shared_words[key[i] >> digit_shift(digit) & digit_bins(digit) - 1], 1);
		}
		barrier();
		state = narrow_search(state, digit, uvec2(0));
	}
	if (thread() == 0) U32x4(at(p.state, s.id, 32)).v[0] = uvec4(state.x, 0, 0, 0);
}
