#version 460
// Backward of patch_attention: the gradient of its queries, keys and values.
//
//	qkv, dqkv [Height, Width, 3, HEADS, DIM_HEAD]    y, dy [Height, Width, HEADS, DIM_HEAD]
//	states [Height, Width, HEADS, 4] f32 scratch
//
// A workgroup of QUERIES computes dq of OWN_ROWS tokens of a patch and a head, one of KEYS dk and dv; see
// attention_backward.glsl for formulas and types. Tokens of a patch are numbered as in patch_attention.comp.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#include "include/address.glsl"
#include "include/attention_backward.glsl"
#include "include/patch_attention.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 qkv, dy, y, states, dqkv;
	uint width;      // pixels of a row
	uint first, end; // this dispatch computes workgroups first .. end - 1
} p;

const uint TOKENS = PATCH_SIZE * PATCH_SIZE, TILES = (TOKENS + OWN_ROWS - 1) / OWN_ROWS;

uint corner; // index of the first pixel of the patch
uint head;

uint pixel(uint t) { return corner + t / PATCH_SIZE * p.width + t % PATCH_SIZE; }

// part_of is the row of a token's query, key or value: part 0, 1 or 2.
uint part_of(uint t, uint part) { return (pixel(t) * 3 + part) * HEADS + head; }

uint state_row(uint i) { return pixel(i) * HEADS + head; }
uvec2 states() { return p.states; }
Query query(uint i) { return Query(true, at(p.qkv, part_of(i, 0), ROW_BYTES), at(p.dy, state_row(i), ROW_BYTES), 1); }
Key key(uint j) { return Key(true, at(p.qkv, part_of(j, 1), ROW_BYTES), at(p.qkv, part_of(j, 2), ROW_BYTES), 1, 1); }
bool visible(uint i, uint j) { return true; }
#ifdef MATRIX
uint tile_mask(uint i0, uint n, uint j0, uint m) { return TILE_FULL; }
#endif
#ifdef QUERIES
uvec2 y_address(uint i) { return at(p.y, state_row(i), ROW_BYTES); }
uvec2 dq_address(uint i) { return at(p.dqkv, part_of(i, 0), ROW_BYTES); }
#else
uvec2 dk_address(uint j) { return at(p.dqkv, part_of(j, 1), ROW_BYTES); }
uvec2 dv_address(uint j) { return at(p.dqkv, part_of(j, 2), ROW_BYTES); }
#endif

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	// Consecutive workgroups compute tiles of one patch and head, which share rows in the cache.
	uint tile = group % TILES, patch_ = group / TILES / HEADS;
	head = group / TILES % HEADS;
	uint patches_x = p.width / PATCH_SIZE;
	corner = (patch_ / patches_x * p.width + patch_ % patches_x) * PATCH_SIZE;
	backward(tile * OWN_ROWS, TOKENS, 0, TOKENS);
}
