#version 460
// Attention of every token to its neighbourhood:
//
//	qkv [ITEMS, ROWS, 3, HEADS, DIM_HEAD]: row 0 is token first_row of its item    mask [*, N] u8 optional
//	y [ITEMS, COUNT, HEADS, DIM_HEAD]: row 0 is token from of its item
//	token i sees the valid tokens j with |i - j| <= WINDOW
//	with CAUSAL: those with j <= i of its own block of WINDOW tokens and of the previous block
//	with CAUSAL and EXACT: those with j <= i and i - j <= WINDOW
//
// A workgroup computes TILE_QUERIES tokens of an item and a head; see attention.glsl for types. Tiles of keys start at
// multiples of TILE_KEYS from the start of the item, so that the bits of a token do not depend on which part of the
// sequence is computed.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#include "include/address.glsl"
#include "include/attention.glsl"
#include "include/window_attention.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 qkv, mask, y;
	uint n;
	uint rows, first_row; // rows of qkv per item, and the token of row 0
	uint from, count;     // tokens to compute: from .. from + count - 1
	uint first_item;      // row of mask of item 0
	uint first, end;   // this dispatch computes workgroups first .. end - 1
} p;

uint item, head;

// first_key is the first token that token i sees with CAUSAL: without EXACT the start of the block before its own.
uint first_key(uint i) { return EXACT ? max(i, WINDOW) - WINDOW : max(i / WINDOW, 1) * WINDOW - WINDOW; }

// row_of is the row of the token's query, counted in rows of DIM_HEAD elements.
uint row_of(uint token) { return (item * p.rows + (token - p.first_row)) * (3 * HEADS) + head; }

Query query(uint i) {
	uint end = p.from + p.count;
	return Query(i < end, at(p.qkv, row_of(min(i, end - 1)), ROW_BYTES), 1);
}

Key key(uint j) {
	bool exists = j >= p.first_row && j - p.first_row < p.rows;
	if (exists && present(p.mask)) exists = byte_at(p.mask, (p.first_item + item) * p.n + j) != 0;
	return Key(exists, exists ? row_of(j) : 0, 1, 1);
}

uvec2 key_address(uint row) { return at(p.qkv, row + HEADS, ROW_BYTES); }
uvec2 value_address(uint row) { return at(p.qkv, row + 2 * HEADS, ROW_BYTES); }

uint tile_mask(uint i0, uint n, uint j0) {
	uint i1 = i0 + n - 1, j1 = j0 + TILE_KEYS - 1;
	bool none = CAUSAL ? j0 > i1 || j1 < first_key(i0) : j0 > i1 + WINDOW || j1 + WINDOW < i0;
	if (none) return TILE_NONE;
	bool all = CAUSAL ? j1 <= i0 && j0 >= first_key(i1) : j0 + WINDOW >= i1 && j1 <= i0 + WINDOW;
	return all ? TILE_FULL : TILE_PARTIAL;
}

bool visible(uint i, uint j) { return CAUSAL ? j <= i && j >= first_key(i) : j + WINDOW - i <= 2 * WINDOW; }

uvec2 result_address(uint i) { return at(p.y, (item * p.count + (i - p.from)) * HEADS + head, ROW_BYTES); }

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	uint tiles = (p.count + TILE_QUERIES - 1) / TILE_QUERIES, tile = group / HEADS % tiles;
	head = group % HEADS;
	item = group / HEADS / tiles;
	uint i0 = p.from + tile * TILE_QUERIES, i1 = min(i0 + TILE_QUERIES, p.from + p.count);
	uint j0 = CAUSAL ? first_key(i0) : max(i0, WINDOW) - WINDOW, j1 = CAUSAL ? i1 : min(i1 + WINDOW, p.n);
	attend(i0, j0 / TILE_KEYS * TILE_KEYS, j1);
}
