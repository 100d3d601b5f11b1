#version 460
// Token embedding: selects rows of a table by id.
//
//	ids [ROWS] i32 or u8    table [V, C]    y [ROWS, C]    invalid_ids: a u32 counter, 0 before the dispatch, optional
//	y[r] = table[ids[r]], 0 where ids[r] is not in [0, V); invalid_ids counts those
//
// A workgroup of 256 computes the rows that fit; an invocation computes a float (vec4 with VEC4) of a row at a time.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/rowwise.glsl"

layout(constant_id = 1) const uint VOCABULARY = 1; // rows of table
layout(constant_id = 2) const bool IDS_ARE_BYTES = false; // ids are u8, else i32

layout(push_constant) uniform Push {
	uvec2 ids, table, y, invalid_ids;
	uint rows;
} p;

void main() {
	if (idle(p.rows)) return;
	uint row = own_row();
	uint id = IDS_ARE_BYTES ? byte_at(p.ids, row) : U32(p.ids).v[row]; // a negative id is at least 2^31, hence invalid
	bool valid = id < VOCABULARY;
	if (!valid && first_column() == 0 && present(p.invalid_ids)) atomicAdd(U32(p.invalid_ids).v[0], 1);
	ROW source = ROW(at(p.table, valid ? id : 0, STRIDE)), y = ROW(at(p.y, row, STRIDE));
	for (uint col = first_column(); col < COLUMNS; col += THREADS) {
		T v = T(0);
		if (valid) v = source.v[col];
		y.v[col] = v;
	}
}
