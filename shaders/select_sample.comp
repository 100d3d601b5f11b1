#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/select.glsl"

// Guesses a threshold such that k entries of a long segment lie above it, and not many more; select_gather counts them.
//
//	logits [rows, n]    mask [rows / routes, n] u8 optional    state [segments]: 2 uvec4
//
// One workgroup a segment. It looks at one entry of every p.span, at a hashed place, and searches the step-th largest of these
// samples, digit by digit until at most an eighth more of them lie above the threshold. Where there are fewer it is 0, below every
// valid entry. The counts in the state start at 0.

layout(constant_id = 3) const uint SAMPLES_PER_THREAD = 8;

// jitter is a number below p.span for each stretch of the segment: entries that repeat with any period must not fool the guess.
uint jitter(uint stretch) {
	uint h = stretch * 0x9e3779b1u;
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
		uint stretch = i * THREADS + thread(), e = stretch * p.span + jitter(stretch);
		key[i] = e < s.size ? key_at(s, e) : 0;
	}
	uvec4 now = uvec4(0, p.step, 0, 0);
	for (uint digit = 0; digit < 3 && now.y != 0; digit++) {
		if (digit > 0 && now.w - now.y <= p.step / 8) {
			now.x -= min(now.x, 1); // all that have these bits lie above
			break;
		}
		clear_histogram(digit_bins(digit));
		uint known = digit_above(digit);
		[[unroll]] for (uint i = 0; i < SAMPLES_PER_THREAD; i++) {
			bool on = key[i] != 0 && ((key[i] ^ now.x) & known) == 0;
			if (on) atomicAdd(words[key[i] >> digit_shift(digit) & digit_bins(digit) - 1], 1);
		}
		barrier();
		now = narrow(now, digit, uvec2(0));
	}
	if (thread() == 0) U32x4(at(p.state, s.id, 32)).v[0] = uvec4(now.x, 0, 0, 0);
}
