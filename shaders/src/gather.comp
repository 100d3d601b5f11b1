#version 460
// Gather: selects rows by index.
//
//	x [B, N, C]    indices [B, K] i32    score [B, K] optional    valid [B, K] u32 optional    y [B, K, C]
//	y[b, k] = x[b, indices[b, k]] * score[b, k]; 0 for an empty slot
//
// A workgroup of 256 computes the rows of y that fit; an invocation computes a float (vec4 with VEC4) of a row at a
// time. An index outside [0, N) makes a slot empty, so nothing outside x is read.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"
#include "include/slot.glsl"

layout(push_constant) uniform Push {
	uvec2 x, indices, score, valid, y;
	uint n, k;
	uint slots; // B * K
} p;

void main() {
	if (idle(p.slots)) return;
	uint slot = own_row();
	Slot s = read_slot(slot, p.indices, p.score, p.valid, p.k, p.n);
	ROW x = ROW(at(p.x, s.row, STRIDE)), y = ROW(at(p.y, slot, STRIDE));
	for (uint col = first_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (s.writes) v = x.v[col] * s.score;
		y.v[col] = v;
	}
}
