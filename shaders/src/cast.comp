#version 460
// Casts rows of floats to 16 bits, and pads them with zeros.
//
//	x [ROWS, X_COLUMNS] f32    y [ROWS, Y_COLUMNS] f16 or bf16
//
// A workgroup of 256 computes 4 * 256 words of a row of y, two elements each. An invocation computes 4 words, 256
// apart.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"

layout(constant_id = 0) const uint X_COLUMNS = 1; // elements in a row of x
layout(constant_id = 1) const uint Y_COLUMNS = 2; // elements in a row of y: even, at least X_COLUMNS
layout(constant_id = 2) const uint Y_DTYPE = DTYPE_F16; // DTYPE_F16 or DTYPE_BF16
const uint THREADS = 256, WORDS_PER_THREAD = 4;
layout(local_size_x = 256) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint rows;
} p;

void main() {
	const uint words = Y_COLUMNS / 2;
	uint group = workgroup_index(), groups_per_row = (words + THREADS * WORDS_PER_THREAD - 1) / (THREADS * WORDS_PER_THREAD);
	uint row = group / groups_per_row, first = group % groups_per_row * (THREADS * WORDS_PER_THREAD) + gl_LocalInvocationIndex;
	if (row >= p.rows) return;
	F32 x = F32(at(p.x, row, 4 * X_COLUMNS));
	U32 y = U32(at(p.y, row, 2 * Y_COLUMNS));
	[[unroll]] for (uint i = 0; i < WORDS_PER_THREAD; i++) {
		uint word = first + i * THREADS;
		if (word >= words) break;
		vec2 v = vec2(0);
		if (2 * word < X_COLUMNS) v.x = x.v[2 * word];
		if (2 * word + 1 < X_COLUMNS) v.y = x.v[2 * word + 1];
		y.v[word] = pack16(Y_DTYPE, v);
	}
}
