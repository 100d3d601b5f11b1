#version 460
// Backward of routed_attention: the gradients of its queries, keys, values and scores.
//
//	q, y, dy, dq, kv, null_kv (f32), indices, valid, key_scores, query_valid, query_scores: see routed_attention.comp
//	dkv: as kv; with KEYS_INDEXED [LISTS, KEYS, HEADS, 2, DIM_HEAD] scratch    dnull [LISTS, 2, HEADS, DIM_HEAD] f32
//	states [LISTS, QUERIES, HEADS, 4] f32 scratch
//	query_parts [LISTS, QUERIES, HEADS], key_parts [LISTS, KEYS, HEADS] f32 scratch: gradients of scores by head
//
// A workgroup of QUERIES computes dq of OWN_ROWS queries of a list and a head. One of KEYS computes dk and dv of OWN_ROWS
// key slots of a list and a head, with the null key as the last slot; with KEYS_PREFIX of rows of an item, or of the null
// key of a list. See attention_backward.glsl for formulas and types. Queries are numbered over all lists, so that those of
// an item, which share its rows with KEYS_PREFIX, are consecutive.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#include "include/address.glsl"
#include "include/routed_attention.glsl"

const bool SCORE_KEY_SLOTS = SCORE_VALUES || SCORE_KEYS;
#ifdef QUERIES
#define ATTENTION_SCORES SCORE_QUERIES
#else
#define ATTENTION_SCORES SCORE_KEY_SLOTS
#endif
#define ATTENTION_NULL
#include "include/attention_backward.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 q, kv, indices, valid, key_scores;
#ifdef QUERIES
	uvec2 query_valid, query_scores;
#endif
	uvec2 null_kv, dy;
#ifdef QUERIES
	uvec2 y, states, dq; // query_parts are behind the states of all queries
#else
	uvec2 states, dkv, dnull, key_parts;
#endif
	uint lists, queries, keys;
	uint per_item;    // lists of an item
	uint rows;        // M
	uint window_size; // with KEYS_PREFIX
	uint first, end;  // this dispatch computes workgroups first .. end - 1
} p;

const uint ROUTE_HEADS = HEADS / ROUTES;

uint list, head, item;
uint null_slot; // number of the null key

uint state_row(uint i) { return i * HEADS + head; }
uvec2 states() { return p.states; }

Query query(uint i) {
	Query q = Query(true, at(p.q, i * HEADS + head, ROW_BYTES), at(p.dy, i * HEADS + head, ROW_BYTES), 1);
#ifdef QUERIES
	if (QUERY_VALID) q.exists = U32(p.query_valid).v[i] != 0;
	if (SCORE_QUERIES) q.factor = F32(p.query_scores).v[i];
	q.exists = q.exists && q.factor != 0;
#endif
	return q;
}

// slot_of is the index of a key slot in valid, key_scores and indices.
uint slot_of(uint j) { return KEY_SOURCE == KEYS_PREFIX ? item * p.rows + j : (list * ROUTES + head / ROUTE_HEADS) * p.keys + j; }

// kv_row is the row of a key in kv, whose value is the next row. row is that of the item, if keys are not KEYS_OWN.
uint kv_row(uint j, uint row) {
	if (KEY_SOURCE == KEYS_OWN) return 2 * (((head / ROUTE_HEADS * p.lists + list) * p.keys + j) * ROUTE_HEADS + head % ROUTE_HEADS);
	return 2 * ((item * p.rows + row) * HEADS + head);
}

// null_row is row `row` of null keys or values, which are float32.
uvec2 null_row(uvec2 base, uint row) {
	uvec2 address = at(base, row, 4 * DIM_HEAD);
#ifdef MATRIX
	address.x |= 1;
#endif
	return address;
}

Key key(uint j) {
	if (j == null_slot) return Key(true, null_row(p.null_kv, head), null_row(p.null_kv, HEADS + head), 1, 1);
	uint slot = slot_of(j), row = j;
	bool exists = !VALID || U32(p.valid).v[slot] != 0;
	if (KEY_SOURCE == KEYS_INDEXED) {
		row = U32(p.indices).v[slot];
		exists = exists && row < p.rows; // a negative index is at least 2^31
	}
	float score = SCORE_KEY_SLOTS ? F32(p.key_scores).v[slot] : 1.0;
	uint k = kv_row(j, row);
	return Key(exists, at(p.kv, k, ROW_BYTES), at(p.kv, k + 1, ROW_BYTES), SCORE_KEYS ? score : 1.0, SCORE_VALUES ? score : 1.0);
}

// prefix is the number of rows of its item that a list sees with KEYS_PREFIX.
uint prefix(uint list_of_all) { return min(list_of_all % p.per_item * p.window_size, p.rows); }

#ifdef QUERIES

bool visible(uint i, uint j) { return true; }
uvec2 y_address(uint i) { return at(p.y, i * HEADS + head, ROW_BYTES); }
uvec2 dq_address(uint i) { return at(p.dq, i * HEADS + head, ROW_BYTES); }
#ifdef MATRIX
uint tile_mask(uint i0, uint n, uint j0, uint m) { return TILE_FULL; }
bool factor_has_gradient(uint kind) { return kind == 0; }
#else
float score_gradient(Pair pair, float weight, float dlogit) { return dlogit * (pair.product * LN2) * pair.key_factor; }
#endif
void write_score(uint i, float gradient) { F32(at(at(p.states, p.lists * p.queries * HEADS, 16), i, 4 * HEADS)).v[head] = gradient; }

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	uint tiles = (p.queries + OWN_ROWS - 1) / OWN_ROWS;
	list = group / tiles / HEADS;
	head = group / tiles % HEADS;
	item = list / p.per_item;
	null_slot = KEY_SOURCE == KEYS_PREFIX ? prefix(list) : p.keys;
	backward(list * p.queries + group % tiles * OWN_ROWS, (list + 1) * p.queries, 0, null_slot + 1);
}

#else

bool visible(uint i, uint j) { return KEY_SOURCE != KEYS_PREFIX || j == null_slot || j < prefix(i / p.queries); }

uvec2 dk_address(uint j) {
	if (j == null_slot) return null_row(p.dnull, 2 * list * HEADS + head);
	return at(p.dkv, KEY_SOURCE == KEYS_INDEXED ? 2 * ((list * p.keys + j) * HEADS + head) : kv_row(j, j), ROW_BYTES);
}

uvec2 dv_address(uint j) { return j == null_slot ? null_row(p.dnull, (2 * list + 1) * HEADS + head) : at(dk_address(j), 1, ROW_BYTES); }

#ifdef MATRIX
uint tile_mask(uint i0, uint n, uint j0, uint m) { return KEY_SOURCE != KEYS_PREFIX ? TILE_FULL : TILE_PARTIAL; }
bool factor_has_gradient(uint kind) { return kind == 0 ? SCORE_KEYS : SCORE_VALUES; }
#else
float score_gradient(Pair pair, float weight, float dlogit) {
	return (SCORE_VALUES ? weight * pair.along : 0) + (SCORE_KEYS ? dlogit * (pair.product * LN2) * pair.query_factor : 0);
}
#endif

void write_score(uint j, float gradient) {
	if (j != null_slot) F32(at(p.key_parts, list * p.keys + j, 4 * HEADS)).v[head] = gradient;
}

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	null_slot = KEY_SOURCE == KEYS_PREFIX ? p.rows : p.keys;
	if (KEY_SOURCE != KEYS_PREFIX) {
		uint tiles = (p.keys + OWN_ROWS) / OWN_ROWS;
		list = group / tiles / HEADS;
		head = group / tiles % HEADS;
		item = list / p.per_item;
		backward(group % tiles * OWN_ROWS, p.keys + 1, list * p.queries, (list + 1) * p.queries);
		return;
	}
	uint items = p.lists / p.per_item, tiles = (p.rows + OWN_ROWS - 1) / OWN_ROWS, row_groups = items * tiles * HEADS;
	uint own = null_slot, own_end = null_slot + 1, first, end;
	if (group < row_groups) {
		item = group / tiles / HEADS;
		head = group / tiles % HEADS;
		own = group % tiles * OWN_ROWS;
		own_end = p.rows;
		first = (item * p.per_item + min(own / p.window_size + 1, p.per_item)) * p.queries; // the first list that sees the rows
		end = (item + 1) * p.per_item * p.queries;
	} else {
		list = (group - row_groups) / HEADS;
		head = (group - row_groups) % HEADS;
		first = list * p.queries;
		end = first + p.queries;
	}
	backward(own, own_end, first, end);
}

#endif
