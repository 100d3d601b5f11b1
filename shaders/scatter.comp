#version 460
// Scatter: rows back to their positions.
//
//   value [B, K, C]    indices [B, K]    score [B, K] optional    filled [B, K] optional
//   base [B, N, C] optional, may be y    row [C] optional    y [B, N, C]
//   y[b, i] = base[b, i] + row                                      where no slot names row i
//   y[b, i] = value[b, k] * score[b, k] (+ base[b, i] if ADD)       where slot k does
//
// Two dispatches: with INIT_PASS the first line for all rows, then the second line for the named ones. No two filled slots may name
// the same row, so nothing is atomic. A thread makes one column (four with VEC4) of one row; a workgroup of 256 makes as many rows
// as fit. An index outside 0..N-1 makes a slot empty, so nothing outside y is written.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"

layout(constant_id = 1) const bool INIT_PASS = false; // write base and row to all rows of y
layout(constant_id = 2) const bool ADD = false; // add base to the scattered rows

layout(push_constant) uniform Push {
	uvec2 value, indices, score, filled, base, row, y;
	uint n, k;
	uint rows; // INIT_PASS: B * N, else B * K
} p;

void initialise(uint i) {
	ROW base = ROW(at(p.base, i, STRIDE)), row = ROW(p.row), y = ROW(at(p.y, i, STRIDE));
	for (uint col = thread_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (present(p.base)) v = base.v[col];
		if (present(p.row)) v += row.v[col];
		y.v[col] = v;
	}
}

void place(uint slot) {
	Slot s = read_slot(slot, p.indices, p.score, p.filled, p.k, p.n);
	if (!s.filled) return;
	ROW value = ROW(at(p.value, slot, STRIDE)), base = ROW(at(p.base, s.row, STRIDE)), y = ROW(at(p.y, s.row, STRIDE));
	for (uint col = thread_column(); col < COLUMNS; col += THREADS) {
		T v = value.v[col] * s.score;
		if (ADD && present(p.base)) v += base.v[col];
		y.v[col] = v;
	}
}

void main() {
	if (idle(p.rows)) return;
	if (INIT_PASS) initialise(thread_row());
	else place(thread_row());
}
