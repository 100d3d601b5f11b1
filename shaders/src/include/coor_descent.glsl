// Shared by both variants of coor_descent.comp: the segment of a workgroup, its results, and a step's arithmetic. The
// including file declares the push block `p` first.
#ifndef COLT5_COOR_DESCENT
#define COLT5_COOR_DESCENT

#include "coor_descent_entries.glsl"

layout(constant_id = 4) const bool K_PER_ROW = false; // every row has a k of its own; segments are rows

const float MIN_K = 1e-6, MAX_K = 1e30; // keep all products and quotients in the range of float

// The segment of this workgroup.
uint size; // entries
float k;   // number of entries to select; 0: all of them
uvec2 scores; // address of the score of the first entry

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
	mask = segment_mask_word(s, mask_skew);
}

// set_first makes entry 4 * i of the segment the first one of this invocation, and min(size, end) the end.
void set_first(uint i, uint end) {
	remaining = int(min(size, end)) - int(4 * i);
	logits = at(logits, i, 16);
	scores = at(scores, i, 16);
	mask = at(mask, i, 4);
}

void store_scores(uint i, vec4 v) { store_entries(scores, i, v); }

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

vec4 final_scores(vec4 s); // defined by the including file: scores by logits

// write_selected_scores writes the scores of a segment's slots, of part `part` of `parts` of them: 0 for a slot that is
// empty or does not name a valid entry of the segment. It reads the logits again, because the entry may be in the
// registers of any invocation. all_selected: valid entries have score 1.
void write_selected_scores(uint id, uint part, uint parts, bool all_selected) {
	if (!present(p.selected_scores)) return;
	Segment s = segment(id);
	F32 source = F32(segment_logits(s)), destination = F32(at(p.selected_scores, id, 4 * p.slots));
	U32 indices = U32(at(p.indices, id, 4 * p.slots)), slot_valid = U32(at(p.valid, id, 4 * p.slots));
	uint skew;
	uvec2 mask_address = segment_mask_word(s, skew);
	for (uint slot = part * gl_WorkGroupSize.x + gl_LocalInvocationID.x; slot < p.slots; slot += parts * gl_WorkGroupSize.x) {
		uint i;
		float v = 0;
		if (slot_entry(s, slot, indices, slot_valid, mask_address, skew, i)) v = all_selected ? 1 : final_scores(vec4(clamp(source.v[i], -MAX_LOGIT, MAX_LOGIT))).x;
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

#endif
