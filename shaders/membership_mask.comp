#version 460
// Mark: the rows that slots name.
//
//   indices [B, K]    filled [B, K]    y [B, N], zeros before
//   y[b, i] = 1 where a filled slot of item b names row i, or i < FIRST
//
// A thread looks at one slot and at one of the first rows. Several threads may write the same 1.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 indices, filled, y;
	uint n, k, first;
	uint items; // B
	uint span;  // threads of an item: max(k, first)
} p;

void main() {
	uint thread = workgroup() * 256 + gl_LocalInvocationID.x;
	uint item = thread / p.span, i = thread % p.span;
	if (item >= p.items) return;
	U32 y = U32(at(p.y, item, 4 * p.n));
	if (i < p.first) y.v[i] = 1;
	if (i >= p.k) return;
	uint slot = item * p.k + i, row = U32(p.indices).v[slot]; // a negative index is a large one here
	if (row < p.n && U32(p.filled).v[slot] != 0) y.v[row] = 1;
}
