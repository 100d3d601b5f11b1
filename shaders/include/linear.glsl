// What the kernels of the room linear share: configuration, arguments, the way from a slot to its rows, and the way out.
// A slot is a computed row, numbered through the batch: slot / rows is its item. Include address.glsl first. With OPERAND_DTYPE defined, as
// one of half.glsl, x and y may have numbers of 16 bits, of even rows.
#include "gelu.glsl"
#ifdef OPERAND_DTYPE
#include "half.glsl"
#endif

layout(constant_id = 0) const uint IN = 1; // elements in a row of x
layout(constant_id = 1) const uint OUT = 1; // elements in a row of y
layout(constant_id = 2) const bool BIAS = false; // add bias
layout(constant_id = 3) const bool GELU = false; // apply GELU
layout(constant_id = 4) const bool GATHER = false; // slots read the rows of x that gather names
layout(constant_id = 5) const bool NORM = false; // apply RMSNorm to rows of x
layout(constant_id = 6) const bool SCORE = false; // multiply by score
layout(constant_id = 7) const bool VALID = false; // slots with valid = 0 write nothing
layout(constant_id = 8) const bool RESIDUAL = false; // add residual
layout(constant_id = 9) const bool SCATTER = false; // slots write the rows of y that scatter names
layout(constant_id = 10) const bool SKIP_BIAS = false; // rows with skip_bias != 0 get no bias
#ifdef OPERAND_DTYPE
layout(constant_id = 11) const bool X16 = false; // x has 16-bit elements
layout(constant_id = 12) const bool Y16 = false; // y has 16-bit elements
layout(constant_id = 25) const bool DENSE_OUTPUT = false; // slot s writes row s of y
layout(constant_id = 26) const uint SPLIT_K = 1; // parts of the sum over IN
const uint X_BYTES = X16 ? 2 : 4, Y_BYTES = Y16 ? 2 : 4;
#else
const uint X_BYTES = 4, Y_BYTES = 4;
const bool DENSE_OUTPUT = false;
#endif

layout(push_constant, std430) uniform Push {
	uvec2 x, w, bias, gather, gamma, score, filled, residual, scatter, unless, y;
	uint slots, rows, in_rows, out_rows; // slots = batch * rows
	uint lists, list;                    // gather, score and filled have so many lists an item; this dispatch takes one
	uint first, tiles;                   // this dispatch computes tiles first .. tiles - 1, workgroup g tile first + g
} p;

// entry is the slot's place in gather, score and filled.
uint entry(uint slot) { return slot + (slot / p.rows * (p.lists - 1) + p.list) * p.rows; }

// is_filled says whether the slot exists and writes its row. It does not where its filled word or its score is 0, or where an index
// names no row.
bool is_filled(uint slot) {
	if (slot >= p.slots) return false;
	if (VALID && U32(p.filled).v[entry(slot)] == 0) return false;
	if (SCORE && F32(p.score).v[entry(slot)] == 0) return false;
	if (GATHER && U32(p.gather).v[entry(slot)] >= p.in_rows) return false; // a negative index is a large one here
	return !SCATTER || U32(p.scatter).v[slot] < p.out_rows;
}

// source is the address of the slot's row of x; for a slot that writes nothing, of some row.
uvec2 source(uint slot) {
	if (!is_filled(slot)) return p.x;
	uint row = GATHER ? U32(p.gather).v[entry(slot)] : slot % p.rows;
	return at(p.x, slot / p.rows * p.in_rows + row, IN * X_BYTES);
}

// norm_factor makes a row of the given sum of squares sqrt(IN) long.
float norm_factor(float squares) { return sqrt(float(IN)) / max(sqrt(squares), 1e-12); }

// load_out reads columns col .. col + 3 of a row of OUT; those past the end are anything.
vec4 load_out(uvec2 row, uint col) {
	if (OUT % 4 == 0) return F32x4(row).v[col / 4];
	F32 f = F32(row);
	uint last = OUT - 1;
	return vec4(f.v[col], f.v[min(col + 1, last)], f.v[min(col + 2, last)], f.v[min(col + 3, last)]);
}

void store_out(uvec2 row, uint col, vec4 v) {
#ifdef OPERAND_DTYPE
	if (Y16) {
		uvec2 words = uvec2(pack(OPERAND_DTYPE, v.xy), pack(OPERAND_DTYPE, v.zw));
		if (OUT % 4 == 0) {
			U32x2(row).v[col / 4] = words;
			return;
		}
		U32(row).v[col / 2] = words.x;
		if (col + 2 < OUT) U32(row).v[col / 2 + 1] = words.y;
		return;
	}
#endif
	if (OUT % 4 == 0) {
		F32x4(row).v[col / 4] = v;
		return;
	}
	F32 f = F32(row);
	f.v[col] = v.x;
	if (col + 1 < OUT) f.v[col + 1] = v.y;
	if (col + 2 < OUT) f.v[col + 2] = v.z;
	if (col + 3 < OUT) f.v[col + 3] = v.w;
}

// Exit is the row of y, and of the residual, that a filled slot goes to, and by what.
struct Exit {
	uint row;
	float norm, score;
	bool bias;
};

Exit way_out(uint slot, float norm) {
	Exit e = Exit(slot, norm, 1, BIAS);
	if (!DENSE_OUTPUT) e.row = (SCATTER ? U32(p.scatter).v[slot] : slot % p.rows) + slot / p.rows * p.out_rows;
	if (SCORE) e.score = F32(p.score).v[entry(slot)];
	if (SKIP_BIAS) e.bias = U32(p.unless).v[e.row] == 0;
	return e;
}

uvec2 exit_y(Exit e) { return at(p.y, e.row, OUT * Y_BYTES); }

// Addition is what a piece of a row needs besides its sums.
struct Addition { vec4 bias, residual; };

Addition addition(Exit e, uint col) {
	Addition a = Addition(vec4(0), vec4(0));
	if (BIAS && e.bias) a.bias = load_out(p.bias, col);
	if (RESIDUAL) a.residual = load_out(at(p.residual, e.row, OUT * 4), col);
	return a;
}

// finished is columns col .. col + 3 from their sums. A factor waits until it is known what follows: NVIDIA's compiler makes a
// multiplication and an addition one rounding in some places and not in others, precise or not, so here they always are one, by fma.
// All tiles, and all places in a tile, then give the same bits.
vec4 finished(Exit e, Addition a, vec4 sum) {
	precise vec4 v = sum;
	precise vec4 factor = vec4(NORM ? e.norm : 1.0);
	if (BIAS) {
		v = fma(v, factor, a.bias);
		factor = vec4(1);
	}
	if (GELU) {
		v *= factor;
		factor = normal_cdf(v);
	}
	if (SCORE) {
		v *= factor;
		factor = vec4(e.score);
	}
	return RESIDUAL ? fma(v, factor, a.residual) : v * factor;
}

// finish writes columns col .. col + 3.
void finish(Exit e, uint col, vec4 sum) {
	if (col < OUT) store_out(exit_y(e), col, finished(e, addition(e, col), sum));
}
