// Shared by both variants of coor_descent.comp: entries of a segment, arithmetic with float pairs, sums over a
// workgroup. The including file declares the push block `p` first.
#ifndef COLT5_COOR_DESCENT
#define COLT5_COOR_DESCENT

layout(constant_id = 3) const bool PREFIX_SEGMENTS = false; // segments are prefixes of a row, not blocks of it
layout(constant_id = 4) const bool K_PER_ROW = false; // every row has a k of its own; segments are rows

const float MAX_LOGIT = 1e38;   // bound of the magnitude of logits
const float NO_ENTRY = -2e38;   // value of an entry that is masked or past the end; its differences to logits are finite
const float MAX_EXPONENT = 87;  // exp(-MAX_EXPONENT) is about the smallest normal float; smaller terms contribute nothing
const float LOG2E = 1.44269504;
const float MIN_K = 1e-6, MAX_K = 1e30; // keep all products and quotients in the range of float

// The segment of this workgroup.
uint size; // entries
float k;   // number of entries to select; 0: all of them

// The entries of this invocation. They are addressed as vec4, counted from the invocation's first one, so that those in
// registers are at constant offsets from one address.
int remaining;        // entries from the first one to the end; 0 or less: none
uvec2 logits, scores; // addresses of the first entry
uvec2 mask;           // address of the word that has its mask byte
uint mask_skew;       // index of that byte in the word
bool aligned;         // logits and scores are 16-byte aligned

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
uvec2 segment_mask(Segment s) { return at(at(p.mask, s.row / p.routes, p.n), s.start, 1); }

float row_k(uint row) { return clamp(F32(p.state).v[row], MIN_K, MAX_K); }

// saves_state: state for the backward pass is written, in the variant for long segments.
bool saves_state() { return !K_PER_ROW && present(p.state); }

void init_segment(uint id) {
	Segment s = segment(id);
	size = s.size;
	if (K_PER_ROW) k = row_k(s.row);
	else k = !PREFIX_SEGMENTS && size < p.block_size ? p.k_last : p.k;
	logits = segment_logits(s);
	scores = present(p.scores) ? at(at(p.scores, PREFIX_SEGMENTS ? id : s.row, 4 * p.n), s.start, 4) : logits;
	aligned = ((logits.x | scores.x) & 15) == 0;
	mask = segment_mask(s);
	mask_skew = mask.x & 3;
	mask.x -= mask_skew;
}

// set_first makes entry 4 * i of the segment the first one of this invocation, and min(size, end) the end.
void set_first(uint i, uint end) {
	remaining = int(min(size, end)) - int(4 * i);
	logits = at(logits, i, 16);
	scores = at(scores, i, 16);
	mask = at(mask, i, 4);
}

// load_mask_bytes returns the mask bytes of vec4 i, of which `count` entries exist.
uint load_mask_bytes(uint i, int count) {
	uint word = U32(mask).v[i] >> (8 * mask_skew);
	if (int(mask_skew) + min(count, 4) > 4) word |= U32(mask).v[i + 1] << (32 - 8 * mask_skew);
	return word;
}

// load_logits returns vec4 i of the logits; NO_ENTRY for entries that are masked or past the end.
vec4 load_logits(uint i) {
	int count = remaining - int(4 * i);
	if (count <= 0) return vec4(NO_ENTRY);
	vec4 s;
	F32 source = F32(logits);
	if (count < 4) {
		uint first = 4 * i, end = uint(remaining) - 1;
		s = vec4(source.v[first], source.v[min(first + 1, end)], source.v[min(first + 2, end)], 0);
	} else if (aligned) {
		s = F32x4(logits).v[i];
	} else {
		s = vec4(source.v[4 * i], source.v[4 * i + 1], source.v[4 * i + 2], source.v[4 * i + 3]);
	}
	uvec4 valid = uvec4(lessThan(ivec4(0, 1, 2, 3), ivec4(count)));
	if (present(p.mask)) {
		valid *= uvec4(notEqual(uvec4(load_mask_bytes(i, count)) & uvec4(0xff, 0xff00, 0xff0000, 0xff000000), uvec4(0)));
	}
	return mix(vec4(NO_ENTRY), clamp(s, -MAX_LOGIT, MAX_LOGIT), bvec4(valid));
}

void store_scores(uint i, vec4 v) {
	int count = remaining - int(4 * i);
	if (count <= 0) return;
	if (aligned && count >= 4) {
		F32x4(scores).v[i] = v;
		return;
	}
	F32 destination = F32(scores);
	destination.v[4 * i] = v.x;
	if (count > 1) destination.v[4 * i + 1] = v.y;
	if (count > 2) destination.v[4 * i + 2] = v.z;
	if (count > 3) destination.v[4 * i + 3] = v.w;
}

// clear_scores_outside writes score 0 to entries begin .. end - 1 of the row that are outside a prefix segment.
void clear_scores_outside(uint id, uint begin, uint end) {
	if (!PREFIX_SEGMENTS || !present(p.scores)) return;
	F32 destination = F32(at(p.scores, id, 4 * p.n));
	for (uint i = max(size, begin) + gl_LocalInvocationID.x; i < min(p.n, end); i += gl_WorkGroupSize.x) destination.v[i] = 0;
}

// store_valid_as_scores writes the scores of a segment of which all entries are selected, or none is valid: 1 for valid
// entries, else 0.
void store_valid_as_scores() {
	if (!present(p.scores)) return;
	for (uint i = 0; int(4 * i) < remaining; i += gl_WorkGroupSize.x) store_scores(i, vec4(notEqual(load_logits(i), vec4(NO_ENTRY))));
}

// FloatPair is a number as the sum of two floats. One float is not enough: at logits of 15, half an ulp divided by eps =
// 0.03 is 1.6e-5.
struct FloatPair { float hi, lo; };

// fast_two_sum requires |hi| >= |lo|, or hi = 0.
FloatPair fast_two_sum(float hi, float lo) {
	precise float sum = hi + lo;
	precise float rest = lo - (sum - hi);
	return FloatPair(sum, rest);
}

FloatPair subtract(FloatPair x, float y) {
	precise float hi = x.hi - y;
	precise float back = hi - x.hi;
	precise float lo = ((x.hi - (hi - back)) - (y + back)) + x.lo;
	return fast_two_sum(hi, lo);
}

FloatPair minimum(float x, FloatPair y) {
	if (y.hi < x || (y.hi == x && y.lo < 0)) return y;
	return FloatPair(x, 0);
}

// difference returns s - x, exact where the two are close.
vec4 difference(vec4 s, FloatPair x) {
	precise vec4 d = (s - x.hi) - x.lo;
	return d;
}

// exp_terms returns exp(min(d, 0) / e).
vec4 exp_terms(vec4 d, float e) { return exp2(clamp(d, -MAX_EXPONENT * e, 0) * (LOG2E / e)); }

// score returns exp(min(s - bound, 0) / e), and exactly 0 for the smallest ones.
vec4 score(vec4 s, FloatPair bound, float e) {
	vec4 d = difference(s, bound);
	vec4 terms = mix(vec4(0), min(exp_terms(d, e), 1), greaterThan(d, vec4(-MAX_EXPONENT * e)));
	return mix(terms, vec4(1), greaterThanEqual(d, vec4(0)));
}

vec4 final_scores(vec4 s); // defined by the including file: scores by logits

// write_selected_scores writes the scores of a segment's slots, of part `part` of `parts` of them: 0 for a slot that is
// empty or does not name a valid entry of the segment. It reads the logits again, because the entry may be in the
// registers of any invocation. all_selected: valid entries have score 1.
void write_selected_scores(uint id, uint part, uint parts, bool all_selected) {
	if (!present(p.selected_scores)) return;
	Segment s = segment(id);
	F32 source = F32(segment_logits(s)), destination = F32(at(p.selected_scores, id, 4 * p.slots));
	U32 indices = U32(at(p.indices, id, 4 * p.slots)), slot_valid = U32(at(p.valid, id, 4 * p.slots));
	uvec2 mask_address = segment_mask(s);
	uint skew = mask_address.x & 3;
	mask_address.x -= skew;
	for (uint slot = part * gl_WorkGroupSize.x + gl_LocalInvocationID.x; slot < p.slots; slot += parts * gl_WorkGroupSize.x) {
		uint i = indices.v[slot] - s.start; // an index before the start wraps to a large one
		bool valid = i < s.size;
		if (valid && present(p.valid)) valid = slot_valid.v[slot] != 0;
		if (valid && present(p.mask)) valid = byte_at(mask_address, skew + i) != 0;
		float v = 0;
		if (valid) v = all_selected ? 1 : final_scores(vec4(clamp(source.v[i], -MAX_LOGIT, MAX_LOGIT))).x;
		destination.v[slot] = v;
	}
}

// log_ratio returns log(x / y) to about 1e-7, and more precisely where x and y are close. log() may be wrong by 5e-7.
// Each step adds e times the result to a, so the last steps, where x and y are close, add no error.
float log_ratio(float x, float y) {
	int shift = (floatBitsToInt(x) - floatBitsToInt(y) + (1 << 22)) >> 23; // x / y is within a factor of 1.51 of 2^shift
	y *= uintBitsToFloat(uint(shift + 127) << 23);
	float z = (x - y) / (x + y), q = z * z; // log(x / y) = 2 atanh(z)
	return float(shift) * 0.693147181 + 2 * z * (1 + q * (1 / 3. + q * (1 / 5. + q * (1 / 7. + q / 9))));
}

// bound_after returns -a after a step whose sum of exp((min(s, -a) - origin) / e) is `sum`.
FloatPair bound_after(FloatPair origin, float e, float sum) { return subtract(origin, e * log_ratio(k, sum)); }

// store_state writes the state of step t for the backward pass.
void store_state(uint id, uint t, FloatPair bound, float sum, float other) {
	F32x4(at(p.state, id, 16 * p.iters)).v[t] = vec4(-bound.hi, -bound.lo, sum, other);
}

// Sums over the workgroup have an order that depends only on the sizes of workgroup and subgroups. They take one
// barrier each: `partial` is double-buffered, and an invocation that writes a buffer has passed the barrier after which
// all had read it.
shared vec4 partial[2][64]; // a subgroup has at least 4 invocations
uint buf = 0;

// init_sums clears the elements after the last subgroup's.
void init_sums() {
	uint end = (gl_NumSubgroups + 3) / 4 * 4;
	for (uint i = gl_NumSubgroups + gl_LocalInvocationID.x; i < end; i += gl_WorkGroupSize.x) partial[0][i / 4][i % 4] = partial[1][i / 4][i % 4] = 0;
}

float workgroup_sum(float x) {
	x = subgroupAdd(x);
	if (subgroupElect()) partial[buf][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	vec4 sum = partial[buf][0];
	for (uint i = 1; i < (gl_NumSubgroups + 3) / 4; i++) sum += partial[buf][i];
	buf ^= 1;
	return (sum.x + sum.y) + (sum.z + sum.w);
}

float workgroup_max(float x) {
	x = subgroupMax(x);
	if (subgroupElect()) partial[buf][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	float result = partial[buf][0].x;
	for (uint i = 1; i < gl_NumSubgroups; i++) result = max(result, partial[buf][i / 4][i % 4]);
	buf ^= 1;
	return result;
}

float workgroup_sum(vec4 x) { return workgroup_sum((x.x + x.y) + (x.z + x.w)); }
float workgroup_max(vec4 x) { return workgroup_max(max(max(x.x, x.y), max(x.z, x.w))); }

#endif
