#version 460
// Attention of every pixel to all pixels of its PATCH_SIZE x PATCH_SIZE patch:
//
//	qkv [Height, Width, 3, HEADS, DIM_HEAD]    y [Height, Width, HEADS, DIM_HEAD]
//	with P = PATCH_SIZE, token t of patch (py, px) is pixel (P * py + t / P, P * px + t % P)
//
// A workgroup computes TILE_QUERIES tokens of a patch and a head; see attention.glsl for types.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix_operands.glsl"
#endif
#include "include/address.glsl"
#include "include/attention.glsl"
#include "include/patch_attention.glsl"

layout(push_constant, std430) uniform Push {
	uvec2 qkv, y;
	uint width;         // pixels of a row
	uint first, end; // this dispatch computes workgroups first .. end - 1
} p;

const uint TOKENS = PATCH_SIZE * PATCH_SIZE, TILES = (TOKENS + TILE_QUERIES - 1) / TILE_QUERIES;

uint corner; // index of the first pixel of the patch
uint head;

uint pixel(uint t) { return corner + t / PATCH_SIZE * p.width + t % PATCH_SIZE; }

Query query(uint i) { return Query(i < TOKENS, at(p.qkv, pixel(min(i, TOKENS - 1)) * 3 * HEADS + head, ROW_BYTES), 1); }
Key key(uint j) { return Key(true, pixel(j) * 3 * HEADS + head, 1, 1); }
uvec2 key_address(uint row) { return at(p.qkv, row + HEADS, ROW_BYTES); }
uvec2 value_address(uint row) { return at(p.qkv, row + 2 * HEADS, ROW_BYTES); }
uint tile_mask(uint i0, uint n, uint j0) { return TILE_FULL; }
bool visible(uint i, uint j) { return true; }
uvec2 result_address(uint i) { return at(p.y, pixel(i) * HEADS + head, ROW_BYTES); }

void main() {
	uint group = p.first + workgroup_index();
	if (group >= p.end) return;
	// Consecutive workgroups compute tiles of one patch and head, which share keys and values in the cache.
	uint tile = group % TILES, patch_ = group / TILES / HEADS;
	head = group / TILES % HEADS;
	uint patches_x = p.width / PATCH_SIZE;
	corner = (patch_ / patches_x * p.width + patch_ % patches_x) * PATCH_SIZE;
	attend(tile * TILE_QUERIES, 0, TOKENS);
}
