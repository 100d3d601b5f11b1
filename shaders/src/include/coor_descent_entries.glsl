// Shared by coor_descent.comp and coor_descent_backward.comp: segments, their logits, slots and scores. The including
// file declares the push block `p` first.
#ifndef COLT5_COOR_DESCENT_ENTRIES
#define COLT5_COOR_DESCENT_ENTRIES

#include "float_pair.glsl"
#include "workgroup_sum.glsl"

layout(constant_id = 3) const bool PREFIX_SEGMENTS = false; // segments are prefixes of a row, not blocks of it

const float MAX_LOGIT = 1e38;   // bound of the magnitude of logits
const float NO_ENTRY = -2e38;   // value of an entry that is masked or past the end; its differences to logits are finite
const float MAX_EXPONENT = 87;  // exp(-MAX_EXPONENT) is about the smallest normal float; smaller terms contribute nothing
const float LOG2E = 1.44269504;

// The entries of this invocation. They are addressed as vec4, counted from the invocation's first one, so that those in
// registers are at constant offsets from one address.
int remaining;        // entries from the first one to the end; 0 or less: none
uvec2 logits;         // address of the first entry
uvec2 mask;           // address of the word that has its mask byte
uint mask_skew;       // index of that byte in the word
bool aligned;         // all tensors of entries are 16-byte aligned

// Segment is the location of a segment: entries start .. start + size - 1 of a row.
struct Segment { uint row, start, size; };

Segment segment(uint id) {
	if (PREFIX_SEGMENTS) {
		uint window = id / p.routes;
		return Segment(window / p.blocks * p.routes + id % p.routes, 0, min(window % p.blocks * p.block_size, p.n));
	}
	uint start = id % p.blocks * p.block_size;
	return Segment(id / p.blocks, start, min(p.block_size, p.n - start));
}

uvec2 segment_logits(Segment s) { return at(at(p.logits, s.row, 4 * p.n), s.start, 4); }

// segment_mask_word returns the address of the word that has the segment's first mask byte, and the byte's index in it.
uvec2 segment_mask_word(Segment s, out uint skew) {
	uvec2 first = at(at(p.mask, s.row / p.routes, p.n), s.start, 1);
	skew = first.x & 3;
	return uvec2(first.x - skew, first.y);
}

// slot_entry reports whether a slot of a segment is filled and names a valid entry, and which. Lists and mask are those
// of the segment.
bool slot_entry(Segment s, uint slot, U32 indices, U32 slot_valid, uvec2 mask_word, uint skew, out uint i) {
	i = indices.v[slot] - s.start; // an index before the start wraps to a large one
	bool valid = i < s.size;
	if (valid && present(p.valid)) valid = slot_valid.v[slot] != 0;
	if (valid && present(p.mask)) valid = byte_at(mask_word, skew + i) != 0;
	return valid;
}

// load_mask_bytes returns the mask bytes of vec4 i, of which `count` entries exist.
uint load_mask_bytes(uint i, int count) {
	uint word = U32(mask).v[i] >> (8 * mask_skew);
	if (int(mask_skew) + min(count, 4) > 4) word |= U32(mask).v[i + 1] << (32 - 8 * mask_skew);
	return word;
}

// load_entries returns vec4 i of a tensor, of which `count` entries exist, at least 1.
vec4 load_entries(uvec2 base, uint i, int count) {
	F32 source = F32(base);
	if (count < 4) {
		uint first = 4 * i, end = uint(remaining) - 1;
		return vec4(source.v[first], source.v[min(first + 1, end)], source.v[min(first + 2, end)], 0);
	}
	if (aligned) return F32x4(base).v[i];
	return vec4(source.v[4 * i], source.v[4 * i + 1], source.v[4 * i + 2], source.v[4 * i + 3]);
}

// load_logits returns vec4 i of the logits; NO_ENTRY for entries that are masked or past the end.
vec4 load_logits(uint i) {
	int count = remaining - int(4 * i);
	if (count <= 0) return vec4(NO_ENTRY);
	vec4 s = load_entries(logits, i, count);
	uvec4 valid = uvec4(lessThan(ivec4(0, 1, 2, 3), ivec4(count)));
	if (present(p.mask)) {
		valid *= uvec4(notEqual(uvec4(load_mask_bytes(i, count)) & uvec4(0xff, 0xff00, 0xff0000, 0xff000000), uvec4(0)));
	}
	return mix(vec4(NO_ENTRY), clamp(s, -MAX_LOGIT, MAX_LOGIT), bvec4(valid));
}

// store_entries writes those of vec4 i that exist.
void store_entries(uvec2 base, uint i, vec4 v) {
	int count = remaining - int(4 * i);
	if (count <= 0) return;
	if (aligned && count >= 4) {
		F32x4(base).v[i] = v;
		return;
	}
	F32 destination = F32(base);
	destination.v[4 * i] = v.x;
	if (count > 1) destination.v[4 * i + 1] = v.y;
	if (count > 2) destination.v[4 * i + 2] = v.z;
	if (count > 3) destination.v[4 * i + 3] = v.w;
}

// exp_terms returns exp(min(d, 0) / e).
vec4 exp_terms(vec4 d, float e) { return exp2(clamp(d, -MAX_EXPONENT * e, 0) * (LOG2E / e)); }

// score returns exp(min(s - bound, 0) / e), and exactly 0 for the smallest ones.
vec4 score(vec4 s, FloatPair bound, float e) {
	vec4 d = difference(s, bound);
	vec4 terms = mix(vec4(0), min(exp_terms(d, e), 1), greaterThan(d, vec4(-MAX_EXPONENT * e)));
	return mix(terms, vec4(1), greaterThanEqual(d, vec4(0)));
}

#endif
