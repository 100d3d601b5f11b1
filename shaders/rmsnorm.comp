#version 450
// y[r, :] = x[r, :] * f[r] * gamma[:]    f[r] = sqrt(CHANNELS) / max(|x[r, :]|, 1e-12)
//
// x, y [Rows, CHANNELS], y float32 or, where CHANNELS is a multiple of 4, of 16 bits    gamma [CHANNELS]    factors [Rows]: f, for kernels that normalise on their way; y and factors may be absent
//
// With GATHER row r of y is that of x's row gather[r] of the same item, zeros where there is no such row or the slot's filled word is 0:
// x [Items, IN_ROWS, CHANNELS]    gather, filled [Items, Lists, PER_LIST], of which list `list` is taken    y [Items, PER_LIST, CHANNELS]
//
// A workgroup takes ROWS_PER_WORKGROUP rows, LANES_PER_ROW invocations a row. A lane sums every LANES_PER_ROW-th element in order, and the lanes' sums are
// added in a tree of fixed shape: the order depends on CHANNELS and LANES_PER_ROW alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/half.glsl"

layout(constant_id = 0) const uint LANES_PER_ROW = 32; // invocations per row: a power of two
layout(constant_id = 1) const uint ROWS_PER_WORKGROUP = 8;
layout(constant_id = 2) const uint CHANNELS = 4; // elements in a row
layout(constant_id = 3) const bool VEC4 = true; // CHANNELS is a multiple of 4
layout(constant_id = 4) const uint Y_DTYPE = DTYPE_F32; // of y
layout(constant_id = 5) const bool GATHER = false; // rows of x are gathered
layout(local_size_x_id = 0, local_size_y_id = 1) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, gamma, y, factors, gather, filled;
	uint rows;                          // all of y
	uint per_list, in_rows, lists, list; // with GATHER
} p;

shared float part[ROWS_PER_WORKGROUP * LANES_PER_ROW];

float square_sum(uvec2 x, uint lane) {
	float sum = 0;
	if (VEC4) {
		for (uint i = lane; i < CHANNELS / 4; i += LANES_PER_ROW) {
			vec4 v = F32x4(x).v[i];
			sum += dot(v, v);
		}
	} else {
		for (uint i = lane; i < CHANNELS; i += LANES_PER_ROW) {
			float v = F32(x).v[i];
			sum += v * v;
		}
	}
	return sum;
}

void main() {
	uint lane = gl_LocalInvocationID.x, slot = gl_LocalInvocationID.y;
	uint row = workgroup() * ROWS_PER_WORKGROUP + slot;
	bool inside = row < p.rows, empty = false;
	uint source = row;
	if (GATHER && inside) {
		uint item = row / p.per_list, entry = row + (item * (p.lists - 1) + p.list) * p.per_list;
		source = U32(p.gather).v[entry];
		empty = source >= p.in_rows || present(p.filled) && U32(p.filled).v[entry] == 0; // a negative index is a large one here
		source = item * p.in_rows + (empty ? 0 : source);
	}
	uvec2 x = at(p.x, source, 4 * CHANNELS), y = at(p.y, row, Y_DTYPE == DTYPE_F32 ? 4 * CHANNELS : 2 * CHANNELS);
	part[slot * LANES_PER_ROW + lane] = inside && !empty ? square_sum(x, lane) : 0;
	for (uint half_ = LANES_PER_ROW / 2; half_ > 0; half_ /= 2) {
		barrier();
		if (lane < half_) part[slot * LANES_PER_ROW + lane] += part[slot * LANES_PER_ROW + lane + half_];
	}
	barrier();
	if (!inside) return;
	float f = sqrt(float(CHANNELS)) / max(sqrt(part[slot * LANES_PER_ROW]), 1e-12);
	if (present(p.factors) && lane == 0) F32(p.factors).v[row] = f;
	if (!present(p.y)) return;
	if (VEC4) {
		for (uint i = lane; i < CHANNELS / 4; i += LANES_PER_ROW) {
			vec4 v = F32x4(x).v[i] * f * F32x4(p.gamma).v[i];
			if (GATHER && empty) v = vec4(0);
			if (Y_DTYPE == DTYPE_F32) F32x4(y).v[i] = v;
			else U32x2(y).v[i] = uvec2(pack(Y_DTYPE, v.xy), pack(Y_DTYPE, v.zw));
		}
	} else {
		for (uint i = lane; i < CHANNELS; i += LANES_PER_ROW) F32(y).v[i] = GATHER && empty ? 0.0 : F32(x).v[i] * f * F32(p.gamma).v[i];
	}
}
