#version 460
// Coordinate descent: soft top-k scores of the logits s of a segment, after T = Iters steps with decreasing temperature
// e.
//
//	t = 0: u_i = 0    t > 0: u_i = min(s_i, -a_{t-1}) / e_t    a_t = e_t (log k - logsumexp_valid(u))
//	score_i = exp(min(s_i + a_{T-1}, 0) / e_T)
//
//	logits [Rows, N]    mask [Rows / Routes, N] u8 optional    scores [Rows, N] optional
//	state [segments, Iters, 4] optional
//	indices [segments, slots] i32    valid [segments, slots] u32 optional
//	selected_scores [segments, slots] optional: the score of entry indices[slot]; 0 if valid[slot] is 0
//
// Rows are cut into blocks, and each block is a segment: [Rows, Blocks]; the last block may be shorter. With
// PREFIX_SEGMENTS the segments are [Rows / Routes, Blocks, Routes], segment m of a row is its first m * block_size
// entries, and scores are [segments, N], 0 outside the segment. With K_PER_ROW every row has a k of its own:
// k_of_row [Rows] f32; a segment is then a whole row, and there is no state. In the code `bound` is -a, `upper` is min(max s, -a),
// which is the largest e * u, and sum = sum of exp((min(s, -a) - upper) / e). Then a_t = e log(k / sum) - upper, and
// the logarithm converges to 0.
//
// Without LONG, a workgroup runs all steps of a segment with the entries in registers, VEC4_PER_THREAD vec4 per
// invocation. Once e is constant, registers hold exp((s - origin) / e) instead: see constant_e_steps.
//
// With LONG, a dispatch runs one step. A workgroup processes a part of a segment, `span` entries. It first adds up the
// sums that the workgroups of all parts stored in the previous dispatch (all workgroups of a segment do the same), and
// then stores its own for the next: step 0 stores maximum and count, steps 1 .. Iters - 1 store the sum and the number
// of entries above the bound, step Iters writes the scores. A segment's sums are 16 bytes, upper (two floats),
// maximum and count, followed by 8 bytes per part.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint VEC4_PER_THREAD = 8; // vec4 in registers of an invocation; not with LONG
layout(constant_id = 2) const bool SAVE_STATE = false; // write state for the backward pass; not with LONG

layout(push_constant, std430) uniform Push {
	uvec2 logits, mask, scores;
	uvec2 state;            // with K_PER_ROW: k_of_row. Together 128 bytes, the most that every device has
	uvec2 indices, valid, selected_scores;
#ifdef LONG
	uvec2 previous, next;   // sums of all segments: of the previous step, of this step
#endif
	uint groups;            // workgroups
	uint n, block_size, blocks;
	uint routes;            // rows of logits that share a row of mask
	uint slots;             // of a segment
	uint iters;
	float k, k_last;        // entries to select of a block, of a shorter last block; 0: all of them
#ifdef LONG
	uint parts, span, step;
	float e_previous, e;    // temperature of the previous step, of this step
#else
	float e_init, eps, decay_hi, decay_lo;
#endif
} p;

#include "include/coor_descent.glsl"

#ifdef LONG

layout(buffer_reference, std430, buffer_reference_align = 8) buffer F32x2 { vec2 v[]; };

uint id, part;
FloatPair bound = FloatPair(0, 0);

vec4 final_scores(vec4 s) { return score(s, bound, p.e); }

uvec2 step_sums(uvec2 base) { return at(base, id, 16 * (1 + (p.parts + 1) / 2)); }

void store_sums(vec4 head, vec2 sums) {
	if (gl_LocalInvocationID.x != 0) return;
	F32x2(step_sums(p.next)).v[2 + part] = sums;
	if (part == 0) F32x4(step_sums(p.next)).v[0] = head;
}

void first_step() {
	vec4 m = vec4(NO_ENTRY), valid = vec4(0);
	for (uint i = 0; int(4 * i) < remaining; i += gl_WorkGroupSize.x) {
		vec4 s = load_logits(i);
		m = max(m, s);
		valid += vec4(notEqual(s, vec4(NO_ENTRY)));
	}
	store_sums(vec4(0), vec2(workgroup_max(m), workgroup_sum(valid)));
}

// load_sums returns the head of the segment's sums, with maximum and count, and the sums of the previous step.
vec4 load_sums(out vec2 sums) {
	F32x2 source = F32x2(step_sums(p.previous));
	float first = p.step == 1 ? NO_ENTRY : 0, second = 0;
	for (uint i = gl_LocalInvocationID.x; i < p.parts; i += gl_WorkGroupSize.x) {
		vec2 v = source.v[2 + i];
		first = p.step == 1 ? max(first, v.x) : first + v.x;
		second += v.y;
	}
	second = workgroup_sum(second);
	if (p.step == 1) {
		sums = vec2(second, workgroup_max(first));
		return vec4(0, 0, sums.yx);
	}
	sums = vec2(workgroup_sum(first), second);
	return F32x4(step_sums(p.previous)).v[0];
}

// write_trivial_segment writes the results of a segment of which all valid entries are selected, or that has none.
void write_trivial_segment() {
	if (saves_state() && part == 0 && gl_LocalInvocationID.x == 0) store_state(id, p.step - 1, FloatPair(0, 0), 0, 0);
	if (p.step != p.iters) return;
	store_valid_as_scores();
	write_selected_scores(id, part, p.parts, true);
}

void main() {
	if (workgroup_index() >= p.groups) return;
	id = workgroup_index() / p.parts;
	part = workgroup_index() % p.parts;
	init_sums();
	init_segment(id);
	set_first(part * p.span / 4 + gl_LocalInvocationID.x, (part + 1) * p.span);
	if (p.step == p.iters) clear_scores_outside(id, part * p.span, (part + 1) * p.span);
	if (p.step == 0) {
		first_step();
		return;
	}
	vec2 sums;
	vec4 head = load_sums(sums);
	if (head.w == 0 || k == 0) {
		store_sums(head, vec2(0));
		write_trivial_segment();
		return;
	}
	bound = bound_after(FloatPair(head.x, head.y), p.e_previous, sums.x);
	if (saves_state() && part == 0 && gl_LocalInvocationID.x == 0) store_state(id, p.step - 1, bound, sums.x, sums.y);
	if (p.step == p.iters) {
		for (uint i = 0; int(4 * i) < remaining && present(p.scores); i += gl_WorkGroupSize.x) store_scores(i, final_scores(load_logits(i)));
		write_selected_scores(id, part, p.parts, false);
		return;
	}
	FloatPair upper = minimum(head.z, bound);
	vec4 sum = vec4(0), above = vec4(0);
	for (uint i = 0; int(4 * i) < remaining; i += gl_WorkGroupSize.x) {
		vec4 d = difference(load_logits(i), upper);
		sum += exp_terms(d, p.e);
		above += vec4(greaterThan(d, vec4(0)));
	}
	store_sums(vec4(upper.hi, upper.lo, head.zw), vec2(workgroup_sum(sum), workgroup_sum(above)));
}

#else

vec4 x[VEC4_PER_THREAD];      // the invocation's logits; with `cached` their terms
float min_logit = NO_ENTRY;   // smaller logits are replaced by this
FloatPair bound, e;

void load() { [[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) x[i] = max(load_logits(i * gl_WorkGroupSize.x), min_logit); }

// next_e returns the temperature of the next step. The low part prevents drift over many products.
FloatPair next_e(FloatPair e) {
	FloatPair next = product(e, FloatPair(p.decay_hi, p.decay_lo));
	if (next.hi <= p.eps) return FloatPair(p.eps, 0);
	return next;
}

// sum_terms returns the sum of exp((min(s, upper) - upper) / e); with SAVE_STATE also the number of entries above
// upper. scale is log2(e) / e (e the base of the logarithm, then the temperature).
float sum_terms(FloatPair upper, float scale, out float above_count) {
	vec4 sum = vec4(0), above = vec4(0);
	[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) {
		vec4 d = difference(x[i], upper);
		sum += exp2(min(d * scale, 0));
		if (SAVE_STATE) above += vec4(greaterThan(d, vec4(0)));
	}
	above_count = SAVE_STATE ? workgroup_sum(above) : 0;
	return workgroup_sum(sum);
}

// While e is constant, x caches terms: exp((s - origin) / e), 0 where nearly 0, and clamped above any value that the
// bound can reach. The bound may move from the origin by NEAR_BITS powers of 2 while it moves slowly, and by FAR_BITS
// otherwise, before the terms are computed again; more would cost precision. One step from there may go N / k times as
// far, up to 2^51 for the least k: MAX_BITS is more than that, and a sum of such terms is finite.
const float NEAR_BITS = 4, FAR_BITS = 16, MAX_BITS = 64;
bool cached = false;
FloatPair origin = FloatPair(0, 0);
float scale = 0;        // log2(exp(1 / e))
float inverse_clip = 0; // exp((origin - bound) / e) after the last step

vec4 cached_term(vec4 s) {
	vec4 d = difference(s, origin);
	return mix(vec4(0), exp2(clamp(d, -MAX_EXPONENT * e.hi, MAX_BITS / scale) * scale), greaterThan(d, vec4(-MAX_EXPONENT * e.hi)));
}

vec4 final_scores(vec4 s) {
	if (cached) return min(cached_term(s) * inverse_clip, 1);
	return score(s, bound, e.hi);
}

// constant_e_steps runs the steps from t on, in which e is constant. With clip = exp((bound - origin) / e), a step is
// the sum of min(x, clip), and the next clip is that sum / k: no exponential, no logarithm.
void constant_e_steps(uint t, float max_logit) {
	// inverse + rest = 1 / k.
	float sum = 0, clip = 0.5, max_clip = 0, min_ratio = 1, inverse = 1 / k, rest = fma(-inverse, k, 1) * inverse;
	for (; t < p.iters; t++) {
		if (min(clip, 1 / clip) < min_ratio) {
			if (cached) {
				bound = bound_after(origin, e.hi, sum);
				load();
			}
			cached = true;
			origin = minimum(max_logit, bound);
			clip = 1;
			max_clip = exp2(min(difference(vec4(max_logit), origin).x * scale, MAX_BITS));
			[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) x[i] = cached_term(x[i]);
		}
		vec4 clipped = vec4(0);
		[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) clipped += min(x[i], clip);
		sum = workgroup_sum(clipped);
		float next = fma(sum, inverse, sum * rest);
		inverse_clip = 1 / next;
		next = min(next, max_clip);
		min_ratio = exp2(next < 2 * clip && clip < 2 * next ? -NEAR_BITS : -FAR_BITS);
		clip = next;
	}
}

// write_trivial_segment writes the results of a segment of which all valid entries are selected, or that has none.
void write_trivial_segment(uint id) {
	store_valid_as_scores(); // loads the logits again, so that x need not stay in registers
	clear_scores_outside(id, 0, p.n);
	write_selected_scores(id, 0, 1, true);
	if (!SAVE_STATE) return;
	for (uint t = gl_LocalInvocationID.x; t < p.iters; t += gl_WorkGroupSize.x) store_state(id, t, FloatPair(0, 0), 0, 0);
}

void main() {
	uint id = workgroup_index();
	if (id >= p.groups) return;
	init_sums();
	init_segment(id);
	set_first(gl_LocalInvocationID.x, size);
	load();
	vec4 maxima = vec4(NO_ENTRY), valid = vec4(0);
	[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) {
		maxima = max(maxima, x[i]);
		if (present(p.mask)) valid += vec4(notEqual(x[i], vec4(NO_ENTRY)));
	}
	float max_logit = workgroup_max(maxima), valid_count = present(p.mask) ? workgroup_sum(valid) : float(size);
	if (valid_count == 0 || k == 0) {
		write_trivial_segment(id);
		return;
	}
	// The bound falls by at most e log(size / k) a step, so logits this far below the largest one never count. Products
	// with min_logit are finite.
	min_logit = max_logit - abs(max_logit) - 1e7 * p.e_init;
	[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) x[i] = max(x[i], min_logit);
	bound = bound_after(FloatPair(0, 0), p.e_init, valid_count);
	e = next_e(FloatPair(p.e_init, 0));
	scale = LOG2E / e.hi;
	FloatPair next = next_e(e);
	bool first = gl_LocalInvocationID.x == 0;
	if (SAVE_STATE && first) store_state(id, 0, bound, valid_count, max_logit);
	for (uint t = 1; t < p.iters; t++) {
		if (!SAVE_STATE && e == next) {
			constant_e_steps(t, max_logit);
			break;
		}
		// Computed early, to overlap the exponentials.
		FloatPair upper = minimum(max_logit, bound), after_next = next_e(next);
		float next_scale = LOG2E / next.hi, above_count, sum = sum_terms(upper, scale, above_count);
		bound = bound_after(upper, e.hi, sum);
		if (SAVE_STATE && first) store_state(id, t, bound, sum, above_count);
		e = next;
		next = after_next;
		scale = next_scale;
	}
	if (present(p.scores)) {
		[[unroll]] for (uint i = 0; i < VEC4_PER_THREAD; i++) store_scores(i * gl_WorkGroupSize.x, cached ? min(x[i] * inverse_clip, 1) : final_scores(x[i]));
		clear_scores_outside(id, 0, p.n);
	}
	write_selected_scores(id, 0, 1, false);
}

#endif
