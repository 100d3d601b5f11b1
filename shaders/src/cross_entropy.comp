#version 460
// Cross-entropy of rows of logits with labels, and its gradient.
//
//	logits [rows, V]    labels [rows] i32    losses [rows]    dlogits [rows, V] optional, may be logits
//	upstream [1] optional, 1 without it    invalid_labels: a u32 counter, 0 before the dispatch
//	losses[r] = log(sum_i exp(logits[r, i])) - logits[r, labels[r]]
//	dlogits[r, i] = (exp(logits[r, i]) / sum_j exp(logits[r, j]) - (i == labels[r])) * upstream
//
// Loss and gradient of a row are 0 where the label is -1, whatever the logits, and where it is not in [-1, V):
// invalid_labels counts those. A logit of -inf is a class of probability 0. A row with NaN or +inf, or with only -inf, has
// no distribution: its loss and gradient are NaN. Bits decide that, because compilers may assume finite numbers.
//
// With m the largest logit and c the number of logits equal to it, log(sum_i exp(logits[i])) = m + log1p(rest) with rest =
// c - 1 + the sum of exp(logits[i] - m) over the others. So a small loss keeps its relative accuracy.
//
// A workgroup computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each. Invocation i of a row has
// elements i, i + INVOCATIONS_PER_ROW, .., whose exponentials it adds in runs of 32; the sums are added in a tree. The
// order of summation depends on V only. The row is read two or three times; all but the first hit the cache.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/row_norm.glsl"

layout(constant_id = 2) const uint CLASSES = 1; // elements of a row
const uint RUN = 32, IGNORED = 0xffffffffu; // label -1

layout(push_constant) uniform Push {
	uvec2 logits, labels, losses, dlogits, upstream, invalid_labels;
	uint rows;
} p;

const uint INFINITY_BITS = 0x7f800000u, NAN_BITS = 0x7fc00000u, SIGN_BIT = 0x80000000u;
const float LOWEST = -3.4028235e38;

// row_max returns the maxima of value over the invocations of a row. All invocations call it.
vec2 row_max(vec2 value) {
	uint invocation = gl_LocalInvocationID.x, first = gl_LocalInvocationID.y * INVOCATIONS_PER_ROW;
	barrier(); // all invocations have read the previous result
	partial_sums[first + invocation] = value;
	for (uint width = INVOCATIONS_PER_ROW / 2; width > 0; width /= 2) {
		barrier();
		if (invocation < width) partial_sums[first + invocation] = max(partial_sums[first + invocation], partial_sums[first + invocation + width]);
	}
	barrier();
	return partial_sums[first];
}

bool is_excluded(float x) { return floatBitsToUint(x) == (INFINITY_BITS | SIGN_BIT); } // -inf

// is_undefined reports NaN and +inf.
bool is_undefined(float x) { return !is_excluded(x) && (floatBitsToUint(x) & ~SIGN_BIT) >= INFINITY_BITS; }

// below returns x - top for x <= top, at least -174. The halves cannot overflow.
float below(float x, float top) { return 2 * max(0.5 * x - 0.5 * top, -87.0); }

// exp_below returns exp(d) for -174 <= d <= 0; 0 below -87. The error of GLSL's exp grows with |d|. That of exp2 is small
// between -0.5 and 0.5, and the rest is an exact power of two.
float exp_below(float d) {
	precise float whole = roundEven(d * 1.44269504);
	precise float part = fma(d, 1.44269504, -whole);
	part = fma(d, 1.92596299e-8, part); // log2(e) is the sum of the two constants
	return d < -87 ? 0 : uintBitsToFloat(uint(int(max(whole, -126)) + 127) << 23) * exp2(part);
}

// log1p returns log(1 + x) for x >= 0. GLSL's log has few exact bits near 1.
float log1p(float x) {
	if (x > 1) return log(1 + x);
	float s = x / (2 + x), q = s * s; // log(1 + x) = 2 artanh(s), and s is at most 1/3
	float series = fma(q, fma(q, fma(q, fma(q, fma(q, fma(q, 1.0 / 13, 1.0 / 11), 1.0 / 9), 1.0 / 7), 1.0 / 5), 1.0 / 3), 1.0);
	return 2 * s * series;
}

void main() {
	uint invocation = gl_LocalInvocationID.x;
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint label = inside ? U32(p.labels).v[row] : IGNORED; // a negative label is at least 2^31, hence not below CLASSES
	bool counted = label < CLASSES;
	if (!counted && label != IGNORED && invocation == 0) atomicAdd(U32(p.invalid_labels).v[0], 1);
	uint classes = counted ? CLASSES : 0; // invocations without a loss have no elements, but take part in the barriers
	F32 logits = F32(at(p.logits, row, 4 * CLASSES));

	vec2 best = vec2(LOWEST, 0); // the largest logit; 0: all are excluded, 2: one is undefined
	for (uint i = invocation; i < classes; i += INVOCATIONS_PER_ROW) {
		float x = logits.v[i];
		if (is_undefined(x)) best.y = 2;
		else if (!is_excluded(x)) best = max(best, vec2(x, 1));
	}
	best = row_max(best);
	bool defined = best.y == 1;
	float top = best.x;

	vec2 sum = vec2(0); // of the exponentials of logits below top, and the number of logits that equal it
	float run_sum = 0;
	uint count = 0;
	for (uint i = invocation; i < classes; i += INVOCATIONS_PER_ROW) {
		float x = logits.v[i], d = below(x, top);
		if (!is_excluded(x)) {
			if (d < 0) run_sum += exp_below(d);
			else sum.y++;
		}
		if (++count == RUN) {
			sum.x += run_sum;
			run_sum = 0;
			count = 0;
		}
	}
	sum.x += run_sum;
	float labelled = counted ? logits.v[label] : 0; // read before the barriers: dlogits may be logits
	sum = row_sum(sum);
	float rest = sum.x + (sum.y - 1);
	if (!inside) return;

	if (invocation == 0) {
		float loss = counted ? (top - labelled) + log1p(rest) : 0;
		uint bits = floatBitsToUint(loss);
		if (counted && is_excluded(labelled)) bits = INFINITY_BITS;
		if (counted && !defined) bits = NAN_BITS;
		U32(p.losses).v[row] = bits;
	}
	if (!present(p.dlogits)) return;
	F32 dlogits = F32(at(p.dlogits, row, 4 * CLASSES));
	float upstream = present(p.upstream) ? F32(p.upstream).v[0] : 1;
	float total = sum.x + sum.y;
	for (uint i = invocation; i < CLASSES; i += INVOCATIONS_PER_ROW) {
		float gradient = 0;
		if (counted) {
			float x = logits.v[i], d = below(x, top);
			gradient = is_excluded(x) ? 0 : exp_below(d) / total;
			if (i == label) gradient = d < 0 || is_excluded(x) ? gradient - 1 : -rest / total; // without cancellation near 1
			gradient *= upstream;
		}
		uint bits = floatBitsToUint(gradient);
		U32(dlogits).v[i] = counted && !defined ? NAN_BITS : bits;
	}
}
