#version 460
// Squared errors of blocks of elements, and the gradient of their mean.
//
//	y, target [items, n]    dy [items, n] optional, may be y or target    upstream [1] optional, 1 without it
//	sums [items, blocks]: the sum of (y - target)^2 over a block of block_size elements; the last block may be shorter
//	dy = (y - target) * (slope * upstream)    slope is 2 / count
//
// A workgroup of 256 computes a block. Each invocation adds every 256th element, in runs of 32 whose sums are added
// separately to keep the rounding error of long sums small; the 256 sums are added in a tree. The order of summation
// depends on n only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256, RUN = 32;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 y, target, dy, upstream, sums;
	uint items, n, block_size, blocks;
	float slope;
} p;

shared float partial_sums[THREADS];

void main() {
	uint t = gl_LocalInvocationID.x, item = workgroup_index() / p.blocks, first = workgroup_index() % p.blocks * p.block_size;
	if (item >= p.items) return;
	F32 y = F32(at(at(p.y, item, 4 * p.n), first, 4)), target = F32(at(at(p.target, item, 4 * p.n), first, 4));
	F32 dy = F32(at(at(p.dy, item, 4 * p.n), first, 4));
	bool wanted = present(p.dy);
	float factor = present(p.upstream) ? p.slope * F32(p.upstream).v[0] : p.slope;
	float sum = 0, run_sum = 0;
	uint count = 0, size = min(p.block_size, p.n - first);
	for (uint i = t; i < size; i += THREADS) {
		float error = y.v[i] - target.v[i];
		if (wanted) dy.v[i] = error * factor;
		run_sum = fma(error, error, run_sum);
		if (++count == RUN) {
			sum += run_sum;
			run_sum = 0;
			count = 0;
		}
	}
	partial_sums[t] = sum + run_sum;
	for (uint width = THREADS / 2; width > 0; width /= 2) {
		barrier();
		if (t < width) partial_sums[t] += partial_sums[t + width];
	}
	if (t == 0) F32(p.sums).v[workgroup_index()] = partial_sums[0];
}
