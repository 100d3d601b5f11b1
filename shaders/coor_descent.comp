#version 450
// u_i = 0 at t = 0, then min(s_i, -a_{t-1}) / e_t    a_t = e_t (log k - logsumexp_valid(u))    score_i = exp(min(s_i + A, 0) / e_T)
//
// logits [Rows, N]    mask [Rows / Routes, N] u8, may be absent    state [units, Iters, 4], may be absent
// scores [Rows, N], may be absent    indices, filled, chosen [units, slots]: scores of chosen entries, may be absent; filled also alone
//
// The rows are cut in blocks, each on its own; the last may be shorter: units are [Rows, Blocks]. With PREFIX_SEGMENTS they are [Rows / Routes,
// Blocks, Routes], unit m of a row is its first m * block_size entries, and scores are [units, N], 0 beyond those. In code `bound` is -a, `top` is min(max s, -a), the
// largest of e u, and sum = sum of exp((min(s, -a) - top) / e): then a_t = e log(k / sum) - top, where the logarithm goes to 0.
//
// Without LONG a workgroup takes a block and runs all iterations, with the entries in registers, VEC4_PER_THREAD times 4 an invocation.
// Once e is constant it holds exp((s - origin) / e) there instead: see last_steps.
//
// With LONG a dispatch does one step. A workgroup takes a part of a block, `span` entries. It adds up what the parts' workgroups
// left in the dispatch before, all of them alike, and leaves its own sum for the next one:
// step 0 leaves max and count, step 1 .. Iters - 1 the sums and how many are above the bound, step Iters writes the scores.
// A block's record, 16 bytes in front of its parts' 8 each: top (two floats), max, count.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint VEC4_PER_THREAD = 8; // vec4 of entries that an invocation holds in registers (not in the LONG variant)
layout(constant_id = 2) const bool SAVE_STATE = false; // write state for the backward pass (not in the LONG variant)

layout(push_constant, std430) uniform Push {
	uvec2 logits, mask, scores, state, indices, filled, chosen;
#ifdef LONG
	uvec2 before, after; // what the step before left, what this one leaves
#endif
	uint count;             // workgroups
	uint n, block_size, blocks;
	uint routes;            // rows that share a row of the mask
	uint slots;             // of a unit
	uint iters;
	float k, k_last;        // of a block, of a shorter last block; 0: it is taken whole
#ifdef LONG
	uint parts, span, step;
	float e_before, e;      // of the step before, of this step
#else
	float e_init, eps, decay_hi, decay_lo;
#endif
} p;

#include "include/coor_descent.glsl"

#ifdef LONG

layout(buffer_reference, std430, buffer_reference_align = 8) buffer F32x2 { vec2 v[]; };

uint unit, part;
Pair bound = Pair(0, 0);

vec4 scored(vec4 s) { return score(s, bound, p.e); }

uvec2 record(uvec2 base) { return at(base, unit, 16 * (1 + (p.parts + 1) / 2)); }

void leave(vec4 top, vec2 sum) {
	if (gl_LocalInvocationID.x != 0) return;
	F32x2(record(p.after)).v[2 + part] = sum;
	if (part == 0) F32x4(record(p.after)).v[0] = top;
}

void first_step() {
	vec4 m = vec4(ABSENT), valid = vec4(0);
	for (uint q = 0; int(4 * q) < left; q += gl_WorkGroupSize.x) {
		vec4 s = read_quad(q);
		m = max(m, s);
		valid += vec4(notEqual(s, vec4(ABSENT)));
	}
	leave(vec4(0), vec2(largest(m), total(valid)));
}

// gather_parts returns the record, with max and count, and the sums of the step before.
vec4 gather_parts(out vec2 sums) {
	F32x2 from = F32x2(record(p.before));
	float first = p.step == 1 ? ABSENT : 0, second = 0;
	for (uint i = gl_LocalInvocationID.x; i < p.parts; i += gl_WorkGroupSize.x) {
		vec2 v = from.v[2 + i];
		first = p.step == 1 ? max(first, v.x) : first + v.x;
		second += v.y;
	}
	second = total(second);
	if (p.step == 1) {
		sums = vec2(second, largest(first));
		return vec4(0, 0, sums.yx);
	}
	sums = vec2(total(first), second);
	return F32x4(record(p.before)).v[0];
}

void write_whole() {
	if (present(p.state) && part == 0 && gl_LocalInvocationID.x == 0) keep(unit, p.step - 1, Pair(0, 0), 0, 0);
	if (p.step != p.iters) return;
	write_mask();
	write_chosen(unit, part, p.parts, true);
}

void main() {
	if (workgroup_index() >= p.count) return;
	unit = workgroup_index() / p.parts;
	part = workgroup_index() % p.parts;
	begin_sums();
	locate(unit);
	begin(part * p.span / 4 + gl_LocalInvocationID.x, (part + 1) * p.span);
	if (p.step == p.iters) write_rest(unit, part * p.span, (part + 1) * p.span);
	if (p.step == 0) {
		first_step();
		return;
	}
	vec2 sums;
	vec4 from = gather_parts(sums);
	if (from.w == 0 || k == 0) {
		leave(from, vec2(0));
		write_whole();
		return;
	}
	bound = bound_after(Pair(from.x, from.y), p.e_before, sums.x);
	if (present(p.state) && part == 0 && gl_LocalInvocationID.x == 0) keep(unit, p.step - 1, bound, sums.x, sums.y);
	if (p.step == p.iters) {
		for (uint q = 0; int(4 * q) < left && present(p.scores); q += gl_WorkGroupSize.x) write_quad(q, scored(read_quad(q)));
		write_chosen(unit, part, p.parts, false);
		return;
	}
	Pair top = lesser(from.z, bound);
	vec4 sum = vec4(0), over = vec4(0);
	for (uint q = 0; int(4 * q) < left; q += gl_WorkGroupSize.x) {
		vec4 d = above(read_quad(q), top);
		sum += terms(d, p.e);
		over += vec4(greaterThan(d, vec4(0)));
	}
	leave(vec4(top.hi, top.lo, from.zw), vec2(total(sum), total(over)));
}

#else

vec4 x[VEC4_PER_THREAD];         // the entries; with `cached` their terms
float lowest = ABSENT; // what is lower counts as this
Pair bound, e;

void load() { [[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) x[q] = max(read_quad(q * gl_WorkGroupSize.x), lowest); }

// decayed is e of the next step. The low part keeps t products from drifting; where fma is not exact it is merely less exact.
Pair decayed(Pair e) {
	precise float hi = e.hi * p.decay_hi;
	precise float lo = fma(e.hi, p.decay_hi, -hi) + (e.hi * p.decay_lo + e.lo * p.decay_hi);
	Pair next = pair(hi, lo);
	if (next.hi <= p.eps) return Pair(p.eps, 0);
	return next;
}

// sum_of is the sum of exp((min(s, top) - top) / e); with SAVE_STATE also how many are over top. scale is log2(exp(1 / e)).
float sum_of(Pair top, float scale, out float over) {
	vec4 sum = vec4(0), more = vec4(0);
	[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) {
		vec4 d = above(x[q], top);
		sum += exp2(min(d * scale, 0));
		if (SAVE_STATE) more += vec4(greaterThan(d, vec4(0)));
	}
	over = SAVE_STATE ? total(more) : 0;
	return total(sum);
}

// Where e stays as it is, x holds terms: exp((s - origin) / e), 0 where that is nearly 0, cut where it is more than any bound comes to.
// NEAR_BITS and FAR_BITS are how far the bound may move from the origin, the former where it moves slowly: precision ends there. A step from
// there may go to N / k times as far, up to 2^51 for the least k: MOST_BITS are more, and a sum of terms is finite.
const float NEAR_BITS = 4, FAR_BITS = 16, MOST_BITS = 64;
bool cached = false;
Pair origin = Pair(0, 0);
float bits = 0;  // log2(exp(1 / e))
float share = 0; // 1 / exp((bound - origin) / e), at the end

vec4 term(vec4 s) {
	vec4 d = above(s, origin);
	return mix(vec4(0), exp2(clamp(d, -REACH * e.hi, MOST_BITS / bits) * bits), greaterThan(d, vec4(-REACH * e.hi)));
}

vec4 scored(vec4 s) {
	if (cached) return min(term(s) * share, 1);
	return score(s, bound, e.hi);
}

// last_steps runs the steps from t on, in which e is constant. With level = exp((bound - origin) / e) a step is the sum of
// min(x, level), and the next level that sum / k: no exponential, no logarithm.
void last_steps(uint t, float m) {
	float sum = 0, level = 0.5, highest = 0, least = 1, inverse = 1 / k, rest = fma(-inverse, k, 1) * inverse; // inverse + rest = 1 / k
	for (; t < p.iters; t++) {
		if (min(level, 1 / level) < least) {
			if (cached) {
				bound = bound_after(origin, e.hi, sum);
				load();
			}
			cached = true;
			origin = lesser(m, bound);
			level = 1;
			highest = exp2(min(above(vec4(m), origin).x * bits, MOST_BITS));
			[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) x[q] = term(x[q]);
		}
		vec4 all = vec4(0);
		[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) all += min(x[q], level);
		sum = total(all);
		float next = fma(sum, inverse, sum * rest);
		share = 1 / next;
		next = min(next, highest);
		least = exp2(next < 2 * level && level < 2 * next ? -NEAR_BITS : -FAR_BITS);
		level = next;
	}
}

void write_whole(uint unit) {
	write_mask(); // from memory: what x holds need not stay around for it
	write_rest(unit, 0, p.n);
	write_chosen(unit, 0, 1, true);
	if (!SAVE_STATE) return;
	for (uint t = gl_LocalInvocationID.x; t < p.iters; t += gl_WorkGroupSize.x) keep(unit, t, Pair(0, 0), 0, 0);
}

void main() {
	uint unit = workgroup_index();
	if (unit >= p.count) return;
	begin_sums();
	locate(unit);
	begin(gl_LocalInvocationID.x, size);
	load();
	vec4 most = vec4(ABSENT), real = vec4(0);
	[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) {
		most = max(most, x[q]);
		if (present(p.mask)) real += vec4(notEqual(x[q], vec4(ABSENT)));
	}
	float m = largest(most), valid = present(p.mask) ? total(real) : float(size);
	if (valid == 0 || k == 0) {
		write_whole(unit);
		return;
	}
	// bound falls by at most e log(size / k) a step: what is so far below the largest never counts. Products with it stay finite.
	lowest = m - abs(m) - 1e7 * p.e_init;
	[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) x[q] = max(x[q], lowest);
	bound = bound_after(Pair(0, 0), p.e_init, valid);
	e = decayed(Pair(p.e_init, 0));
	bits = LOG2E / e.hi;
	Pair next = decayed(e);
	bool first = gl_LocalInvocationID.x == 0;
	if (SAVE_STATE && first) keep(unit, 0, bound, valid, m);
	for (uint t = 1; t < p.iters; t++) {
		if (!SAVE_STATE && e == next) {
			last_steps(t, m);
			break;
		}
		Pair top = lesser(m, bound), later = decayed(next); // of the step after this: there is time for it beside the exponentials
		float later_bits = LOG2E / next.hi, over, sum = sum_of(top, bits, over);
		bound = bound_after(top, e.hi, sum);
		if (SAVE_STATE && first) keep(unit, t, bound, sum, over);
		e = next;
		next = later;
		bits = later_bits;
	}
	if (present(p.scores)) {
		[[unroll]] for (uint q = 0; q < VEC4_PER_THREAD; q++) write_quad(q * gl_WorkGroupSize.x, cached ? min(x[q] * share, 1) : scored(x[q]));
		write_rest(unit, 0, p.n);
	}
	write_chosen(unit, 0, 1, false);
}

#endif
