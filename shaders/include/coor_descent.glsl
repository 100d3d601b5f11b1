// What both kernels of coor_descent share: where a block's entries lie, a number held in two floats, sums over a workgroup.
// The includer declares the push block `p` before, with what is named p.* here.
#ifndef COLT5_COOR_DESCENT
#define COLT5_COOR_DESCENT

const float LARGEST = 1e38;  // logits beyond it count as this
const float ABSENT = -2e38;  // stands for an entry that is masked or past the end; differences of these stay finite
const float REACH = 87;      // exp(-REACH) is about the smallest normal number: what is smaller contributes nothing
const float LOG2E = 1.44269504;

// The block of a row that this workgroup works on.
uint size;                // its entries
float k;                  // what it aims at
uvec2 logits, scores;     // addresses of its first entry
uvec2 mask;               // the word that holds its first mask byte
uint mask_skew;           // and which byte of it that is
bool aligned;             // logits and scores allow loads of 16 bytes

void locate(uint unit) {
	uint row = unit / p.blocks, start = unit % p.blocks * p.block_size;
	size = min(p.block_size, p.n - start);
	k = size < p.block_size ? p.k_last : p.k;
	logits = at(at(p.logits, row, 4 * p.n), start, 4);
	scores = at(at(p.scores, row, 4 * p.n), start, 4);
	aligned = ((logits.x | scores.x) & 15) == 0;
	mask = at(at(p.mask, row / p.routes, p.n), start, 1);
	mask_skew = mask.x & 3;
	mask.x -= mask_skew;
}

// mask_bytes are those of entries i .. i + 3, of which the first `have` exist.
uint mask_bytes(uint i, uint have) {
	uint first = mask_skew + i, skew = first & 3;
	uint word = U32(mask).v[first >> 2] >> (8 * skew);
	if (skew + have > 4) word |= U32(mask).v[(first >> 2) + 1] << (32 - 8 * skew);
	return word;
}

// read_quad is entries i .. i + 3 of the block; i is a multiple of 4.
vec4 read_quad(uint i) {
	if (i >= size) return vec4(ABSENT);
	uint have = min(size - i, 4), end = size - 1;
	vec4 s;
	if (aligned && have == 4) {
		s = F32x4(logits).v[i / 4];
	} else {
		F32 from = F32(logits);
		s = vec4(from.v[i], from.v[min(i + 1, end)], from.v[min(i + 2, end)], from.v[min(i + 3, end)]);
	}
	uvec4 real = uvec4(lessThan(uvec4(0, 1, 2, 3), uvec4(have)));
	if (present(p.mask)) real *= uvec4(notEqual(uvec4(mask_bytes(i, have)) & uvec4(0xff, 0xff00, 0xff0000, 0xff000000), uvec4(0)));
	return mix(vec4(ABSENT), clamp(s, -LARGEST, LARGEST), bvec4(real));
}

void write_quad(uint i, vec4 v) {
	if (i >= size) return;
	if (aligned && i + 4 <= size) {
		F32x4(scores).v[i / 4] = v;
		return;
	}
	F32 to = F32(scores);
	to.v[i] = v.x;
	if (i + 1 < size) to.v[i + 1] = v.y;
	if (i + 2 < size) to.v[i + 2] = v.z;
	if (i + 3 < size) to.v[i + 3] = v.w;
}

// mask_scores are the scores of a block that is taken whole, or that has no entry (then all are 0).
vec4 mask_scores(vec4 s) { return vec4(notEqual(s, vec4(ABSENT))); }

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

// log_ratio is log(x / y) to about 1e-7, and far better where x and y are close: a moves by this times e in each step, so its last
// steps bring no error. (log() may be wrong by 5e-7 there.)
float log_ratio(float x, float y) {
	int shift = int(floatBitsToUint(x / y) - 0x3f3504f3u) >> 23; // x / y is within sqrt(2) of 2^shift
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
shared float partial[2][256]; // a subgroup has 4 invocations or more
uint turn = 0;
uint lanes; // invocations in this subgroup

void count_lanes() { lanes = subgroupAdd(1u); }

float total(float x) {
	x = subgroupAdd(x);
	if (gl_SubgroupInvocationID == 0) partial[turn][gl_SubgroupID] = x;
	barrier();
	x = 0;
	for (uint first = 0; first < gl_NumSubgroups; first += lanes) {
		uint i = first + gl_SubgroupInvocationID;
		x += i < gl_NumSubgroups ? partial[turn][min(i, 255)] : 0;
	}
	turn ^= 1;
	return subgroupAdd(x);
}

float largest(float x) {
	x = subgroupMax(x);
	if (gl_SubgroupInvocationID == 0) partial[turn][gl_SubgroupID] = x;
	barrier();
	x = ABSENT;
	for (uint first = 0; first < gl_NumSubgroups; first += lanes) {
		uint i = first + gl_SubgroupInvocationID;
		x = max(x, i < gl_NumSubgroups ? partial[turn][min(i, 255)] : ABSENT);
	}
	turn ^= 1;
	return subgroupMax(x);
}

float total(vec4 x) { return total((x.x + x.y) + (x.z + x.w)); }
float largest(vec4 x) { return largest(max(max(x.x, x.y), max(x.z, x.w))); }

#endif
