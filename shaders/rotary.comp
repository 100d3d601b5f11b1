#version 450
// Rotary: pairs of a head's elements turned by an angle that grows with the row's position.
//
//   x, y [Lists, Rows] rows of ROW_STRIDE floats, from each HEADS heads of 2 * PAIRS, HEAD_STRIDE apart; y may be x
//   positions [Lists, Routes, Rows], filled [Lists, Routes, Rows], both optional    table: see pipelines/rotary.go
//   with VEC4 x and y may have numbers of 16 bits, see half.glsl; they are turned as floats
//   y[d] = x[d] cos - x[d + D/2] sin    y[d + D/2] = x[d + D/2] cos + x[d] sin    angle = position * 10000^(-2d/D)
//
// The angle of position 256 * hi + lo is the sum of two angles whose cosines and sines the table has. A thread turns one pair (four
// with VEC4) in HEADS_PER_THREAD heads, which all turn by the same angle; a workgroup of 256 takes as many rows as fit. The row of an empty
// slot, whose position may be one that the table does not reach, is left alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/half.glsl"
#include "include/rowwise.glsl"

const uint HEADS_PER_THREAD = 4;
layout(constant_id = 1) const uint PAIRS = 1; // elements of type T in half a head; COLUMNS is PAIRS * ceil(HEADS / HEADS_PER_THREAD)
layout(constant_id = 2) const uint HEADS = 1; // heads of a row
layout(constant_id = 3) const uint ROW_STRIDE = 2; // distance of rows in elements of type T
layout(constant_id = 4) const uint HEAD_STRIDE = 2; // distance of heads in elements of type T
layout(constant_id = 5) const uint DTYPE = DTYPE_F32; // of x and y
const uint ROW_BYTES = ROW_STRIDE * (DTYPE == DTYPE_F32 ? BYTES : BYTES / 2);

layout(push_constant, std430) uniform Push {
	uvec2 x, y, table, positions, filled;
	uint slots;         // Lists * rows
	uint rows;          // of a list
	uint routes, route; // lists side by side in positions and filled, and which one x belongs to
	uint first;         // position of a list's row 0 where there are no positions
	uint limit;         // positions that the table has
} p;

// turn makes the cosine and the sine of the sum of two angles. All roundings are written out: where a compiler makes one of two, all
// places have to agree.
void turn(uint position, uint pair, out T c, out T s) {
	ROW lo = ROW(at(p.table, position & 255, 2 * PAIRS * BYTES)), hi = ROW(at(p.table, 256 + (position >> 8), 2 * PAIRS * BYTES));
	T cl = lo.v[pair], sl = lo.v[PAIRS + pair], ch = hi.v[pair], sh = hi.v[PAIRS + pair];
	precise T both = sl * sh, cross = cl * sh;
	c = fma(cl, ch, -both);
	s = fma(sl, ch, cross);
}

#ifdef VEC4
T load(uvec2 row, uint i) {
	if (DTYPE == DTYPE_F32) return ROW(row).v[i];
	uvec2 words = U32x2(row).v[i];
	return vec4(unpack(DTYPE, words.x), unpack(DTYPE, words.y));
}

void store(uvec2 row, uint i, T v) {
	if (DTYPE == DTYPE_F32) ROW(row).v[i] = v;
	else U32x2(row).v[i] = uvec2(pack(DTYPE, v.xy), pack(DTYPE, v.zw));
}
#else
T load(uvec2 row, uint i) { return ROW(row).v[i]; }
void store(uvec2 row, uint i, T v) { ROW(row).v[i] = v; }
#endif

void main() {
	if (idle(p.slots)) return;
	uint row = thread_row(), r = row % p.rows;
	uint slot = (row / p.rows * p.routes + p.route) * p.rows + r;
	if (present(p.filled) && U32(p.filled).v[slot] == 0) return;
	uint position = present(p.positions) ? U32(p.positions).v[slot] : p.first + r;
	if (position >= p.limit) return; // a negative one is a large one here
	uvec2 x = at(p.x, row, ROW_BYTES), y = at(p.y, row, ROW_BYTES);
	for (uint col = thread_column(); col < COLUMNS; col += THREADS) {
		uint pair = col % PAIRS, head = col / PAIRS * HEADS_PER_THREAD;
		T c, s;
		turn(position, pair, c, s);
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
