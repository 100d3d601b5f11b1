// What both kernels of coor_descent share: where a block's entries lie, a number held in two floats, sums over a workgroup.
// The includer declares the push block `p` before, with what is named p.* here.
#ifndef COLT5_COOR_DESCENT
#define COLT5_COOR_DESCENT

const float LARGEST = 1e38;  // logits beyond it count as this
const float ABSENT = -2e38;  // stands for an entry that is masked or past the end; differences of these stay finite
const float REACH = 87;      // exp(-REACH) is about the smallest normal number: what is smaller contributes nothing
const float LOG2E = 1.44269504;

layout(constant_id = 3) const bool PREFIX_SEGMENTS = false; // segments are prefixes of a row, not blocks of it

// The block of a row that this workgroup works on.
uint size;                // its entries
float k;                  // what it aims at; 0: it is taken whole

// What this invocation sees of it. It names its entries by fours, counted from its own first one, so that the places of those in
// registers are constants beside one address.
int left;                 // entries from there to the end; 0 or less: none
uvec2 logits, scores;     // addresses
uvec2 mask;               // the word that holds the mask's byte
uint mask_skew;           // and which byte of it that is
bool aligned;             // logits and scores allow loads of 16 bytes

// Home is where a unit lies: in the row, from the entry `start` on.
struct Home { uint row, start, size; };

Home home(uint unit) {
	if (PREFIX_SEGMENTS) {
		uint window = unit / p.routes;
		return Home(window / p.blocks * p.routes + unit % p.routes, 0, min(window % p.blocks * p.block_size, p.n));
	}
	uint start = unit % p.blocks * p.block_size;
	return Home(unit / p.blocks, start, min(p.block_size, p.n - start));
}

uvec2 home_logits(Home h) { return at(at(p.logits, h.row, 4 * p.n), h.start, 4); }
uvec2 home_mask(Home h) { return at(at(p.mask, h.row / p.routes, p.n), h.start, 1); }

void locate(uint unit) {
	Home h = home(unit);
	size = h.size;
	k = !PREFIX_SEGMENTS && size < p.block_size ? p.k_last : p.k;
	logits = home_logits(h);
	scores = present(p.scores) ? at(at(p.scores, PREFIX_SEGMENTS ? unit : h.row, 4 * p.n), h.start, 4) : logits;
	aligned = ((logits.x | scores.x) & 15) == 0;
	mask = home_mask(h);
	mask_skew = mask.x & 3;
	mask.x -= mask_skew;
}

// begin makes entry 4 * quad of the block the first one of this invocation; it looks no further than `end`.
void begin(uint quad, uint end) {
	left = int(min(size, end)) - int(4 * quad);
	logits = at(logits, quad, 16);
	scores = at(scores, quad, 16);
	mask = at(mask, quad, 4);
}

// mask_bytes are those of a quad of which `have` entries exist.
uint mask_bytes(uint quad, int have) {
	uint word = U32(mask).v[quad] >> (8 * mask_skew);
	if (int(mask_skew) + min(have, 4) > 4) word |= U32(mask).v[quad + 1] << (32 - 8 * mask_skew);
	return word;
}

vec4 read_quad(uint quad) {
	int have = left - int(4 * quad);
	if (have <= 0) return vec4(ABSENT);
	vec4 s;
	F32 from = F32(logits);
	if (have < 4) {
		uint i = 4 * quad, end = uint(left) - 1;
		s = vec4(from.v[i], from.v[min(i + 1, end)], from.v[min(i + 2, end)], 0);
	} else if (aligned) {
		s = F32x4(logits).v[quad];
	} else {
		s = vec4(from.v[4 * quad], from.v[4 * quad + 1], from.v[4 * quad + 2], from.v[4 * quad + 3]);
	}
	uvec4 real = uvec4(lessThan(ivec4(0, 1, 2, 3), ivec4(have)));
	if (present(p.mask)) {
		real *= uvec4(notEqual(uvec4(mask_bytes(quad, have)) & uvec4(0xff, 0xff00, 0xff0000, 0xff000000), uvec4(0)));
	}
	return mix(vec4(ABSENT), clamp(s, -LARGEST, LARGEST), bvec4(real));
}

void write_quad(uint quad, vec4 v) {
	int have = left - int(4 * quad);
	if (have <= 0) return;
	if (aligned && have >= 4) {
		F32x4(scores).v[quad] = v;
		return;
	}
	F32 to = F32(scores);
	to.v[4 * quad] = v.x;
	if (have > 1) to.v[4 * quad + 1] = v.y;
	if (have > 2) to.v[4 * quad + 2] = v.z;
	if (have > 3) to.v[4 * quad + 3] = v.w;
}

// write_rest writes the scores of the entries from `from` to `end` that a window does not see.
void write_rest(uint unit, uint from, uint end) {
	if (!PREFIX_SEGMENTS || !present(p.scores)) return;
	F32 to = F32(at(p.scores, unit, 4 * p.n));
	for (uint i = max(size, from) + gl_LocalInvocationID.x; i < min(p.n, end); i += gl_WorkGroupSize.x) to.v[i] = 0;
}

// write_mask writes the scores of a block that is taken whole, or that has no valid entry (then all are 0).
void write_mask() {
	if (!present(p.scores)) return;
	for (uint q = 0; int(4 * q) < left; q += gl_WorkGroupSize.x) write_quad(q, vec4(notEqual(read_quad(q), vec4(ABSENT))));
}

// A number as the sum of two floats: next to logits of 15, half an ulp of a float is 3e-5 of eps = 0.03.
struct Pair { float hi, lo; };

// pair needs |hi| >= |lo|, or hi = 0.
Pair pair(float hi, float lo) {
	precise float sum = hi + lo;
	precise float rest = lo - (sum - hi);
	return Pair(sum, rest);
}

Pair minus(Pair x, float y) {
	precise float hi = x.hi - y;
	precise float back = hi - x.hi;
	precise float lo = ((x.hi - (hi - back)) - (y + back)) + x.lo;
	return pair(hi, lo);
}

Pair lesser(float x, Pair y) {
	if (y.hi < x || (y.hi == x && y.lo < 0)) return y;
	return Pair(x, 0);
}

// above is s - x, exact where the two are close.
vec4 above(vec4 s, Pair x) {
	precise vec4 d = (s - x.hi) - x.lo;
	return d;
}

// terms is exp(min(s - top, 0) / e).
vec4 terms(vec4 d, float e) { return exp2(clamp(d, -REACH * e, 0) * (LOG2E / e)); }

vec4 score(vec4 s, Pair bound, float e) {
	vec4 d = above(s, bound);
	vec4 part = mix(vec4(0), min(terms(d, e), 1), greaterThan(d, vec4(-REACH * e)));
	return mix(part, vec4(1), greaterThanEqual(d, vec4(0)));
}

// write_chosen writes the scores of a unit's slots, from the part-th on in steps: 0 where a slot is empty or names no valid entry
// of the unit. It reads logits again, for the entries in registers are anywhere. whole: the scores are the mask.
vec4 scored(vec4 s); // the includer's: the scores of entries
void write_chosen(uint unit, uint part, uint parts, bool whole) {
	if (!present(p.chosen)) return;
	Home h = home(unit);
	F32 from = F32(home_logits(h)), to = F32(at(p.chosen, unit, 4 * p.slots));
	U32 indices = U32(at(p.indices, unit, 4 * p.slots)), filled = U32(at(p.filled, unit, 4 * p.slots));
	uvec2 real = home_mask(h);
	uint skew = real.x & 3;
	real.x -= skew;
	for (uint slot = part * gl_WorkGroupSize.x + gl_LocalInvocationID.x; slot < p.slots; slot += parts * gl_WorkGroupSize.x) {
		uint i = indices.v[slot] - h.start; // what lies before the start is far behind the end
		bool valid = i < h.size;
		if (valid && present(p.filled)) valid = filled.v[slot] != 0;
		if (valid && present(p.mask)) valid = byte_at(real, skew + i) != 0;
		float v = 0;
		if (valid) v = whole ? 1 : scored(vec4(clamp(from.v[i], -LARGEST, LARGEST))).x;
		to.v[slot] = v;
	}
}

// log_ratio is log(x / y) to about 1e-7, and far better where x and y are close: a moves by this times e in each step, so its last
// steps bring no error. (log() may be wrong by 5e-7 there.)
float log_ratio(float x, float y) {
	int shift = (floatBitsToInt(x) - floatBitsToInt(y) + (1 << 22)) >> 23; // x / y is within a factor of 1.51 of 2^shift
	y *= uintBitsToFloat(uint(shift + 127) << 23);
	float z = (x - y) / (x + y), q = z * z; // log(x / y) = 2 atanh(z)
	return float(shift) * 0.693147181 + 2 * z * (1 + q * (1 / 3. + q * (1 / 5. + q * (1 / 7. + q / 9))));
}

// bound_after is -a after a step that had the sum of exp((min(s, -a) - origin) / e).
Pair bound_after(Pair origin, float e, float sum) { return minus(origin, e * log_ratio(k, sum)); }

// keep stores the step for the backward pass.
void keep(uint unit, uint t, Pair bound, float sum, float other) {
	F32x4(at(p.state, unit, 16 * p.iters)).v[t] = vec4(-bound.hi, -bound.lo, sum, other);
}

// Sums over the workgroup, in an order that depends on the sizes of workgroup and subgroups alone. There is one barrier a sum: the two
// halves of `partial` take turns, and whoever writes a half has passed the barrier after which the other was read.
shared vec4 partial[2][64]; // a subgroup has 4 invocations or more
uint turn = 0;

// begin_sums clears the places beyond the last subgroup's.
void begin_sums() {
	uint end = (gl_NumSubgroups + 3) / 4 * 4;
	for (uint i = gl_NumSubgroups + gl_LocalInvocationID.x; i < end; i += gl_WorkGroupSize.x) partial[0][i / 4][i % 4] = partial[1][i / 4][i % 4] = 0;
}

float total(float x) {
	x = subgroupAdd(x);
	if (subgroupElect()) partial[turn][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	vec4 sum = partial[turn][0];
	for (uint i = 1; i < (gl_NumSubgroups + 3) / 4; i++) sum += partial[turn][i];
	turn ^= 1;
	return (sum.x + sum.y) + (sum.z + sum.w);
}

float largest(float x) {
	x = subgroupMax(x);
	if (subgroupElect()) partial[turn][gl_SubgroupID / 4][gl_SubgroupID % 4] = x;
	barrier();
	float most = partial[turn][0].x;
	for (uint i = 1; i < gl_NumSubgroups; i++) most = max(most, partial[turn][i / 4][i % 4]);
	turn ^= 1;
	return most;
}

float total(vec4 x) { return total((x.x + x.y) + (x.z + x.w)); }
float largest(vec4 x) { return largest(max(max(x.x, x.y), max(x.z, x.w))); }

#endif
