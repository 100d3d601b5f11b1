#version 460
// Gradients of the rows of keys and values that the lists of routed_attention name by index:
//
//	parts [LISTS, KEYS, HEADS, 2, DIM_HEAD]: gradients of the slots of lists, or of the keys of sets of merged lists
//	table [LISTS, ROUTES, ROWS] u32: see routed_attention_backward_table.comp; or positions of routed_attention_backward_merge.comp
//	dkv [ITEMS, ROWS, HEADS, 2, DIM_HEAD]: the sum over the lists of an item that have the row, in their order
//
// A workgroup computes THREADS units of a row.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"
#include "include/routed_attention.glsl"

layout(constant_id = 0) const uint DIM_HEAD = 1; // elements of a head, 1 to 128
layout(constant_id = 1) const uint DTYPE = 0; // DTYPE_F32, DTYPE_F16 or DTYPE_BF16: of parts and dkv
layout(constant_id = 8) const uint HEADS = 1; // heads of a tensor
const uint THREADS = 128;
layout(local_size_x = 128) in;

layout(push_constant, std430) uniform Push {
	uvec2 parts, table, dkv;
	uint groups;   // workgroups
	uint rows;     // of an item
	uint keys;     // slots of a list
	uint per_item; // lists of an item
} p;

// A unit is 16 bytes of a row if heads are a multiple of that, else a word.
const uint ELEMENTS = 2 * HEADS * DIM_HEAD, ROW_BYTES = ELEMENTS * (DTYPE == DTYPE_F32 ? 4 : 2);
const bool CHUNKS = DIM_HEAD % (DTYPE == DTYPE_F32 ? 4 : 8) == 0;
const uint AT_ONCE = 4; // lists whose memory is read at a time
const uint UNITS = ROW_BYTES / (CHUNKS ? 16 : 4);

void main() {
	const uint groups_per_row = (UNITS + THREADS - 1) / THREADS;
	if (workgroup_index() >= p.groups) return;
	uint row = workgroup_index() / groups_per_row, unit = workgroup_index() % groups_per_row * THREADS + gl_LocalInvocationIndex;
	if (unit >= UNITS) return;
	uint route = unit / (UNITS / ROUTES), first_list = row / p.rows * p.per_item, end = first_list + p.per_item;
	vec4 sum = vec4(0), more = vec4(0); // more: the second half of 8 elements
	for (uint list = first_list; list < end; list += AT_ONCE) {
		uint slots[AT_ONCE], any = 0;
		[[unroll]] for (uint n = 0; n < AT_ONCE; n++) {
			slots[n] = 0;
			if (list + n < end) slots[n] = U32(at(p.table, (list + n) * ROUTES + route, 4 * p.rows)).v[row % p.rows];
			any |= slots[n];
		}
		if (any == 0) continue;
		uvec4 parts[AT_ONCE];
		[[unroll]] for (uint n = 0; n < AT_ONCE; n++) {
			parts[n] = uvec4(0);
			uvec2 part = at(p.parts, (list + n) * p.keys + slots[n] - 1, ROW_BYTES);
			if (CHUNKS) {
				if (slots[n] != 0) parts[n] = U32x4(part).v[unit];
			} else if (slots[n] != 0) parts[n].x = U32(part).v[unit];
		}
		[[unroll]] for (uint n = 0; n < AT_ONCE; n++) {
			uvec4 v = parts[n];
			if (DTYPE == DTYPE_F32) {
				sum += uintBitsToFloat(v);
			} else {
				sum += vec4(unpack16(DTYPE, v.x), unpack16(DTYPE, v.y));
				more += vec4(unpack16(DTYPE, v.z), unpack16(DTYPE, v.w));
			}
		}
	}
	uvec2 to = at(p.dkv, row, ROW_BYTES);
	if (DTYPE == DTYPE_F32) {
		if (CHUNKS) F32x4(to).v[unit] = sum;
		else F32(to).v[unit] = sum.x;
	} else if (CHUNKS) {
		U32x4(to).v[unit] = uvec4(pack16(DTYPE, sum.xy), pack16(DTYPE, sum.zw), pack16(DTYPE, more.xy), pack16(DTYPE, more.zw));
	} else U32(to).v[unit] = pack16(DTYPE, sum.xy);
}
