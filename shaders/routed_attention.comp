#version 450
// Attention of routed queries to routed keys and values, in float32, with one more key and value for every head:
//
//	q, y [LISTS, QUERIES, H, D]    null [2, H, D]: a key and a value of every head, always seen
//	KEYS_OWN:      kv [R, LISTS, KEYS, H / R, 2, D]: the slots of a list, route by route
//	KEYS_INDEXED:  kv [ITEMS, M, H, 2, D], indices [LISTS, R, KEYS]: slot j is row indices[j] of the list's item
//	KEYS_PREFIX:   kv [ITEMS, M, H, 2, D]: the list sees rows 0 .. PREFIX * (its number in the item) - 1
//	filled, key_scores [LISTS, R, KEYS]    query_filled, query_scores [LISTS, QUERIES]
//
// Head h reads route h / (H / R). A workgroup computes BR queries of a list and a head: attention.glsl.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#define ATTENTION_NULL
#include "include/address.glsl"
#include "include/attention.glsl"

layout(constant_id = 8) const uint H = 1;
layout(constant_id = 9) const uint R = 1;
layout(constant_id = 10) const uint KEYS = 0;
layout(constant_id = 11) const bool FILLED = false;
layout(constant_id = 12) const bool QUERY_FILLED = false;
layout(constant_id = 13) const bool SCORE_VALUES = false;
layout(constant_id = 14) const bool SCORE_KEYS = false;
layout(constant_id = 15) const bool SCORE_QUERIES = false;

const uint KEYS_OWN = 0, KEYS_INDEXED = 1, KEYS_PREFIX = 2;

layout(push_constant, std430) uniform Push {
	uvec2 q, kv, indices, filled, key_scores, query_filled, query_scores, null_kv, y;
	uint lists, queries, keys;
	uint per_item;      // lists of an item
	uint rows;          // M
	uint prefix;
	uint first, groups; // this dispatch runs workgroups first .. groups - 1
} p;

uint list, head, slots; // slots: the first one of this list and route

Query query(uint i) {
	uint slot = list * p.queries + min(i, p.queries - 1);
	bool exists = i < p.queries;
	if (QUERY_FILLED) exists = exists && U32(p.query_filled).v[slot] != 0;
	return Query(exists, at(p.q, slot * H + head, 4 * D), SCORE_QUERIES ? F32(p.query_scores).v[slot] : 1.0);
}

Key key(uint j) {
	Key k = Key(true, 0, 1, 1);
	uint row = j, item = list / p.per_item;
	if (FILLED) k.exists = U32(p.filled).v[slots + j] != 0;
	if (SCORE_VALUES || SCORE_KEYS) {
		float score = F32(p.key_scores).v[slots + j];
		if (SCORE_KEYS) k.key_factor = score;
		if (SCORE_VALUES) k.value_factor = score;
	}
	if (KEYS == KEYS_OWN) {
		k.row = 2 * (((head / (H / R) * p.lists + list) * p.keys + j) * (H / R) + head % (H / R));
		return k;
	}
	if (KEYS == KEYS_INDEXED) {
		row = U32(p.indices).v[slots + j]; // a negative index is a large one here
		k.exists = k.exists && row < p.rows;
	}
	k.row = 2 * ((item * p.rows + row) * H + head);
	return k;
}

uvec2 key_at(uint row) { return at(p.kv, row, 4 * D); }
uvec2 value_at(uint row) { return at(p.kv, row + 1, 4 * D); }
uint sight(uint i0, uint j0) { return EVERYTHING; }
bool visible(uint i, uint j) { return true; }
uvec2 result_at(uint i) { return at(p.y, (list * p.queries + i) * H + head, 4 * D); }
uvec2 null_key() { return at(p.null_kv, head, 4 * D); }
uvec2 null_value() { return at(p.null_kv, H + head, 4 * D); }

// any_query says whether one of the tile's queries exists; all invocations get the same answer.
bool any_query(uint i0) {
	if (!QUERY_FILLED) return true;
	for (uint i = i0; i < min(i0 + BR, p.queries); i++)
		if (U32(p.query_filled).v[list * p.queries + i] != 0) return true;
	return false;
}

void main() {
	uint group = p.first + workgroup();
	if (group >= p.groups) return;
	// Tiles of one list and head run side by side: they share its keys and values.
	uint tiles = (p.queries + BR - 1) / BR, tile = group % tiles;
	list = group / tiles / H;
	head = group / tiles % H;
	slots = (list * R + head / (H / R)) * p.keys;
	uint keys = KEYS == KEYS_PREFIX ? min(list % p.per_item * p.prefix, p.rows) : p.keys;
	if (any_query(tile * BR)) attend(tile * BR, 0, keys);
}
