#version 460
// Backward of coordinate descent: the gradient of the logits s, and of k, from that of the scores. It needs no pass per
// step: the forward kernel saved a_t of every step, sum_t and count_t (see coor_descent.comp), and with
//
//	top_t = min(max s, -a_{t-1})    p_{t,i} = exp((min(s_i, top_t) - top_t) / e_t) / sum_t
//	w_i   = dscore_i score_i / e_T if s_i <= -a_{T-1}, else 0
//	da_{T-1} = sum w    da_{t-1} = da_t count_t / sum_t    the entries above -a_{t-1} have p_{t,i} = 1 / sum_t each
//	ds_i  = w_i - sum of da_t p_{t,i} over the steps t = 1 .. T-1 with s_i <= -a_{t-1}
//	dk    = sum of da_t e_t / k over t = 0 .. T-1
//
//	logits, ds [Rows, N]    mask [Rows / Routes, N] u8 optional    state [segments, Iters, 4]    dk [segments] optional
//	dscores [Rows, N], with PREFIX_SEGMENTS [segments, N]    and, or instead of it, for selected entries
//	indices [segments, slots] i32    valid [segments, slots] u32 optional    dselected [segments, slots]
//
// Segments are those of the forward kernel. With PREFIX_SEGMENTS they overlap, and ds is the sum over the segments of a
// row, in their order. A list names an entry at most once. The kernel is three dispatches:
//
//	SUM    a workgroup adds w of a part of a segment's entries and slots
//	SCAN   a workgroup adds the parts of a segment and computes da_t, which is one product after the other
//	SWEEP  a workgroup computes ds of 4 entries per invocation, and adds the w of slots in shared memory. With
//	       PREFIX_SEGMENTS, lane y of a workgroup adds up the segments y, y + lanes, .., and then the sums of the lanes are added
//
// Between them is scratch: Iters vec4 of each segment, then the parts of each segment. Vec4 0 is a_{T-1} as two floats,
// negated, and 1, or 0 where the gradient is 0; vec4 t is top_t as two floats, da_t / sum_t, and e_t.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "include/address.glsl"

#ifdef SWEEP
layout(local_size_x_id = 0, local_size_y_id = 1) in; // x: at most 64. y: segments that are worked on at a time, at most 4
#else
layout(local_size_x_id = 0) in; // 64 to 256
#endif

layout(push_constant, std430) uniform Push {
#ifdef SCAN
	uvec2 state, scratch, dk;
	uint groups, iters, parts, blocks;
	float k, k_last;                   // entries to select of a segment, of the last block of a row
	float e_init, eps, decay_hi, decay_lo;
#else
	uvec2 logits, mask, dscores, ds, state, scratch, indices, valid, dselected;
	uint groups;                       // workgroups
	uint n, block_size, blocks;
	uint routes;                       // rows of logits that share a row of mask
	uint slots;                        // of a segment
	uint iters;
	uint parts;                        // SUM: of a segment. SWEEP: workgroups of a block, or with PREFIX_SEGMENTS of a row
	uint segments;
	float e;                           // temperature of the scores
#endif
} p;

#ifdef SCAN

#include "include/float_pair.glsl"
#include "include/workgroup_sum.glsl"

const uint MAX_THREADS = 256;
shared float factors[MAX_THREADS]; // of a chunk of steps: count_t / sum_t, then da_t
shared float da;                   // of the chunk's first step

// temperature returns e_t = max(e_init decay^t, eps).
float temperature(uint t) {
	FloatPair e = FloatPair(p.e_init, 0), power = FloatPair(p.decay_hi, p.decay_lo);
	for (; t > 0; t /= 2) {
		if ((t & 1) != 0) e = product(e, power);
		power = product(power, power);
	}
	return max(e.hi, p.eps);
}

void main() {
	uint id = workgroup_index(), own = gl_LocalInvocationID.x;
	if (id >= p.groups) return;
	init_sums();
	F32x4 state = F32x4(at(p.state, id, 16 * p.iters)), steps = F32x4(at(p.scratch, id, 16 * p.iters));
	F32 parts = F32(at(at(p.scratch, p.groups, 16 * p.iters), id, 4 * p.parts));
	vec4 first = state.v[0], last = state.v[p.iters - 1];
	float max_logit = first.w;
	bool counts = first.z > 0;
	float sum = 0;
	for (uint i = own; i < p.parts; i += gl_WorkGroupSize.x) sum += parts.v[i];
	sum = workgroup_sum(sum);
	if (own == 0) {
		da = counts ? sum : 0;
		steps.v[0] = vec4(-last.xy, counts ? 1 : 0, 0);
	}
	float dk = 0;
	for (uint done = 0; done < p.iters; done += gl_WorkGroupSize.x) { // from the last step to the first
		uint left = p.iters - done, t = left - 1 - own;
		bool inside = own < left;
		vec4 s = vec4(0, 0, 1, 0);
		if (counts && inside && t > 0) s = state.v[t];
		factors[own] = s.w / s.z;
		barrier();
		if (own == 0) {
			for (uint i = 0; i < min(left, gl_WorkGroupSize.x); i++) {
				float factor = factors[i];
				factors[i] = da;
				da *= factor;
			}
		}
		barrier();
		if (inside) {
			float e = temperature(t), own_da = factors[own];
			dk += own_da * e;
			if (t > 0) {
				vec4 previous = counts ? state.v[t - 1] : vec4(0);
				FloatPair top = minimum(max_logit, FloatPair(-previous.x, -previous.y));
				steps.v[t] = vec4(top.hi, top.lo, own_da / s.z, e);
			}
		}
		barrier();
	}
	if (!present(p.dk)) return;
	dk = workgroup_sum(dk);
	if (own == 0) F32(p.dk).v[id] = counts ? dk / (id % p.blocks == p.blocks - 1 ? p.k_last : p.k) : 0;
}

#else

#include "include/coor_descent_entries.glsl"

const uint MAX_THREADS = 64;            // of a lane of SWEEP
const uint MAX_LANES = 4;               // of a workgroup of SWEEP
const uint MAX_SPAN = 4 * MAX_THREADS; // entries of a workgroup of SWEEP

// weights returns w of entries with logits s and gradients g of their scores. bound is -a_{T-1}.
vec4 weights(vec4 s, vec4 g, FloatPair bound) {
	bvec4 valid = notEqual(s, vec4(NO_ENTRY));
	vec4 w = mix(vec4(0), g, valid) * (score(s, bound, p.e) / p.e);
	return mix(w, vec4(0), greaterThan(difference(s, bound), vec4(0)));
}

// slot_weight returns w of entry i of a segment, and a slot that names it.
float slot_weight(F32 logits, F32 gradients, uint slot, uint i, FloatPair bound) {
	return weights(vec4(clamp(logits.v[i], -MAX_LOGIT, MAX_LOGIT)), vec4(gradients.v[slot]), bound).x;
}

// init_entries makes entry `first` of a segment the first one of this invocation, and min(s.size, end) the end. gradients
// is the address of the gradients of the segment's scores; it becomes that of the first entry.
void init_entries(Segment s, uint first, uint end, inout uvec2 gradients, uint all_addresses) {
	remaining = int(min(s.size, end)) - int(first);
	logits = at(segment_logits(s), first, 4);
	gradients = at(gradients, first, 4);
	aligned = ((logits.x | gradients.x | all_addresses) & 15) == 0;
	mask = at(segment_mask_word(s, mask_skew), first / 4, 4);
}

// segment_gradients returns the address of the gradients of a segment's scores.
uvec2 segment_gradients(Segment s, uint id) { return at(at(p.dscores, PREFIX_SEGMENTS ? id : s.row, 4 * p.n), s.start, 4); }

#ifdef SUM

void main() {
	if (workgroup_index() >= p.groups) return;
	uint id = workgroup_index() / p.parts, part = workgroup_index() % p.parts;
	init_sums();
	Segment s = segment(id);
	vec4 first = F32x4(at(p.state, id, 16 * p.iters)).v[0], last = F32x4(at(p.state, id, 16 * p.iters)).v[p.iters - 1];
	FloatPair bound = FloatPair(-last.x, -last.y);
	vec4 sum = vec4(0);
	if (first.z > 0 && present(p.dscores)) {
		uint span = (s.size + 4 * p.parts - 1) / (4 * p.parts) * 4;
		uvec2 gradients = segment_gradients(s, id);
		init_entries(s, part * span + 4 * gl_LocalInvocationID.x, (part + 1) * span, gradients, 0);
		for (uint i = 0; int(4 * i) < remaining; i += gl_WorkGroupSize.x) {
			sum += weights(load_logits(i), load_entries(gradients, i, remaining - int(4 * i)), bound);
		}
	}
	if (first.z > 0 && present(p.dselected)) {
		F32 segment_start = F32(segment_logits(s)), gradients = F32(at(p.dselected, id, 4 * p.slots));
		U32 indices = U32(at(p.indices, id, 4 * p.slots)), slot_valid = U32(at(p.valid, id, 4 * p.slots));
		uint skew, i;
		uvec2 mask_word = segment_mask_word(s, skew);
		for (uint slot = part * gl_WorkGroupSize.x + gl_LocalInvocationID.x; slot < p.slots; slot += p.parts * gl_WorkGroupSize.x) {
			if (slot_entry(s, slot, indices, slot_valid, mask_word, skew, i)) sum.x += slot_weight(segment_start, gradients, slot, i, bound);
		}
	}
	float total = workgroup_sum(sum);
	if (gl_LocalInvocationID.x == 0) F32(at(at(p.scratch, p.segments, 16 * p.iters), id, 4 * p.parts)).v[part] = total;
}

#else

shared float slot_sums[MAX_LANES][MAX_SPAN]; // w of slots, by entry of the workgroup
shared vec4 steps[MAX_LANES][MAX_THREADS];   // of the lane's segment
shared vec4 lane_sums[MAX_LANES][MAX_THREADS];

// step_gradient returns the sum of da_t p_{t,i} for logits s, over the steps from..end of those that are in shared memory.
vec4 step_gradient(uint lane, uint from, uint end, vec4 s) {
	vec4 sum = vec4(0);
	for (uint t = from; t < end; t++) {
		vec4 step = steps[lane][t];
		vec4 d = difference(s, FloatPair(step.x, step.y));
		sum += mix(step.z * exp_terms(d, step.w), vec4(0), greaterThan(d, vec4(0)));
	}
	return sum;
}

// add_slots adds w of a segment's slots that name an entry of this workgroup, the first of which is `begin`.
void add_slots(Segment s, uint id, uint begin, FloatPair bound) {
	F32 segment_start = F32(segment_logits(s)), gradients = F32(at(p.dselected, id, 4 * p.slots));
	U32 indices = U32(at(p.indices, id, 4 * p.slots)), slot_valid = U32(at(p.valid, id, 4 * p.slots));
	uint skew, i;
	uvec2 mask_word = segment_mask_word(s, skew);
	const uint AT_ONCE = 4; // slots whose indices are loaded before the first one is needed
	for (uint first = gl_LocalInvocationID.x; first < p.slots; first += AT_ONCE * gl_WorkGroupSize.x) {
		uint entries[AT_ONCE];
		[[unroll]] for (uint k = 0; k < AT_ONCE; k++) {
			uint slot = first + k * gl_WorkGroupSize.x;
			entries[k] = slot < p.slots ? indices.v[slot] - s.start - begin : MAX_SPAN;
		}
		[[unroll]] for (uint k = 0; k < AT_ONCE; k++) {
			uint slot = first + k * gl_WorkGroupSize.x;
			if (entries[k] >= 4 * gl_WorkGroupSize.x || !slot_entry(s, slot, indices, slot_valid, mask_word, skew, i)) continue;
			slot_sums[gl_LocalInvocationID.y][i - begin] += slot_weight(segment_start, gradients, slot, i, bound);
		}
	}
}

void main() {
	if (workgroup_index() >= p.groups) return;
	uint x = gl_LocalInvocationID.x, lane = gl_LocalInvocationID.y, own = 4 * x;
	uint area = workgroup_index() / p.parts, begin = workgroup_index() % p.parts * 4 * gl_WorkGroupSize.x;
	// Blocks: one segment. Prefixes: those of a row that reach beyond `begin`.
	Segment s = PREFIX_SEGMENTS ? Segment(area, 0, p.n) : segment(area);
	uint segments = 1, first_window = 0;
	if (PREFIX_SEGMENTS) {
		segments = p.blocks;
		first_window = begin / p.block_size + 1;
	}
	uvec2 ds = at(at(at(p.ds, s.row, 4 * p.n), s.start, 4), begin + own, 4);
	uvec2 no_gradients = uvec2(0);
	init_entries(s, begin + own, s.size, no_gradients, ds.x);
	bool ds_aligned = aligned;
	vec4 logit = load_logits(0), gradient = vec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++) slot_sums[lane][own + i] = 0;
	for (uint lane_window = first_window; lane_window < segments; lane_window += gl_WorkGroupSize.y) {
		uint window = lane_window + lane;
		bool exists = window < segments;
		uint id = PREFIX_SEGMENTS ? (s.row / p.routes * p.blocks + min(window, segments - 1)) * p.routes + s.row % p.routes : area;
		Segment current = segment(id);
		F32x4 all_steps = F32x4(at(p.scratch, id, 16 * p.iters));
		vec4 v = logit, header = vec4(0), sum = vec4(0); // v: entries of this segment
		int inside = int(current.size) - int(begin + own);
		if (PREFIX_SEGMENTS) v = mix(vec4(NO_ENTRY), logit, lessThan(ivec4(0, 1, 2, 3), ivec4(inside)));
		for (uint done = 0; done < p.iters; done += gl_WorkGroupSize.x) {
			barrier(); // all have read the steps, and added the slots, of before
			if (exists && done + x < p.iters) steps[lane][x] = all_steps.v[done + x];
			barrier();
			if (done == 0 && exists) header = steps[lane][0];
			if (header.z != 0) sum += step_gradient(lane, done == 0 ? 1 : 0, min(p.iters - done, gl_WorkGroupSize.x), v);
		}
		if (header.z == 0) continue; // also where there is no segment
		FloatPair bound = FloatPair(header.x, header.y);
		if (present(p.dscores) && inside > 0) {
			uvec2 gradients = at(segment_gradients(current, id), begin + own, 4);
			aligned = (gradients.x & 15) == 0;
			remaining = inside;
			gradient += weights(v, load_entries(gradients, 0, inside), bound);
		}
		gradient -= mix(vec4(0), sum, notEqual(v, vec4(NO_ENTRY)));
		if (present(p.dselected)) add_slots(current, id, begin, bound);
	}
	barrier();
	[[unroll]] for (uint i = 0; i < 4; i++) gradient[i] += slot_sums[lane][own + i];
	lane_sums[lane][x] = gradient;
	barrier();
	if (lane > 0) return;
	for (uint i = 1; i < gl_WorkGroupSize.y; i++) gradient += lane_sums[i][x];
	remaining = int(s.size) - int(begin + own);
	aligned = ds_aligned;
	store_entries(ds, 0, gradient);
}

#endif
#endif
