#version 460
// RMSNorm: rows scaled to length sqrt(C), then by gamma.
//
//	x [Rows, C] f32    gamma [C]    y [Rows, C] optional: f32, or f16 or bf16 where C is a multiple of 4
//	factors [Rows] optional: f, for callers; no other shader reads them
//	y[r] = x[r] * f[r] * gamma    f[r] = sqrt(C) / max(||x[r]||, 1e-12)
//
// With GATHER the rows are gathered from lists of slots:
//
//	x [Items, InRows, C]    y [Items, PerList, C]
//	gather [Items, Lists, PerList] i32    valid [Items, Lists, PerList] u32 optional
//	row j of an item of y is row gather[j] of that item of x, of list `list`; 0 if there is no such row or valid is 0
//
// A workgroup computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each. Invocation i of a row adds
// elements i, i + INVOCATIONS_PER_ROW, ..., and the partial sums are added in a tree of fixed shape, so the order of
// summation depends on C and INVOCATIONS_PER_ROW only.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"

layout(constant_id = 0) const uint INVOCATIONS_PER_ROW = 32; // invocations per row: a power of two
layout(constant_id = 1) const uint ROWS_PER_WORKGROUP = 8;
layout(constant_id = 2) const uint CHANNELS = 4; // elements in a row
layout(constant_id = 3) const bool VEC4 = true; // CHANNELS is a multiple of 4
layout(constant_id = 4) const uint Y_DTYPE = DTYPE_F32; // of y
layout(constant_id = 5) const bool GATHER = false; // rows of x are gathered
layout(local_size_x_id = 0, local_size_y_id = 1) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, gamma, y, factors, gather, valid;
	uint rows;                           // of y, over all items
	uint per_list, in_rows, lists, list; // with GATHER
} p;

shared float partial_sums[ROWS_PER_WORKGROUP * INVOCATIONS_PER_ROW];

float square_sum(uvec2 x, uint invocation) {
	float sum = 0;
	if (VEC4) {
		for (uint i = invocation; i < CHANNELS / 4; i += INVOCATIONS_PER_ROW) {
			vec4 v = F32x4(x).v[i];
			sum += dot(v, v);
		}
	} else {
		for (uint i = invocation; i < CHANNELS; i += INVOCATIONS_PER_ROW) {
			float v = F32(x).v[i];
			sum += v * v;
		}
	}
	return sum;
}

void main() {
	uint invocation = gl_LocalInvocationID.x, local_row = gl_LocalInvocationID.y;
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + local_row;
	bool inside = row < p.rows, empty = false;
	uint source = row;
	if (GATHER && inside) {
		uint item = row / p.per_list, slot = row + (item * (p.lists - 1) + p.list) * p.per_list;
		source = U32(p.gather).v[slot];
		empty = source >= p.in_rows || present(p.valid) && U32(p.valid).v[slot] == 0; // a negative index is at least 2^31
		source = item * p.in_rows + (empty ? 0 : source);
	}
	uvec2 x = at(p.x, source, 4 * CHANNELS), y = at(p.y, row, Y_DTYPE == DTYPE_F32 ? 4 * CHANNELS : 2 * CHANNELS);
	partial_sums[local_row * INVOCATIONS_PER_ROW + invocation] = inside && !empty ? square_sum(x, invocation) : 0;
	for (uint width = INVOCATIONS_PER_ROW / 2; width > 0; width /= 2) {
		barrier();
		if (invocation < width)
			partial_sums[local_row * INVOCATIONS_PER_ROW + invocation] += partial_sums[local_row * INVOCATIONS_PER_ROW + invocation + width];
	}
	barrier();
	if (!inside) return;
	float f = sqrt(float(CHANNELS)) / max(sqrt(partial_sums[local_row * INVOCATIONS_PER_ROW]), 1e-12);
	if (present(p.factors) && invocation == 0) F32(p.factors).v[row] = f;
	if (!present(p.y)) return;
	if (VEC4) {
		for (uint i = invocation; i < CHANNELS / 4; i += INVOCATIONS_PER_ROW) {
			vec4 v = F32x4(x).v[i] * f * F32x4(p.gamma).v[i];
			if (GATHER && empty) v = vec4(0);
			if (Y_DTYPE == DTYPE_F32) F32x4(y).v[i] = v;
			else U32x2(y).v[i] = uvec2(pack16(Y_DTYPE, v.xy), pack16(Y_DTYPE, v.zw));
		}
	} else {
		for (uint i = invocation; i < CHANNELS; i += INVOCATIONS_PER_ROW) F32(y).v[i] = GATHER && empty ? 0.0 : F32(x).v[i] * f * F32(p.gamma).v[i];
	}
}
