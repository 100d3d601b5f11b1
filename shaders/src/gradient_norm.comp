#version 460
// Euclidean norm of a flat tensor, and whether it holds an infinity or a NaN.
//
//	x [count] f32    sums [blocks, 4] words    result [2] words
//	sums[b] = sum of squares of the elements of block b below LARGE, that of the others times SCALE_DOWN, overflow, 0
//	result = norm f32, overflow u32: 1 if an element is infinite or NaN, else 0
//
// Elements that are infinite or NaN count as 0 in the sums. The squares of elements of at least LARGE could overflow,
// which is why they have a sum of their own.
//
// A workgroup adds a block of 16,384 elements: each invocation adds 16 vectors of 4, 256 vectors apart, and the sums of
// the invocations are added in a tree. With -DSUM one workgroup adds the blocks in the same way. The order of summation
// depends on count only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

#ifdef SUM
layout(push_constant) uniform Push {
	uvec2 sums, result;
	uint blocks;
} p;
#else
layout(push_constant) uniform Push {
	uvec2 x, sums;
	uint quads; // whole groups of 4 elements
	uint rest;  // elements after them, 0 to 3
} p;
#endif

const float LARGE = 1099511627776.0;              // 2^40: fewer than 2^48 smaller squares do not overflow
const float SCALE_DOWN = 8.0779356694631608e-28;  // 2^-90: fewer than 2^52 squares do not overflow
const float SCALE_UP = 1.2379400392853803e+27;    // 2^90
const uint INFINITE = 0x7f800000u;                // bits of the exponent of infinities and NaN

// Sums are the sums of squares of an invocation, a workgroup or a block.
struct Sums {
	float sum, large_sum;
	uint overflow;
};

shared float partial_sums[THREADS], partial_large_sums[THREADS];
shared uint partial_overflows[THREADS];

// workgroup_sums adds the sums of all invocations. The result is valid in invocation 0.
Sums workgroup_sums(Sums s) {
	uint i = gl_LocalInvocationID.x;
	partial_sums[i] = s.sum;
	partial_large_sums[i] = s.large_sum;
	partial_overflows[i] = s.overflow;
	for (uint width = THREADS / 2; width > 0; width /= 2) {
		barrier();
		if (i < width) {
			partial_sums[i] += partial_sums[i + width];
			partial_large_sums[i] += partial_large_sums[i + width];
			partial_overflows[i] |= partial_overflows[i + width];
		}
	}
	return Sums(partial_sums[i], partial_large_sums[i], partial_overflows[i]);
}

#ifdef SUM
// norm_of returns the norm for the two sums of squares.
float norm_of(Sums s) {
	if (s.large_sum == 0) return sqrt(s.sum);
	precise float small = s.sum * SCALE_DOWN; // two products: the square of SCALE_DOWN is no float
	small *= SCALE_DOWN;
	return sqrt(s.large_sum + small) * SCALE_UP;
}

void main() {
	Sums s = Sums(0, 0, 0);
	for (uint block = gl_LocalInvocationID.x; block < p.blocks; block += THREADS) {
		uvec4 sums = U32x4(at(p.sums, block, 16)).v[0];
		s.sum += uintBitsToFloat(sums.x);
		s.large_sum += uintBitsToFloat(sums.y);
		s.overflow |= sums.z;
	}
	s = workgroup_sums(s);
	if (gl_LocalInvocationID.x != 0) return;
	F32(p.result).v[0] = norm_of(s);
	U32(p.result).v[1] = s.overflow;
}
#else
const uint QUADS_PER_THREAD = 16, QUADS_PER_BLOCK = THREADS * QUADS_PER_THREAD;

// quad returns the elements of group i, 0 for those after the last one.
vec4 quad(uint i) {
	if (i < p.quads) return F32x4(at(p.x, i, 16)).v[0];
	vec4 v = vec4(0);
	if (i != p.quads) return v;
	F32 x = F32(at(p.x, i, 16));
	if (p.rest > 0) v.x = x.v[0]; // an index that is no constant would put v into memory
	if (p.rest > 1) v.y = x.v[1];
	if (p.rest > 2) v.z = x.v[2];
	return v;
}

void main() {
	vec4 sum = vec4(0), large_sum = vec4(0);
	uint overflow = 0, block = workgroup_index();
	for (uint i = 0; i < QUADS_PER_THREAD; i++) {
		vec4 v = quad(block * QUADS_PER_BLOCK + i * THREADS + gl_LocalInvocationID.x);
		uvec4 bits = floatBitsToUint(v) & 0x7fffffffu; // compilers may assume that floats are finite
		bvec4 finite = lessThan(bits, uvec4(INFINITE)), large = greaterThanEqual(bits, uvec4(floatBitsToUint(LARGE)));
		if (!all(finite)) overflow = 1;
		v = mix(vec4(0), v, finite);
		vec4 small = mix(v, vec4(0), large), scaled = mix(vec4(0), v * SCALE_DOWN, large);
		sum += small * small;
		large_sum += scaled * scaled;
	}
	float total = (sum.x + sum.y) + (sum.z + sum.w), large_total = (large_sum.x + large_sum.y) + (large_sum.z + large_sum.w);
	Sums s = workgroup_sums(Sums(total, large_total, overflow));
	if (gl_LocalInvocationID.x != 0 || block > (p.quads + (p.rest > 0 ? 1 : 0) - 1) / QUADS_PER_BLOCK) return;
	U32x4(at(p.sums, block, 16)).v[0] = uvec4(floatBitsToUint(s.sum), floatBitsToUint(s.large_sum), s.overflow, 0);
}
#endif
