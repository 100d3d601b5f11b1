#version 450
// Attention of every pixel to all pixels of its w-by-w patch, in float32:
//
//	qkv [Height, Width, 3, HEADS, DIM_HEAD]    y [Height, Width, HEADS, DIM_HEAD]    token t of patch (py, px) is pixel (py w + t / w, px w + t % w)
//
// A workgroup computes TILE_QUERIES tokens of a patch and a head: attention.glsl.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix.glsl"
#endif
#include "include/address.glsl"
#include "include/attention.glsl"

layout(constant_id = 9) const uint PATCH_SIZE = 1; // pixels along a side of a patch

layout(push_constant, std430) uniform Push {
	uvec2 qkv, y;
	uint width;         // pixels of a row
	uint first, groups; // this dispatch runs workgroups first .. groups - 1
} p;

const uint TOKENS = PATCH_SIZE * PATCH_SIZE, TILES = (TOKENS + TILE_QUERIES - 1) / TILE_QUERIES;

uint corner; // first pixel of the patch
uint head;

uint pixel(uint t) { return corner + t / PATCH_SIZE * p.width + t % PATCH_SIZE; }

Query query(uint i) { return Query(i < TOKENS, at(p.qkv, pixel(min(i, TOKENS - 1)) * 3 * HEADS + head, ROW_BYTES), 1); }
Key key(uint j) { return Key(true, pixel(j) * 3 * HEADS + head, 1, 1); }
uvec2 key_at(uint row) { return at(p.qkv, row + HEADS, ROW_BYTES); }
uvec2 value_at(uint row) { return at(p.qkv, row + 2 * HEADS, ROW_BYTES); }
uint sight(uint i0, uint n, uint j0) { return EVERYTHING; }
bool visible(uint i, uint j) { return true; }
uvec2 result_at(uint i) { return at(p.y, pixel(i) * HEADS + head, ROW_BYTES); }

void main() {
	uint group = p.first + workgroup();
	if (group >= p.groups) return;
	// Tiles of one patch and head run side by side: they share its keys and values.
	uint tile = group % TILES, patch_ = group / TILES / HEADS;
	head = group / TILES % HEADS;
	uint across = p.width / PATCH_SIZE;
	corner = (patch_ / across * p.width + patch_ % across) * PATCH_SIZE;
	attend(tile * TILE_QUERIES, 0, TOKENS);
}
