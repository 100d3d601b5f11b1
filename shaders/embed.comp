#version 460
// Token embedding: rows of a table by id.
//
//   ids [ROWS], i32 or bytes    table [VOCABULARY, C]    y [ROWS, C]    bad: one word, 0 before
//   y[r] = table[ids[r]], zeros where the id is not one of 0..VOCABULARY-1; bad = the number of these
//
// A thread makes one column (four if C is a multiple of 4) of one row; a workgroup of 256 makes as many rows as fit.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"

layout(constant_id = 1) const uint VOCABULARY = 1; // rows of table
layout(constant_id = 2) const bool IDS_ARE_BYTES = false; // ids are u8, else i32

layout(push_constant) uniform Push {
	uvec2 ids, table, y, bad;
	uint rows;
} p;

void main() {
	if (idle(p.rows)) return;
	uint row = thread_row();
	uint id = IDS_ARE_BYTES ? byte_at(p.ids, row) : U32(p.ids).v[row]; // a negative one is a large one here
	bool known = id < VOCABULARY;
	if (!known && thread_column() == 0 && present(p.bad)) atomicAdd(U32(p.bad).v[0], 1);
	ROW from = ROW(at(p.table, known ? id : 0, STRIDE)), y = ROW(at(p.y, row, STRIDE));
	for (uint col = thread_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (known) v = from.v[col];
		y.v[col] = v;
	}
}
