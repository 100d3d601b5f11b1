#version 460
// Losses of items from the sums of their blocks.
//
//	sums [items, blocks], blocks at most 256    losses [items]
//	losses[b] = factor * sum of sums[b]
//
// A workgroup of 256 computes an item: it adds the blocks in a tree.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 sums, losses;
	uint items, blocks;
	float factor;
} p;

shared float partial_sums[THREADS];

void main() {
	uint item = workgroup_index(), t = gl_LocalInvocationID.x;
	if (item >= p.items) return;
	partial_sums[t] = t < p.blocks ? F32(at(p.sums, item, 4 * p.blocks)).v[t] : 0;
	for (uint width = THREADS / 2; width > 0; width /= 2) {
		barrier();
		if (t < width) partial_sums[t] += partial_sums[t + width];
	}
	if (t == 0) F32(p.losses).v[item] = partial_sums[0] * p.factor;
}
