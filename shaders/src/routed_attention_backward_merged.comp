#version 460
// routed_attention_backward.comp for indexed keys without scores, where the lists of an item have many rows in common, as
// those of consecutive windows do. The lists of a set, MERGED_LISTS consecutive ones of an item, are computed together:
//
//	rows, slots, counts: the keys of sets, from routed_attention_backward_merge.comp
//	parts [SETS, CAPACITY, HEADS, 2, DIM_HEAD]: gradients of the keys and values of a set
//	dnull [LISTS, 2, HEADS, DIM_HEAD] f32: that of a set is written for its first list
//	kv, null_kv, q, y, dy, dq, states, query_valid, query_scores, query_parts, key_parts: see routed_attention_backward.comp
//
// A workgroup of QUERIES computes dq of OWN_ROWS queries of a set and a head. One of KEYS computes dk and dv of OWN_ROWS keys
// of a set and a head, and of further ones if the set has more than `launched`. The keys of a set are numbered from 0 on:
// those that all lists name, the others, and the null key.
//
// KEYS numbers the queries of a set so that each list starts with a tile: a list has list_span numbers. The gradient of the
// score of a value is a sum for each list.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/matrix_operands.glsl"
#include "include/address.glsl"
#include "include/routed_attention.glsl"

#define MERGED
#define ATTENTION_NULL
#ifdef QUERIES
#define ATTENTION_SCORES SCORE_QUERIES
#endif
#include "include/attention_backward.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 q, kv, rows, slots, counts;
#ifdef QUERIES
	uvec2 query_valid, query_scores, null_kv, dy, y, states, dq; // query_parts are behind the states of all queries
#else
	uvec2 null_kv, dy, states, parts, dnull, key_parts;
#endif
	uint lists, queries;
	uint per_item; // lists of an item
	uint kv_rows;  // M
	uint capacity; // positions of a set
#ifdef KEYS
	uint keys;     // slots of a list
	uint launched; // keys of a set, with the null key, that have a workgroup of their own
#endif
	uint first, end; // this dispatch computes workgroups first .. end - 1
} p;

const uint ROUTE_HEADS = HEADS / ROUTES;

uint set, head, item;
uint first_list, set_lists; // the lists of the set
uvec2 set_keys;             // keys that all lists of the set name, and those that some name
uint null_slot;             // number of the null key

uint sets_per_item() { return (p.per_item + MERGED_LISTS - 1) / MERGED_LISTS; }
uint set_route() { return set * ROUTES + head / ROUTE_HEADS; }

void find_set() {
	uint first = set % sets_per_item() * MERGED_LISTS;
	item = set / sets_per_item();
	first_list = item * p.per_item + first;
	set_lists = min(MERGED_LISTS, p.per_item - first);
	set_keys = U32x2(p.counts).v[set_route()];
	null_slot = set_keys.x + set_keys.y;
}

// position is that of key j in rows and slots.
uint position_of(uint j) { return j < set_keys.x ? j : p.capacity - 1 - (j - set_keys.x); }

uvec2 null_row(uvec2 base, uint row) {
	uvec2 address = at(base, row, 4 * DIM_HEAD);
	address.x |= 1;
	return address;
}

Key key(uint j) {
	if (j == null_slot) return Key(true, null_row(p.null_kv, head), null_row(p.null_kv, HEADS + head), 1, 1);
	uint row = U32(at(p.rows, set_route(), 4 * p.capacity)).v[position_of(j)], k = 2 * ((item * p.kv_rows + row) * HEADS + head);
	return Key(true, at(p.kv, k, ROW_BYTES), at(p.kv, k + 1, ROW_BYTES), 1, 1);
}

// slots_of returns the slot of key j in each list of the set, plus 1, or 0.
uvec4 slots_of(uint j) { return j == null_slot ? uvec4(NULL_SLOT) : U32x4(at(p.slots, set_route(), 16 * p.capacity)).v[position_of(j)]; }

uint tile_mask(uint i0, uint n, uint j0, uint m) { return j0 + m <= set_keys.x ? TILE_FULL : TILE_PARTIAL; }
bool visible(uint i, uint j) { return true; } // attention_backward_matrix.glsl has the lists of rows in shared memory

uvec2 states() { return p.states; }

#ifdef QUERIES

Query query(uint i) {
	Query q = Query(true, at(p.q, i * HEADS + head, ROW_BYTES), at(p.dy, i * HEADS + head, ROW_BYTES), 1);
	if (QUERY_VALID) q.exists = U32(p.query_valid).v[i] != 0;
	if (SCORE_QUERIES) q.factor = F32(p.query_scores).v[i];
	q.exists = q.exists && q.factor != 0;
	return q;
}

uint list_of_query(uint i) { return i / p.queries - first_list; }
uint state_row(uint i) { return i * HEADS + head; }
uvec2 y_address(uint i) { return at(p.y, i * HEADS + head, ROW_BYTES); }
uvec2 dq_address(uint i) { return at(p.dq, i * HEADS + head, ROW_BYTES); }
bool factor_has_gradient(uint kind) { return kind == 0; }
void write_score(uint i, float gradient) { F32(at(at(p.states, p.lists * p.queries * HEADS, 16), i, 4 * HEADS)).v[head] = gradient; }

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	uint tiles = (MERGED_LISTS * p.queries + OWN_ROWS - 1) / OWN_ROWS;
	set = group / tiles / HEADS;
	head = group / tiles % HEADS;
	find_set();
	backward(first_list * p.queries + group % tiles * OWN_ROWS, (first_list + set_lists) * p.queries, 0, null_slot + 1);
}

#else

uint list_span() { return (p.queries + OTHER_ROWS - 1) / OTHER_ROWS * OTHER_ROWS; }
uint list_of_query(uint i) { return i / list_span(); }
bool is_query(uint i) { return i % list_span() < p.queries; }
uint query_row(uint i) { return (first_list + list_of_query(i)) * p.queries + i % list_span(); }
uint state_row(uint i) { return query_row(i) * HEADS + head; }

Query query(uint i) {
	uint row = state_row(i);
	return Query(true, at(p.q, row, ROW_BYTES), at(p.dy, row, ROW_BYTES), 1);
}

uvec2 dk_address(uint j) {
	if (j == null_slot) return null_row(p.dnull, 2 * first_list * HEADS + head);
	return at(p.parts, 2 * ((set * p.capacity + position_of(j)) * HEADS + head), ROW_BYTES);
}

uvec2 dv_address(uint j) { return j == null_slot ? null_row(p.dnull, (2 * first_list + 1) * HEADS + head) : at(dk_address(j), 1, ROW_BYTES); }

void write_list_score(uint list, uint slot, float gradient) { F32(at(p.key_parts, (first_list + list) * p.keys + slot, 4 * HEADS)).v[head] = gradient; }

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	uint tiles = (p.launched + OWN_ROWS - 1) / OWN_ROWS, units = p.lists / p.per_item * sets_per_item() * HEADS;
	set = group % units / HEADS; // the tiles that may have no keys come last
	head = group % HEADS;
	find_set();
	for (uint own = group / units * OWN_ROWS; own <= null_slot; own += tiles * OWN_ROWS) {
		backward(own, null_slot + 1, 0, set_lists * list_span());
		barrier();
	}
}

#endif
