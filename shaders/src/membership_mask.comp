#version 460
// Membership mask: marks the rows that valid slots name.
//
//	indices [B, K] i32    valid [B, K] u32    y [B, N] u32, 0 before the dispatch
//	y[b, i] = 1 where a valid slot of item b names row i, or i < first
//
// A workgroup of 256 processes 256 (item, i) pairs: invocation i of an item processes slot i and row i < first. Several
// invocations may write the same 1.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 indices, valid, y;
	uint n, k, first;
	uint items; // B
	uint span;  // invocations of an item: max(k, first)
} p;

void main() {
	uint thread = workgroup_index() * 256 + gl_LocalInvocationID.x;
	uint item = thread / p.span, i = thread % p.span;
	if (item >= p.items) return;
	U32 y = U32(at(p.y, item, 4 * p.n));
	if (i < p.first) y.v[i] = 1;
	if (i >= p.k) return;
	uint slot = item * p.k + i, row = U32(p.indices).v[slot]; // a negative index is at least 2^31, hence not below n
	if (row < p.n && U32(p.valid).v[slot] != 0) y.v[row] = 1;
}
