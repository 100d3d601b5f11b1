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
// summation depends on C and INVOCATIONS_PER_ROW only. Where a sum of squares overflows, the workgroup computes its sums
// again from smaller elements, for that row; not with NO_RESCALING, for 16-bit operands.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#ifndef NO_RESCALING
#extension GL_EXT_control_flow_attributes : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"
#ifndef NO_RESCALING
#include "include/square_sum.glsl"
#endif

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

#ifdef NO_RESCALING
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
#else
shared float partial_sums[ROWS_PER_WORKGROUP * INVOCATIONS_PER_ROW];
shared uint overflows; // whether a row's sum of squares overflows

// square_sum returns the sum of squares of a row's elements times scale, 0 for a row without elements. All invocations
// call it.
float square_sum(uvec2 x, uint channels, float scale) {
	uint invocation = gl_LocalInvocationID.x, first = gl_LocalInvocationID.y * INVOCATIONS_PER_ROW;
	float sum = 0;
	if (VEC4) {
		for (uint i = invocation; i < channels / 4; i += INVOCATIONS_PER_ROW) {
			vec4 v = scaled(F32x4(x).v[i], scale);
			sum += dot(v, v);
		}
	} else {
		for (uint i = invocation; i < channels; i += INVOCATIONS_PER_ROW) {
			float v = scaled(F32(x).v[i], scale);
			sum += v * v;
		}
	}
	if (gl_LocalInvocationIndex == 0) overflows = 0;
	partial_sums[first + invocation] = sum;
	for (uint width = INVOCATIONS_PER_ROW / 2; width > 0; width /= 2) {
		barrier();
		if (invocation < width) partial_sums[first + invocation] += partial_sums[first + invocation + width];
	}
	if (INVOCATIONS_PER_ROW == 1) barrier();
	if (invocation == 0 && overflowed(partial_sums[first])) overflows = 1;
	barrier();
	return partial_sums[first];
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
	uint channels = inside && !empty ? CHANNELS : 0;
	float sum = square_sum(x, channels, 1), scale = 1;
	if (overflows != 0) {
		barrier(); // all invocations have read overflows and the sums
		float scaled_sum = square_sum(x, channels, SCALE_DOWN);
		if (overflowed(sum)) {
			sum = scaled_sum;
			scale = SCALE_DOWN;
		}
	}
	if (!inside) return;
	float f = sqrt(float(CHANNELS)) / max(sqrt(sum), 1e-12); // of a row times scale
	if (present(p.factors) && invocation == 0) F32(p.factors).v[row] = f * scale;
	if (!present(p.y)) return;
	if (VEC4) {
		for (uint i = invocation; i < CHANNELS / 4; i += INVOCATIONS_PER_ROW) {
			vec4 v = scaled(F32x4(x).v[i], scale) * f * F32x4(p.gamma).v[i];
			if (GATHER && empty) v = vec4(0);
			if (Y_DTYPE == DTYPE_F32) F32x4(y).v[i] = v;
			else U32x2(y).v[i] = uvec2(pack16(Y_DTYPE, v.xy), pack16(Y_DTYPE, v.zw));
		}
	} else {
		for (uint i = invocation; i < CHANNELS; i += INVOCATIONS_PER_ROW) F32(y).v[i] = GATHER && empty ? 0.0 : scaled(F32(x).v[i], scale) * f * F32(p.gamma).v[i];
	}
}
#endif
