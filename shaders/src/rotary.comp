#version 460
// Rotary position embedding: pairs of elements of a head are rotated by an angle proportional to the row's position.
//
//	x, y [Lists, Rows] rows of ROW_STRIDE elements with HEADS heads of D = 2 * PAIRS elements, HEAD_STRIDE apart
//	y may alias x    positions [Lists, Routes, Rows] i32 optional    valid [Lists, Routes, Rows] u32 optional
//	table: see pipelines/rotary.go
//	y[d] = x[d] cos - x[d + D/2] sin    y[d + D/2] = x[d + D/2] cos + x[d] sin    angle = position * 10000^(-2d/D)
//	with VEC4, x and y may be f16 or bf16; the arithmetic is float32
//
// The angle of position 256 * hi + lo is the sum of two angles whose cosines and sines are in the table. A workgroup of
// 256 computes the rows that fit; an invocation rotates one pair (four with VEC4) in HEADS_PER_THREAD heads, which
// share the angle. Rows of empty slots are not written: their position may be outside the table.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"
#include "include/rowwise.glsl"

const uint HEADS_PER_THREAD = 4;
layout(constant_id = 1) const uint PAIRS = 1; // T in half a head; COLUMNS is PAIRS * ceil(HEADS / HEADS_PER_THREAD)
layout(constant_id = 2) const uint HEADS = 1; // heads of a row
layout(constant_id = 3) const uint ROW_STRIDE = 2; // distance of rows in elements of type T
layout(constant_id = 4) const uint HEAD_STRIDE = 2; // distance of heads in elements of type T
layout(constant_id = 5) const uint DTYPE = DTYPE_F32; // of x and y
const uint ROW_BYTES = ROW_STRIDE * (DTYPE == DTYPE_F32 ? T_BYTES : T_BYTES / 2);

layout(push_constant, std430) uniform Push {
	uvec2 x, y, table, positions, valid;
	uint slots;         // Lists * Rows
	uint rows;          // of a list
	uint routes, route; // positions and valid have `routes` lists for each list of x; x belongs to list `route` of them
	uint first;         // without positions: the position of row 0 of a list
	uint limit;         // positions in the table
} p;

// angle_sum returns the cosine and sine of the sum of two angles. The roundings are explicit, so that no compiler may
// contract a multiplication and an addition in one place and not in another.
void angle_sum(uint position, uint pair, out T c, out T s) {
	ROW lo = ROW(at(p.table, position & 255, 2 * PAIRS * T_BYTES)), hi = ROW(at(p.table, 256 + (position >> 8), 2 * PAIRS * T_BYTES));
	T cl = lo.v[pair], sl = lo.v[PAIRS + pair], ch = hi.v[pair], sh = hi.v[PAIRS + pair];
	precise T sines = sl * sh, cross_ = cl * sh;
	c = fma(cl, ch, -sines);
	s = fma(sl, ch, cross_);
}

#ifdef VEC4
T load(uvec2 row, uint i) {
	if (DTYPE == DTYPE_F32) return ROW(row).v[i];
	uvec2 words = U32x2(row).v[i];
	return vec4(unpack16(DTYPE, words.x), unpack16(DTYPE, words.y));
}

void store(uvec2 row, uint i, T v) {
	if (DTYPE == DTYPE_F32) ROW(row).v[i] = v;
	else U32x2(row).v[i] = uvec2(pack16(DTYPE, v.xy), pack16(DTYPE, v.zw));
}
#else
T load(uvec2 row, uint i) { return ROW(row).v[i]; }
void store(uvec2 row, uint i, T v) { ROW(row).v[i] = v; }
#endif

void main() {
	if (idle(p.slots)) return;
	uint row = own_row(), list_row = row % p.rows;
	uint slot = (row / p.rows * p.routes + p.route) * p.rows + list_row;
	if (present(p.valid) && U32(p.valid).v[slot] == 0) return;
	uint position = present(p.positions) ? U32(p.positions).v[slot] : p.first + list_row;
	if (position >= p.limit) return; // a negative position is at least 2^31
	uvec2 x = at(p.x, row, ROW_BYTES), y = at(p.y, row, ROW_BYTES);
	for (uint col = first_column(); col < COLUMNS; col += THREADS) {
		uint pair = col % PAIRS, head = col / PAIRS * HEADS_PER_THREAD;
		T c, s;
		angle_sum(position, pair, c, s);
		[[unroll]] for (uint h = 0; h < HEADS_PER_THREAD; h++) {
			uint i = (head + h) * HEAD_STRIDE + pair;
			if (head + h >= HEADS) break;
			T a = load(x, i), b = load(x, i + PAIRS);
			precise T bs = b * s, as = a * s;
			store(y, i, fma(a, c, -bs));
			store(y, i + PAIRS, fma(b, c, as));
		}
	}
}
