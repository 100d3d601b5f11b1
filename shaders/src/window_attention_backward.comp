#version 460
// Backward of window_attention: the gradient of its queries, keys and values.
//
//	qkv, dqkv [ITEMS, N, 3, HEADS, DIM_HEAD]    mask [ITEMS, N] u8 optional    y, dy [ITEMS, N, HEADS, DIM_HEAD]
//	states [ITEMS, N, HEADS, 4] f32 scratch
//
// A workgroup of QUERIES computes dq of OWN_ROWS tokens of an item and a head, one of KEYS dk and dv; see
// attention_backward.glsl for formulas and types. Rows are numbered by the token in its item.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#include "include/address.glsl"
#include "include/attention_backward.glsl"
#include "include/window_attention.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 qkv, mask, dy, y, states, dqkv;
	uint n;
	uint first, end; // this dispatch computes workgroups first .. end - 1
} p;

uint item, head;

// row_of is the row of the token's query, counted in rows of DIM_HEAD elements.
uint row_of(uint token) { return (item * p.n + token) * (3 * HEADS) + head; }

Query query(uint i) { return Query(true, at(p.qkv, row_of(i), ROW_BYTES), at(p.dy, state_row(i), ROW_BYTES), 1); }

Key key(uint j) {
	bool exists = !present(p.mask) || byte_at(p.mask, item * p.n + j) != 0;
	return Key(exists, at(p.qkv, row_of(j) + HEADS, ROW_BYTES), at(p.qkv, row_of(j) + 2 * HEADS, ROW_BYTES), 1, 1);
}

// first_key and visible are those of window_attention.comp.
uint first_key(uint i) { return EXACT ? max(i, WINDOW) - WINDOW : max(i / WINDOW, 1) * WINDOW - WINDOW; }
bool visible(uint i, uint j) { return CAUSAL ? j <= i && j >= first_key(i) : j + WINDOW - i <= 2 * WINDOW; }

#ifdef MATRIX
uint tile_mask(uint i0, uint n, uint j0, uint m) {
	uint i1 = i0 + n - 1, j1 = j0 + m - 1;
	bool none = CAUSAL ? j0 > i1 || j1 < first_key(i0) : j0 > i1 + WINDOW || j1 + WINDOW < i0;
	if (none) return TILE_NONE;
	bool all = CAUSAL ? j1 <= i0 && j0 >= first_key(i1) : j0 + WINDOW >= i1 && j1 <= i0 + WINDOW;
	return all ? TILE_FULL : TILE_PARTIAL;
}
#endif

uint state_row(uint i) { return (item * p.n + i) * HEADS + head; }
uvec2 states() { return p.states; }
#ifdef QUERIES
uvec2 y_address(uint i) { return at(p.y, state_row(i), ROW_BYTES); }
uvec2 dq_address(uint i) { return at(p.dqkv, row_of(i), ROW_BYTES); }
#else
uvec2 dk_address(uint j) { return at(p.dqkv, row_of(j) + HEADS, ROW_BYTES); }
uvec2 dv_address(uint j) { return at(p.dqkv, row_of(j) + 2 * HEADS, ROW_BYTES); }

// last_query is the last token that sees token j, if the item is long enough.
uint last_query(uint j) { return !CAUSAL || EXACT ? j + WINDOW : (j / WINDOW + 2) * WINDOW - 1; }
#endif

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	uint tiles = (p.n + OWN_ROWS - 1) / OWN_ROWS, tile = group / HEADS % tiles;
	head = group % HEADS;
	item = group / HEADS / tiles;
	uint own = tile * OWN_ROWS, own_end = min(own + OWN_ROWS, p.n);
#ifdef QUERIES
	uint first = CAUSAL ? first_key(own) : max(own, WINDOW) - WINDOW, end = CAUSAL ? own_end : min(own_end + WINDOW, p.n);
#else
	uint first = CAUSAL ? own : max(own, WINDOW) - WINDOW, end = min(last_query(own_end - 1) + 1, p.n);
#endif
#ifdef MATRIX // tiles start at multiples of OTHER_ROWS, so that few are partial
	first = first / OTHER_ROWS * OTHER_ROWS;
#endif
	backward(own, own_end, first, end);
}
