#version 460
// Where the lists of routed_attention have a row, for the backward pass of indexed keys:
//
//	indices [LISTS, ROUTES, KEYS] i32    valid [LISTS, ROUTES, KEYS] u32 optional
//	table [LISTS, ROUTES, ROWS] u32: the slot of the row in the list, plus 1; 0 where the list does not have the row
//
// The caller zeroes table. A list names a row at most once.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

const uint THREADS = 128;
layout(local_size_x = 128) in;

layout(push_constant, std430) uniform Push {
	uvec2 indices, valid, table;
	uint slots; // of all lists and routes
	uint keys, rows;
} p;

void main() {
	uint slot = workgroup_index() * THREADS + gl_LocalInvocationIndex;
	if (slot >= p.slots || present(p.valid) && U32(p.valid).v[slot] == 0) return;
	uint row = U32(p.indices).v[slot]; // a negative index is at least 2^31
	if (row < p.rows) U32(at(p.table, slot / p.keys, 4 * p.rows)).v[row] = slot % p.keys + 1;
}
