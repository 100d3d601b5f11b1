#version 460
// Dropout: elements are set to 0 at random, the others scaled up. It is its own gradient.
//
//	x, y [count], y may be x    state [4] u32: seed (low word, high word), step, first item
//	y[i] = word(first + first item * item + i) >= threshold ? x[i] * scale : 0
//	word(e) = word e % 4 of Philox4x32-10 with key (seed low, seed high) and counter (step, layer, e / 4 low, e / 4 high)
//
// An invocation has the elements of one counter, a workgroup 1024. An element that is dropped is 0 whatever x is.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/philox.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 x, y, state;
	uvec2 block;    // first / 4
	uint skip;      // first % 4: elements of the first block before the range
	uint end;       // skip + count
	uint layer;
	uint threshold; // rate * 2^32
	float scale;    // 1 / (1 - rate)
	uint item;      // elements of an item / 4
} p;

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i > (p.end - 1) / 4) return;
	U32 state = U32(p.state);
	uint carry, low = uaddCarry(p.block.x, i, carry), high, skipped, more;
	umulExtended(state.v[3], p.item, high, skipped);
	low = uaddCarry(low, skipped, more);
	uvec4 word = philox(uvec4(state.v[2], p.layer, low, p.block.y + carry + high + more), uvec2(state.v[0], state.v[1]));
	bvec4 keep = greaterThanEqual(word, uvec4(p.threshold));
	if (p.skip == 0 && 4 * i + 4 <= p.end) {
		vec4 x = F32x4(at(p.x, i, 16)).v[0];
		F32x4(at(p.y, i, 16)).v[0] = mix(vec4(0), x * p.scale, keep);
		return;
	}
	for (uint j = 0; j < 4; j++) {
		uint e = 4 * i + j; // counts from the start of the first block
		if (e < p.skip || e >= p.end) continue;
		float x = F32(p.x).v[e - p.skip];
		F32(p.y).v[e - p.skip] = keep[j] ? x * p.scale : 0;
	}
}
