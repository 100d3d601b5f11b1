#version 450
// Rows of floats to rows of 16 bits, longer by zeros:
//
//	x [ROWS, X_COLUMNS] f32    y [ROWS, Y_COLUMNS] in Y_DTYPE, Y_COLUMNS being even and at least X_COLUMNS
//
// An invocation makes WORDS words of y, two numbers each, a workgroup's width apart.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/half.glsl"

const uint THREADS = 256, WORDS = 4;
layout(local_size_x = 256) in;

layout(constant_id = 0) const uint X_COLUMNS = 1; // elements in a row of x
layout(constant_id = 1) const uint Y_COLUMNS = 2; // elements in a row of y: even, at least X_COLUMNS
layout(constant_id = 2) const uint Y_DTYPE = DTYPE_F16; // DTYPE_F16 or DTYPE_BF16

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint rows;
} p;

void main() {
	const uint across = Y_COLUMNS / 2;
	uint group = workgroup(), groups_a_row = (across + THREADS * WORDS - 1) / (THREADS * WORDS);
	uint row = group / groups_a_row, first = group % groups_a_row * (THREADS * WORDS) + gl_LocalInvocationIndex;
	if (row >= p.rows) return;
	F32 x = F32(at(p.x, row, 4 * X_COLUMNS));
	U32 y = U32(at(p.y, row, 2 * Y_COLUMNS));
	[[unroll]] for (uint i = 0; i < WORDS; i++) {
		uint word = first + i * THREADS;
		if (word >= across) break;
		vec2 v = vec2(0);
		if (2 * word < X_COLUMNS) v.x = x.v[2 * word];
		if (2 * word + 1 < X_COLUMNS) v.y = x.v[2 * word + 1];
		y.v[word] = pack(Y_DTYPE, v);
	}
}
