#version 460
// Attention of routed queries to routed keys and values, with one null key and value per head that every query sees:
//
//	q, y [LISTS, QUERIES, HEADS, DIM_HEAD]    null_kv [2, HEADS, DIM_HEAD] f32
//	KEYS_OWN:      kv [ROUTES, LISTS, KEYS, HEADS / ROUTES, 2, DIM_HEAD]: the slots of a list, route by route
//	KEYS_INDEXED:  kv [ITEMS, M, HEADS, 2, DIM_HEAD]    indices [LISTS, ROUTES, KEYS] i32: slot j is row indices[j]
//	               of the list's item
//	KEYS_PREFIX:   kv [ITEMS, M, HEADS, 2, DIM_HEAD]: list l of an item attends to rows 0 .. window_size * l - 1
//	valid, key_scores [LISTS, ROUTES, KEYS]; with KEYS_PREFIX valid [ITEMS, M]
//	query_valid, query_scores [LISTS, QUERIES]
//
// Head h uses route h / (HEADS / ROUTES). A slot is empty if its valid word is 0, a key slot also if its index is not a
// row. A query slot with score 0 is skipped like an empty one. A workgroup computes TILE_QUERIES queries of a list and a
// head; see attention.glsl for types. It does nothing if all of them are skipped. Key slots after the last non-empty one are
// skipped: routers fill lists from the front, many only in part.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#define ATTENTION_NULL
#include "include/address.glsl"
#include "include/attention.glsl"
#include "include/routed_attention.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 q, kv, indices, valid, key_scores, query_valid, query_scores, null_kv, y;
	uint lists, queries, keys;
	uint per_item;      // lists of an item
	uint rows;          // M
	uint window_size;   // with KEYS_PREFIX
	uint first, end; // this dispatch computes workgroups first .. end - 1
} p;

uint list, head;
uint first_slot; // index in valid, key_scores and indices of the first slot of this list and route

// query_exists reports whether a query slot, counted over all lists, is not empty.
bool query_exists(uint slot) {
	if (QUERY_VALID && U32(p.query_valid).v[slot] == 0) return false;
	return !SCORE_QUERIES || F32(p.query_scores).v[slot] != 0;
}

Query query(uint i) {
	uint slot = list * p.queries + min(i, p.queries - 1);
	return Query(i < p.queries && query_exists(slot), at(p.q, slot * HEADS + head, ROW_BYTES), SCORE_QUERIES ? F32(p.query_scores).v[slot] : 1.0);
}

const bool SCORED = SCORE_VALUES || SCORE_KEYS;
const bool MAY_BE_EMPTY = VALID || KEY_SOURCE == KEYS_INDEXED; // key slots

bool key_exists(uint j) {
	if (VALID && U32(p.valid).v[first_slot + j] == 0) return false;
	return KEY_SOURCE != KEYS_INDEXED || U32(p.indices).v[first_slot + j] < p.rows; // a negative index is at least 2^31
}

Key key(uint j) {
	float score = SCORED ? F32(p.key_scores).v[first_slot + j] : 1.0;
	Key k = Key(key_exists(j), 0, SCORE_KEYS ? score : 1.0, SCORE_VALUES ? score : 1.0);
	if (KEY_SOURCE == KEYS_OWN) {
		k.row = 2 * (((head / (HEADS / ROUTES) * p.lists + list) * p.keys + j) * (HEADS / ROUTES) + head % (HEADS / ROUTES));
		return k;
	}
	uint row = KEY_SOURCE == KEYS_INDEXED ? U32(p.indices).v[first_slot + j] : j;
	k.row = 2 * ((list / p.per_item * p.rows + row) * HEADS + head);
	return k;
}

uvec2 key_address(uint row) { return at(p.kv, row, ROW_BYTES); }
uvec2 value_address(uint row) { return at(p.kv, row + 1, ROW_BYTES); }
uint tile_mask(uint i0, uint n, uint j0) { return TILE_FULL; }
bool visible(uint i, uint j) { return true; }
uvec2 result_address(uint i) { return at(p.y, (list * p.queries + i) * HEADS + head, ROW_BYTES); }
uvec2 null_key() { return at(p.null_kv, head, 4 * DIM_HEAD); }
uvec2 null_value() { return at(p.null_kv, HEADS + head, 4 * DIM_HEAD); }

// any_query reports whether a query of the tile exists. The result is the same in all invocations.
bool any_query(uint i0) {
	if (!QUERY_VALID && !SCORE_QUERIES) return true;
	for (uint i = i0; i < min(i0 + TILE_QUERIES, p.queries); i++)
		if (query_exists(list * p.queries + i)) return true;
	return false;
}

// trim returns the end of the keys without the empty slots after the last non-empty one, perhaps rounded up to a tile.
// The result is the same in all invocations. It searches from the end, so a full list takes one iteration.
#ifdef CPU
uint trim(uint keys) {
	if (!MAY_BE_EMPTY) return keys;
	while (keys > 0) {
		uint begin = (keys - 1) / TILE_KEYS * TILE_KEYS;
		bool any = false;
		[[unroll]] for (uint c = 0; c < TILE_KEYS; c++) any = any || begin + c < keys && key_exists(begin + c);
		if (any) break;
		keys = begin;
	}
	return keys;
}
#else
// Some tiles use all shared memory of a device, so the result is exchanged through an element of key_row that attend
// has not written yet.
#define keys_end key_row[0]

uint trim(uint keys) {
	if (!MAY_BE_EMPTY) return keys;
	if (gl_LocalInvocationIndex == 0) keys_end = 0;
	uint end = 0;
	while (keys > 0 && end == 0) {
		uint begin = (keys - 1) / THREADS * THREADS, j = begin + gl_LocalInvocationIndex;
		barrier();
		if (j < keys && key_exists(j)) atomicMax(keys_end, j + 1);
		barrier();
		end = keys_end;
		keys = begin;
	}
	barrier();
	return end;
}
#endif

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	// Consecutive workgroups compute tiles of one list and head, which share keys and values in the cache.
	uint tiles = (p.queries + TILE_QUERIES - 1) / TILE_QUERIES, tile = group % tiles;
	list = group / tiles / HEADS;
	head = group / tiles % HEADS;
	uint keys = p.keys;
	first_slot = (list * ROUTES + head / (HEADS / ROUTES)) * p.keys;
	if (KEY_SOURCE == KEYS_PREFIX) {
		keys = min(list % p.per_item * p.window_size, p.rows);
		first_slot = list / p.per_item * p.rows;
	}
	if (any_query(tile * TILE_QUERIES)) attend(tile * TILE_QUERIES, 0, trim(keys));
}
