// Shared by the kernels linear*.comp: configuration, arguments, the prologue (which row of x a computed row reads) and
// the epilogue (what is done to the sums, and where they go). Include address.glsl first. Computed rows are numbered
// over the batch: the item of a row is row / p.rows, and its slot in the lists of the item is row % p.rows. With
// OPERAND_DTYPE defined as DTYPE_F16 or DTYPE_BF16, x and y may have 16-bit elements, and an even number of them in a
// row.
#include "gelu.glsl"
#ifdef OPERAND_DTYPE
#include "pack16.glsl"
#else
#include "square_sum.glsl"
#endif

layout(constant_id = 0) const uint IN = 1; // elements in a row of x
layout(constant_id = 1) const uint OUT = 1; // elements in a row of y
layout(constant_id = 2) const bool BIAS = false; // add bias
layout(constant_id = 3) const bool GELU = false; // apply GELU
layout(constant_id = 4) const bool GATHER = false; // rows of x are read through the list gather
layout(constant_id = 5) const bool NORM = false; // apply RMSNorm to rows of x
layout(constant_id = 6) const bool SCORE = false; // multiply by score
layout(constant_id = 7) const bool VALID = false; // rows with valid = 0 are skipped
layout(constant_id = 8) const bool RESIDUAL = false; // add residual
layout(constant_id = 9) const bool SCATTER = false; // rows of y are written through the list scatter
layout(constant_id = 10) const bool SKIP_BIAS = false; // rows with skip_bias != 0 get no bias
#ifdef OPERAND_DTYPE
layout(constant_id = 11) const bool X16 = false; // x has 16-bit elements
layout(constant_id = 12) const bool Y16 = false; // y has 16-bit elements
layout(constant_id = 25) const bool DENSE_OUTPUT = false; // computed row r is row r of y
layout(constant_id = 26) const uint SPLIT_K = 1; // parts of the sum over IN
const uint X_BYTES = X16 ? 2 : 4, Y_BYTES = Y16 ? 2 : 4;
#else
const uint X_BYTES = 4, Y_BYTES = 4;
const bool DENSE_OUTPUT = false;
#endif

layout(push_constant, std430) uniform Push {
	uvec2 x, w, bias, gather, gamma, score, valid, residual, scatter, skip_bias, y;
#ifdef PREACTIVATION
	uvec2 preactivation; // of the shape and type of y: what GELU is applied to
#endif
	uint total_rows, rows, in_rows, out_rows; // rows: computed rows per item; total_rows = batch * rows
	// gather, score and valid have `lists` lists per item; this dispatch uses list `list`.
	uint lists, list;
	uint first, tiles;                   // this dispatch computes tiles first .. tiles - 1, workgroup g tile first + g
} p;

// list_slot is the row's index in gather, score and valid.
uint list_slot(uint row) { return row + (row / p.rows * (p.lists - 1) + p.list) * p.rows; }

// is_written reports whether a computed row exists and is written: its valid word and its score are not 0, and its
// indices are rows.
bool is_written(uint row) {
	if (row >= p.total_rows) return false;
	if (VALID && U32(p.valid).v[list_slot(row)] == 0) return false;
	if (SCORE && F32(p.score).v[list_slot(row)] == 0) return false;
	if (GATHER && U32(p.gather).v[list_slot(row)] >= p.in_rows) return false; // a negative index is at least 2^31
	return !SCATTER || U32(p.scatter).v[row] < p.out_rows;
}

// x_row is the address of the row of x that a computed row reads. For a row that is not written it is the address of row
// 0, which is safe to read.
uvec2 x_row(uint row) {
	if (!is_written(row)) return p.x;
	uint source = GATHER ? U32(p.gather).v[list_slot(row)] : row % p.rows;
	return at(p.x, row / p.rows * p.in_rows + source, IN * X_BYTES);
}

// norm_factor scales a row with the given sum of squares to length sqrt(IN).
float norm_factor(float square_sum) { return sqrt(float(IN)) / max(sqrt(square_sum), 1e-12); }

#ifndef OPERAND_DTYPE
// scaled_norm_factor is norm_factor for a row whose sum of squares overflows; the argument is that of the row's elements
// times SCALE_DOWN.
float scaled_norm_factor(float square_sum) { return norm_factor(square_sum) * SCALE_DOWN; }

// row_factor is norm_factor of a computed row. If the sum overflows, it reads the row again.
float row_factor(uint row, float square_sum) {
	return overflowed(square_sum) ? scaled_norm_factor(scaled_square_sum(x_row(row), IN)) : norm_factor(square_sum);
}
#endif

// load_out reads columns col .. col + 3 of a row of OUT floats. Columns past the end have undefined values.
vec4 load_out(uvec2 row, uint col) {
	if (OUT % 4 == 0) return F32x4(row).v[col / 4];
	F32 f = F32(row);
	uint last = OUT - 1;
	return vec4(f.v[col], f.v[min(col + 1, last)], f.v[min(col + 2, last)], f.v[min(col + 3, last)]);
}

// store_out writes columns col .. col + 3 of a row of y. Columns past the end are not written.
void store_out(uvec2 row, uint col, vec4 v) {
#ifdef OPERAND_DTYPE
	if (Y16) {
		uvec2 words = uvec2(pack16(OPERAND_DTYPE, v.xy), pack16(OPERAND_DTYPE, v.zw));
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

// Epilogue has what a row's epilogue needs: the row of y and of residual, the factor of the norm, the score, and
// whether bias is added.
struct Epilogue {
	uint row;
	float norm, score;
	bool bias;
};

Epilogue epilogue_of(uint row, float norm) {
	Epilogue e = Epilogue(row, norm, 1, BIAS);
	if (!DENSE_OUTPUT) e.row = (SCATTER ? U32(p.scatter).v[row] : row % p.rows) + row / p.rows * p.out_rows;
	if (SCORE) e.score = F32(p.score).v[list_slot(row)];
	if (SKIP_BIAS) e.bias = U32(p.skip_bias).v[e.row] == 0;
	return e;
}

uvec2 y_row(Epilogue e) { return at(p.y, e.row, OUT * Y_BYTES); }

// Addends are bias and residual of four columns of a row.
struct Addends { vec4 bias, residual; };

Addends load_addends(Epilogue e, uint col) {
	Addends a = Addends(vec4(0), vec4(0));
	if (BIAS && e.bias) a.bias = load_out(p.bias, col);
	if (RESIDUAL) a.residual = load_out(at(p.residual, e.row, OUT * 4), col);
	return a;
}

// apply_epilogue computes four columns of y from their sums. NVIDIA's compiler contracts a multiplication and an
// addition in some places and not in others, even if precise. So every multiplication that an addition follows is an
// explicit fma: a factor is kept until it is known what follows. All tile shapes, and all places in a tile, then give
// the same bits.
vec4 apply_epilogue(Epilogue e, Addends a, vec4 sum) {
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

// write_outputs writes columns col .. col + 3 of y from their sums. With PREACTIVATION defined it also writes what GELU is applied
// to.
#ifdef PREACTIVATION
void write_outputs(Epilogue e, Addends a, uint col, vec4 sum) {
	precise vec4 factor = vec4(NORM ? e.norm : 1.0), v = BIAS ? fma(sum, factor, a.bias) : sum * factor;
	store_out(at(p.preactivation, e.row, OUT * Y_BYTES), col, v);
	store_out(y_row(e), col, apply_epilogue(e, a, sum));
}
#else
#define write_outputs(E, A, COL, SUM) store_out(y_row(E), COL, apply_epilogue(E, A, SUM))
#endif

// write_columns is write_outputs for columns that may not exist.
void write_columns(Epilogue e, uint col, vec4 sum) {
	if (col < OUT) write_outputs(e, load_addends(e, col), col, sum);
}
