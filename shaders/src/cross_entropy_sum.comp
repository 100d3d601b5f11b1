#version 460
// Sums of the losses of each item, and the numbers of its labels.
//
//	losses [items, n]    labels [items, n] i32    sums [items, 2]: the sum of losses, and the number of labels in [0, classes)
//
// A workgroup of 256 computes an item. Each invocation adds every 256th row, in runs of 32 whose sums are added separately
// to keep the rounding error of long sums small; the 256 sums are added in a tree. The order of summation depends on n
// only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256, RUN = 32;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 losses, labels, sums;
	uint items, n, classes;
} p;

shared float partial_sums[THREADS];
shared uint partial_counts[THREADS];

void main() {
	uint item = workgroup_index(), t = gl_LocalInvocationID.x;
	if (item >= p.items) return;
	F32 losses = F32(at(p.losses, item, 4 * p.n));
	U32 labels = U32(at(p.labels, item, 4 * p.n));
	float sum = 0, run_sum = 0;
	uint labelled = 0, count = 0;
	for (uint i = t; i < p.n; i += THREADS) {
		if (labels.v[i] < p.classes) labelled++; // a negative label is at least 2^31
		run_sum += losses.v[i];
		if (++count == RUN) {
			sum += run_sum;
			run_sum = 0;
			count = 0;
		}
	}
	partial_sums[t] = sum + run_sum;
	partial_counts[t] = labelled;
	for (uint width = THREADS / 2; width > 0; width /= 2) {
		barrier();
		if (t < width) {
			partial_sums[t] += partial_sums[t + width];
			partial_counts[t] += partial_counts[t + width];
		}
	}
	if (t != 0) return;
	F32 sums = F32(at(p.sums, item, 8));
	sums.v[0] = partial_sums[0];
	sums.v[1] = float(partial_counts[0]);
}
