// Sums and maxima over a workgroup of one dimension, of at most 256 subgroups.
#ifndef COLT5_WORKGROUP_SUM
#define COLT5_WORKGROUP_SUM

// Sums over the workgroup have an order that depends only on the sizes of workgroup and subgroups. They take one
// barrier each: `partial` is double-buffered, and an invocation that writes a buffer has passed the barrier after which
// all had read it.
shared vec4 partial[2][64]; // a subgroup has at least 4 invocations
uint buf = 0;

// init_sums clears the elements after the last subgroup's.
void init_sums() {
	uint end = (gl_NumSubgroups + 3) / 4 * 4;
	for (uint i = gl_NumSubgroups + gl_LocalInvocationID.x; i < end; i += gl_WorkGroupSize.x) partial[0][i / 4][i % 4] = partial[1][i / 4][i % 4] = 0;
}

float workgroup_sum(float x) {
	x = subgroupAdd(x);
	if (subgroupElect()) partial[buf][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	vec4 sum = partial[buf][0];
	for (uint i = 1; i < (gl_NumSubgroups + 3) / 4; i++) sum += partial[buf][i];
	buf ^= 1;
	return (sum.x + sum.y) + (sum.z + sum.w);
}

float workgroup_max(float x) {
	x = subgroupMax(x);
	if (subgroupElect()) partial[buf][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	float result = partial[buf][0].x;
	for (uint i = 1; i < gl_NumSubgroups; i++) result = max(result, partial[buf][i / 4][i % 4]);
	buf ^= 1;
	return result;
}

float workgroup_sum(vec4 x) { return workgroup_sum((x.x + x.y) + (x.z + x.w)); }
float workgroup_max(vec4 x) { return workgroup_max(max(max(x.x, x.y), max(x.z, x.w))); }

#endif
