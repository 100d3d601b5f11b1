#version 460
// Gather: rows by index, for C = 1 single values.
//
//   x [B, N, C]    indices [B, K]    score [B, K] optional    filled [B, K] optional    y [B, K, C]
//   y[b, k] = x[b, indices[b, k]] * score[b, k]; an empty slot gives zeros
//
// A thread makes one column (four with VEC4) of one row of y; a workgroup of 256 makes as many rows as fit. An index outside 0..N-1
// makes a slot empty, so nothing outside x is read.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"

layout(push_constant) uniform Push {
	uvec2 x, indices, score, filled, y;
	uint n, k;
	uint slots; // B * K
} p;

void main() {
	if (idle(p.slots)) return;
	uint slot = thread_row();
	Slot s = read_slot(slot, p.indices, p.score, p.filled, p.k, p.n);
	ROW x = ROW(at(p.x, s.row, STRIDE)), y = ROW(at(p.y, slot, STRIDE));
	for (uint col = thread_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (s.filled) v = x.v[col] * s.score;
		y.v[col] = v;
	}
}
