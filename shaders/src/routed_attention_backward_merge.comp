#version 460
// Merges the key lists of MERGED_LISTS consecutive lists of an item of routed_attention into a set of rows:
//
//	table [LISTS, ROUTES, ROWS] u32: see routed_attention_backward_table.comp
//	rows [SETS, ROUTES, CAPACITY] u32: the rows that lists of the set name, each once
//	slots [SETS, ROUTES, CAPACITY, MERGED_LISTS] u32: the slot of the row in each list, plus 1; 0 where the list does not have it
//	counts [SETS, ROUTES, 2] u32: rows that all lists of the set name, and rows that only some name
//	positions [SETS, ROUTES, ROWS] u32: the position of a row in rows, plus 1; 0 where the set does not have it
//
// Rows that all lists name start at position 0, the others at the last position and go backwards, so that most tiles of
// rows need no mask. A workgroup merges the lists of a set and a route.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"
#include "include/routed_attention.glsl"

const uint THREADS = 256, THREAD_ROWS = 8;
layout(local_size_x = 256) in;

layout(push_constant, std430) uniform Push {
	uvec2 table, rows, slots, counts, positions;
	uint groups;      // workgroups
	uint source_rows; // of an item
	uint capacity;    // positions of a set
	uint per_item;    // lists of an item
} p;

shared uint subgroup_sums[THREADS]; // rows that all lists name, and rows that some name in the high 16 bits

void main() {
	uint group = workgroup_index();
	if (group >= p.groups) return;
	uint set = group / ROUTES, route = group % ROUTES, sets_per_item = (p.per_item + MERGED_LISTS - 1) / MERGED_LISTS;
	uint first_list = set / sets_per_item * p.per_item + set % sets_per_item * MERGED_LISTS;
	uint lists = min(MERGED_LISTS, p.per_item - set % sets_per_item * MERGED_LISTS);
	U32 rows = U32(at(p.rows, group, 4 * p.capacity)), positions = U32(at(p.positions, group, 4 * p.source_rows));
	U32x4 slots = U32x4(at(p.slots, group, 16 * p.capacity));
	uint all = 0, some = 0; // rows before this block
	for (uint block = 0; block < p.source_rows; block += THREADS * THREAD_ROWS) {
		uvec4 found[THREAD_ROWS];
		uint counts = 0;
		[[unroll]] for (uint n = 0; n < THREAD_ROWS; n++) {
			uint row = block + n * THREADS + gl_LocalInvocationIndex;
			bool inside = row < p.source_rows;
			[[unroll]] for (uint l = 0; l < MERGED_LISTS; l++) {
				bool exists = inside && l < lists;
				uint slot = U32(at(p.table, (first_list + (exists ? l : 0)) * ROUTES + route, 4 * p.source_rows)).v[exists ? row : 0];
				found[n][l] = exists ? slot : 0;
			}
		}
		[[unroll]] for (uint n = 0; n < THREAD_ROWS; n++) {
			uint named = uint(found[n].x != 0) + uint(found[n].y != 0) + uint(found[n].z != 0) + uint(found[n].w != 0);
			counts += named == lists ? 1u : named > 0 ? 0x10000u : 0u;
		}
		uint before = subgroupExclusiveAdd(counts), sum = subgroupAdd(counts), total = 0;
		if (subgroupElect()) subgroup_sums[gl_SubgroupID] = sum;
		barrier();
		for (uint i = 0; i < gl_NumSubgroups; i++) {
			if (i == gl_SubgroupID) before += total;
			total += subgroup_sums[i];
		}
		barrier();
		uint next_all = all + (before & 0xffffu), next_some = some + (before >> 16);
		[[unroll]] for (uint n = 0; n < THREAD_ROWS; n++) {
			uint row = block + n * THREADS + gl_LocalInvocationIndex, position = p.capacity;
			uint named = uint(found[n].x != 0) + uint(found[n].y != 0) + uint(found[n].z != 0) + uint(found[n].w != 0);
			if (named == lists) position = next_all++;
			else if (named > 0) position = p.capacity - 1 - next_some++;
			if (position < p.capacity) {
				rows.v[position] = row;
				slots.v[position] = found[n];
			}
			if (row < p.source_rows) positions.v[row] = position < p.capacity ? position + 1 : 0;
		}
		all += total & 0xffffu;
		some += total >> 16;
	}
	if (gl_LocalInvocationIndex == 0) U32x2(p.counts).v[group] = uvec2(all, some);
}
