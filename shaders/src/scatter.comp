#version 460
// Scatter: writes rows to the positions that they were gathered from.
//
//	value [B, K, C]    indices [B, K] i32    score [B, K] optional    valid [B, K] u32 optional
//	base [B, N, C] optional, may alias y    row [C] optional    y [B, N, C]
//	y[b, i] = base[b, i] + row                                      where no slot names row i
//	y[b, i] = value[b, k] * score[b, k] (+ base[b, i] with ADD)     where slot k names row i
//
// Two dispatches: with INIT_PASS the first line for all rows, then the second line for the rows of valid slots. No two
// valid slots may name the same row, so atomics are not needed. A workgroup of 256 writes the rows that fit; an
// invocation writes a float (vec4 with VEC4) of a row at a time. An index outside [0, N) makes a slot empty, so nothing
// outside y is written.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"
#include "include/slot.glsl"

layout(constant_id = 1) const bool INIT_PASS = false; // write base and row to all rows of y
layout(constant_id = 2) const bool ADD = false; // add base to the scattered rows

layout(push_constant) uniform Push {
	uvec2 value, indices, score, valid, base, row, y;
	uint n, k;
	uint rows; // INIT_PASS: B * N, else B * K
} p;

void init_row(uint i) {
	ROW base = ROW(at(p.base, i, STRIDE)), row = ROW(p.row), y = ROW(at(p.y, i, STRIDE));
	for (uint col = first_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (present(p.base)) v = base.v[col];
		if (present(p.row)) v += row.v[col];
		y.v[col] = v;
	}
}

void scatter_row(uint slot) {
	Slot s = read_slot(slot, p.indices, p.score, p.valid, p.k, p.n);
	if (!s.writes) return;
	ROW value = ROW(at(p.value, slot, STRIDE)), base = ROW(at(p.base, s.row, STRIDE)), y = ROW(at(p.y, s.row, STRIDE));
	for (uint col = first_column(); col < COLUMNS; col += THREADS) {
		T v = value.v[col] * s.score;
		if (ADD && present(p.base)) v += base.v[col];
		y.v[col] = v;
	}
}

void main() {
	if (idle(p.rows)) return;
	if (INIT_PASS) init_row(own_row());
	else scatter_row(own_row());
}
