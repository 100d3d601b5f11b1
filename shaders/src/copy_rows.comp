#version 460
// Copy rows: rows of 32-bit words from one tensor into another, each with a distance of its own between rows.
//
//	x: row r starts at word r * x_pitch    y: row r starts at word r * y_pitch
//	y[r, i] = x[r, i], i < width
//
// It concatenates tensors, and takes parts of them: x and y are ranges that start at the first word that is copied. An
// invocation copies one word, a workgroup 256 consecutive words of the rows.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 256;
layout(local_size_x = 256) in;

layout(push_constant) uniform Push {
	uvec2 x, y;
	uint count;            // words of all rows, less than 2^31
	uint width;            // words of a row
	uint x_pitch, y_pitch; // words from the start of a row to the next
} p;

void main() {
	uint i = workgroup_index() * THREADS + gl_LocalInvocationID.x;
	if (i >= p.count) return;
	uint row = i / p.width, column = i % p.width;
	U32(at(p.y, row, 4 * p.y_pitch)).v[column] = U32(at(p.x, row, 4 * p.x_pitch)).v[column];
}
