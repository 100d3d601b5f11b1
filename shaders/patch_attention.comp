#version 450
// Attention of every pixel to all pixels of its w-by-w patch, in float32:
//
//	qkv [Height, Width, 3, H, D]    y [Height, Width, H, D]    token t of patch (py, px) is pixel (py w + t / w, px w + t % w)
//
// A workgroup computes BR tokens of a patch and a head: attention.glsl.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef MATRIX
#include "include/matrix.glsl"
#endif
#include "include/address.glsl"
#include "include/attention.glsl"

layout(constant_id = 8) const uint H = 1;
layout(constant_id = 9) const uint W = 1; // side of a patch

layout(push_constant, std430) uniform Push {
	uvec2 qkv, y;
	uint width;         // pixels of a row
	uint first, groups; // this dispatch runs workgroups first .. groups - 1
} p;

const uint TOKENS = W * W, TILES = (TOKENS + BR - 1) / BR;

uint corner; // first pixel of the patch
uint head;

uint pixel(uint t) { return corner + t / W * p.width + t % W; }

Query query(uint i) { return Query(i < TOKENS, at(p.qkv, pixel(min(i, TOKENS - 1)) * 3 * H + head, ROW_BYTES), 1); }
Key key(uint j) { return Key(true, pixel(j) * 3 * H + head, 1, 1); }
uvec2 key_at(uint row) { return at(p.qkv, row + H, ROW_BYTES); }
uvec2 value_at(uint row) { return at(p.qkv, row + 2 * H, ROW_BYTES); }
uint sight(uint i0, uint n, uint j0) { return EVERYTHING; }
bool visible(uint i, uint j) { return true; }
uvec2 result_at(uint i) { return at(p.y, pixel(i) * H + head, ROW_BYTES); }

void main() {
	uint group = p.first + workgroup();
	if (group >= p.groups) return;
	// Tiles of one patch and head run side by side: they share its keys and values.
	uint tile = group % TILES, patch_ = group / TILES / H;
	head = group / TILES % H;
	uint across = p.width / W;
	corner = (patch_ / across * p.width + patch_ % across) * W;
	attend(tile * BR, 0, TOKENS);
}
