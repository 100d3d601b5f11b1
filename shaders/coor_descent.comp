#version 450
// u_i = 0 at t = 0, then min(s_i, -a_{t-1}) / e_t    a_t = e_t (log k - logsumexp_valid(u))    score_i = exp(min(s_i + A, 0) / e_T)
//
// logits [Rows, N]    mask [Rows / Routes, N] u8, may be absent    state [units, Iters, 4], may be absent
// scores [Rows, N], may be absent    indices, filled, chosen [units, slots]: scores of chosen entries, may be absent; filled also alone
//
// The rows are cut in blocks, each on its own; the last may be shorter: units are [Rows, Blocks]. With WINDOWS they are [Rows / Routes,
// Blocks, Routes], unit m of a row is its first m * block_size entries, and scores are [units, N], 0 beyond those. In code `bound` is -a, `top` is min(max s, -a), the
// largest of e u, and sum = sum of exp((min(s, -a) - top) / e): then a_t = e log(k / sum) - top, where the logarithm goes to 0.
//
// Without LONG a workgroup takes a block and runs all iterations, with the entries in registers, QUADS times 4 an invocation.
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
layout(constant_id = 1) const uint QUADS = 8;     // without LONG
layout(constant_id = 2) const bool STATE = false; // without LONG: the state is wanted

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
	write_chosen(unit, part, p.parts, true, Pair(0, 0), 1);
}

void main() {
	if (workgroup() >= p.count) return;
	unit = workgroup() / p.parts;
	part = workgroup() % p.parts;
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
	Pair bound = bound_after(Pair(from.x, from.y), p.e_before, sums.x);
	if (present(p.state) && part == 0 && gl_LocalInvocationID.x == 0) keep(unit, p.step - 1, bound, sums.x, sums.y);
	if (p.step == p.iters) {
		for (uint q = 0; int(4 * q) < left && present(p.scores); q += gl_WorkGroupSize.x) write_quad(q, score(read_quad(q), bound, p.e));
		write_chosen(unit, part, p.parts, false, bound, p.e);
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

vec4 x[QUADS];         // the entries; with `cached`, exp((s - origin) / e)
float lowest = ABSENT; // what is lower counts as this
bool cached = false;

void load() { [[unroll]] for (uint q = 0; q < QUADS; q++) x[q] = max(read_quad(q * gl_WorkGroupSize.x), lowest); }

// decayed is e of the next step. The low part keeps t products from drifting; where fma is not exact it is merely less exact.
Pair decayed(Pair e) {
	precise float hi = e.hi * p.decay_hi;
	precise float lo = fma(e.hi, p.decay_hi, -hi) + (e.hi * p.decay_lo + e.lo * p.decay_hi);
	Pair next = pair(hi, lo);
	if (next.hi <= p.eps) return Pair(p.eps, 0);
	return next;
}

// sum_of is the sum of exp((min(s, top) - top) / e); with STATE also how many are over top. bits = log2(exp(1 / e)).
float sum_of(Pair top, float bits, out float over) {
	vec4 sum = vec4(0), more = vec4(0);
	[[unroll]] for (uint q = 0; q < QUADS; q++) {
		vec4 d = above(x[q], top);
		sum += exp2(min(d * bits, 0));
		if (STATE) more += vec4(greaterThan(d, vec4(0)));
	}
	over = STATE ? total(more) : 0;
	return total(sum);
}

// last_steps runs the steps from t on, in which e is constant, on x = exp((s - origin) / e). With level = exp((-a - origin) / e) a step is
// the sum of min(x, level), and the next level that sum / k: no exponential, no logarithm. Where the level has moved too many bits from
// the origin it starts anew from there: NEAR_BITS of them once it moves slowly, for they cost precision. x is cut beyond those.
const float NEAR_BITS = 4, FAR_BITS = 16;

Pair last_steps(uint t, Pair bound, float e, float bits, float m) {
	float sum = 0, level = 0.5, highest = 0, least = 1, inverse = 1 / k, rest = fma(-inverse, k, 1) * inverse; // inverse + rest = 1 / k
	Pair origin = Pair(0, 0);
	for (; t < p.iters; t++) {
		if (min(level, 1 / level) < least) {
			if (cached) {
				bound = bound_after(origin, e, sum);
				load();
			}
			cached = true;
			origin = lesser(m, bound);
			level = 1;
			highest = exp2(min(above(vec4(m), origin).x * bits, 2 * FAR_BITS));
			[[unroll]] for (uint q = 0; q < QUADS; q++) x[q] = exp2(clamp(above(x[q], origin), -REACH * e, 2 * FAR_BITS / bits) * bits);
		}
		vec4 all = vec4(0);
		[[unroll]] for (uint q = 0; q < QUADS; q++) all += min(x[q], level);
		sum = total(all);
		float next = min(fma(sum, inverse, sum * rest), highest);
		least = exp2(next < 2 * level && level < 2 * next ? -NEAR_BITS : -FAR_BITS);
		level = next;
	}
	return bound_after(origin, e, sum);
}

void write_whole(uint unit) {
	write_mask(); // from memory: what x holds need not stay around for it
	write_rest(unit, 0, p.n);
	write_chosen(unit, 0, 1, true, Pair(0, 0), 1);
	if (!STATE) return;
	for (uint t = gl_LocalInvocationID.x; t < p.iters; t += gl_WorkGroupSize.x) keep(unit, t, Pair(0, 0), 0, 0);
}

void main() {
	uint unit = workgroup();
	if (unit >= p.count) return;
	begin_sums();
	locate(unit);
	begin(gl_LocalInvocationID.x, size);
	load();
	vec4 most = vec4(ABSENT), real = vec4(0);
	[[unroll]] for (uint q = 0; q < QUADS; q++) {
		most = max(most, x[q]);
		real += vec4(notEqual(x[q], vec4(ABSENT)));
	}
	float m = largest(most), valid = total(real);
	if (valid == 0 || k == 0) {
		write_whole(unit);
		return;
	}
	// bound falls by at most e log(size / k) a step: what is so far below the largest never counts. Products with it stay finite.
	lowest = m - abs(m) - 1e7 * p.e_init;
	[[unroll]] for (uint q = 0; q < QUADS; q++) x[q] = max(x[q], lowest);
	Pair e = Pair(p.e_init, 0), next = decayed(e);
	Pair bound = bound_after(Pair(0, 0), e.hi, valid);
	bool first = gl_LocalInvocationID.x == 0;
	if (STATE && first) keep(unit, 0, bound, valid, m);
	float bits = LOG2E / e.hi;
	for (uint t = 1; t < p.iters; t++) {
		if (e != next) {
			e = next;
			next = decayed(e);
			bits = LOG2E / e.hi;
		}
		if (!STATE && e == next) {
			bound = last_steps(t, bound, e.hi, bits, m);
			break;
		}
		Pair top = lesser(m, bound);
		float over, sum = sum_of(top, bits, over);
		bound = bound_after(top, e.hi, sum);
		if (STATE && first) keep(unit, t, bound, sum, over);
	}
	if (present(p.scores)) {
		if (cached) load();
		[[unroll]] for (uint q = 0; q < QUADS; q++) write_quad(q * gl_WorkGroupSize.x, score(x[q], bound, next.hi));
		write_rest(unit, 0, p.n);
	}
	write_chosen(unit, 0, 1, false, bound, next.hi);
}

#endif
