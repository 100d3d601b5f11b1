#version 450
// Attention of routed queries to routed keys and values, in float32, with one more key and value for every head:
//
//	q, y [LISTS, QUERIES, HEADS, DIM_HEAD]    null [2, HEADS, DIM_HEAD]: a key and a value of every head, always seen
//	KEYS_OWN:      kv [ROUTES, LISTS, KEY_SOURCE, HEADS / ROUTES, 2, DIM_HEAD]: the slots of a list, route by route
//	KEYS_INDEXED:  kv [ITEMS, M, HEADS, 2, DIM_HEAD], indices [LISTS, ROUTES, KEY_SOURCE]: slot j is row indices[j] of the list's item
//	KEYS_PREFIX:   kv [ITEMS, M, HEADS, 2, DIM_HEAD]: the list sees rows 0 .. PREFIX * (its number in the item) - 1
//	filled, key_scores [LISTS, ROUTES, KEY_SOURCE]    query_filled, query_scores [LISTS, QUERIES]
//	KEYS_PREFIX: filled [ITEMS, M]
//
// Head h reads route h / (HEADS / ROUTES). A slot, of keys or of queries, is empty if its filled word is 0; one of keys if its index is no row;
// one of queries if its score is 0. A workgroup computes TILE_QUERIES queries of a list and a head: attention.glsl. It does nothing if they are
// all empty, and goes no further than the last slot of the keys that is not: lists are filled from the front, and many only in part.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix.glsl"
#endif
#define ATTENTION_NULL
#include "include/address.glsl"
#include "include/attention.glsl"

layout(constant_id = 9) const uint ROUTES = 1; // key lists of a list; head h uses list h / (HEADS / ROUTES)
layout(constant_id = 10) const uint KEY_SOURCE = 0; // KEYS_OWN, KEYS_INDEXED or KEYS_PREFIX
layout(constant_id = 11) const bool VALID = false; // key slots with valid = 0 are empty
layout(constant_id = 12) const bool QUERY_VALID = false; // query slots with query_valid = 0 are empty
layout(constant_id = 13) const bool SCORE_VALUES = false; // multiply values by key_scores
layout(constant_id = 14) const bool SCORE_KEYS = false; // multiply keys by key_scores
layout(constant_id = 15) const bool SCORE_QUERIES = false; // multiply queries by query_scores

const uint KEYS_OWN = 0, KEYS_INDEXED = 1, KEYS_PREFIX = 2;

layout(push_constant, std430) uniform Push {
	uvec2 q, kv, indices, filled, key_scores, query_filled, query_scores, null_kv, y;
	uint lists, queries, keys;
	uint per_item;      // lists of an item
	uint rows;          // M
	uint prefix;
	uint first, groups; // this dispatch runs workgroups first .. groups - 1
} p;

uint list, head, slots; // slots: where filled, key_scores and indices have the first one of this list and route

// query_exists says whether a slot of the queries, counted over all lists, is there.
bool query_exists(uint slot) {
	if (QUERY_VALID && U32(p.query_filled).v[slot] == 0) return false;
	return !SCORE_QUERIES || F32(p.query_scores).v[slot] != 0;
}

Query query(uint i) {
	uint slot = list * p.queries + min(i, p.queries - 1);
	return Query(i < p.queries && query_exists(slot), at(p.q, slot * HEADS + head, ROW_BYTES), SCORE_QUERIES ? F32(p.query_scores).v[slot] : 1.0);
}

const bool SCORED = SCORE_VALUES || SCORE_KEYS, HOLES = VALID || KEY_SOURCE == KEYS_INDEXED;

bool key_exists(uint j) {
	if (VALID && U32(p.filled).v[slots + j] == 0) return false;
	return KEY_SOURCE != KEYS_INDEXED || U32(p.indices).v[slots + j] < p.rows; // a negative index is a large one here
}

Key key(uint j) {
	float score = SCORED ? F32(p.key_scores).v[slots + j] : 1.0;
	Key k = Key(key_exists(j), 0, SCORE_KEYS ? score : 1.0, SCORE_VALUES ? score : 1.0);
	if (KEY_SOURCE == KEYS_OWN) {
		k.row = 2 * (((head / (HEADS / ROUTES) * p.lists + list) * p.keys + j) * (HEADS / ROUTES) + head % (HEADS / ROUTES));
		return k;
	}
	uint row = KEY_SOURCE == KEYS_INDEXED ? U32(p.indices).v[slots + j] : j;
	k.row = 2 * ((list / p.per_item * p.rows + row) * HEADS + head);
	return k;
}

uvec2 key_at(uint row) { return at(p.kv, row, ROW_BYTES); }
uvec2 value_at(uint row) { return at(p.kv, row + 1, ROW_BYTES); }
uint sight(uint i0, uint n, uint j0) { return EVERYTHING; }
bool visible(uint i, uint j) { return true; }
uvec2 result_at(uint i) { return at(p.y, (list * p.queries + i) * HEADS + head, ROW_BYTES); }
uvec2 null_key() { return at(p.null_kv, head, 4 * DIM_HEAD); }
uvec2 null_value() { return at(p.null_kv, HEADS + head, 4 * DIM_HEAD); }

// any_query says whether one of the tile's queries exists; all invocations get the same answer.
bool any_query(uint i0) {
	if (!QUERY_VALID && !SCORE_QUERIES) return true;
	for (uint i = i0; i < min(i0 + TILE_QUERIES, p.queries); i++)
		if (query_exists(list * p.queries + i)) return true;
	return false;
}

// trim is the end of the keys, or of the last tile of them, without the empty slots behind the last one that is not; the same in all
// invocations. It looks from the end on, so a full list costs it one step.
#ifdef CPU
uint trim(uint keys) {
	if (!HOLES) return keys;
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
// It has no shared memory of its own, for some tiles take all that a device has: the place of a key that attend has not begun to look up
// does as well.
#define keys_end key_row[0]

uint trim(uint keys) {
	if (!HOLES) return keys;
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
	uint group = p.first + workgroup();
	if (group >= p.groups) return;
	// Tiles of one list and head run side by side: they share its keys and values.
	uint tiles = (p.queries + TILE_QUERIES - 1) / TILE_QUERIES, tile = group % tiles;
	list = group / tiles / HEADS;
	head = group / tiles % HEADS;
	uint keys = p.keys;
	slots = (list * ROUTES + head / (HEADS / ROUTES)) * p.keys;
	if (KEY_SOURCE == KEYS_PREFIX) {
		keys = min(list % p.per_item * p.prefix, p.rows);
		slots = list / p.per_item * p.rows;
	}
	if (any_query(tile * TILE_QUERIES)) attend(tile * TILE_QUERIES, 0, trim(keys));
}
