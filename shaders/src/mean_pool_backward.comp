#version 460
// Backward of the mean over tokens: every token that has a part in the mean gets its share of the gradient.
//
//	dy [B, C]    mask [B, N] u8, with MASKED    dx [B, N, C]
//	dx[b, i] = dy[b] / N;  MASKED: dy[b] / the number of tokens with a mask other than 0, and 0 for the other tokens
//
// A workgroup of 256 computes TOKENS_PER_WORKGROUP tokens of an item, a float (vec4 with VEC4) per invocation at a time.
// With MASKED it first counts the tokens of the item: N bytes, which are few beside the rows that it writes.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

#ifdef VEC4 // rows have a multiple of 4 floats, so they start at multiples of 16 bytes
#define T vec4
#define ROW F32x4
#define T_BYTES 16
#else
#define T float
#define ROW F32
#define T_BYTES 4
#endif

layout(constant_id = 1) const bool MASKED = false; // a mask is given
layout(constant_id = 2) const uint COLUMNS = 1; // elements of type T in a row
layout(constant_id = 3) const uint TOKENS_PER_WORKGROUP = 1;
const uint STRIDE = COLUMNS * T_BYTES, THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 dy, mask, dx;
	uint n;
	uint items;
} p;

shared uint tokens; // of the item, with a mask other than 0

void main() {
	uint groups_per_item = (p.n - 1) / TOKENS_PER_WORKGROUP + 1, t = gl_LocalInvocationID.x;
	uint item = workgroup_index() / groups_per_item, first = workgroup_index() % groups_per_item * TOKENS_PER_WORKGROUP;
	if (item >= p.items) return;
	uint count = p.n;
	if (MASKED) {
		if (t == 0) tokens = 0;
		barrier();
		uint own_tokens = 0;
		for (uint i = t; i < p.n; i += THREADS) own_tokens += byte_at(p.mask, item * p.n + i) != 0 ? 1 : 0;
		if (own_tokens > 0) atomicAdd(tokens, own_tokens);
		barrier();
		count = tokens;
	}
	ROW dy = ROW(at(p.dy, item, STRIDE));
	uint end = min(TOKENS_PER_WORKGROUP, p.n - first) * COLUMNS;
	for (uint i = t; i < end; i += THREADS) {
		uint row = item * p.n + first + i / COLUMNS;
		T v = T(0);
		if (!MASKED || byte_at(p.mask, row) != 0) v = dy.v[i % COLUMNS] / float(count);
		ROW(at(p.dx, row, STRIDE)).v[i % COLUMNS] = v;
	}
}
