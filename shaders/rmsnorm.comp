#version 450
// y[r, :] = x[r, :] * f[r] * gamma[:]    f[r] = sqrt(C) / max(|x[r, :]|, 1e-12)
//
// x, y [Rows, C], y float32 or, where C is a multiple of 4, of 16 bits    gamma [C]    factors [Rows]: f, for kernels that normalise on their way; y and factors may be absent
//
// With GATHER row r of y is that of x's row gather[r] of the same item, zeros where there is no such row or the slot's filled word is 0:
// x [Items, IN_ROWS, C]    gather, filled [Items, Lists, PER_LIST], of which list `list` is taken    y [Items, PER_LIST, C]
//
// A workgroup takes ROWS rows, LANES invocations a row. A lane sums every LANES-th element in order, and the lanes' sums are
// added in a tree of fixed shape: the order depends on C and LANES alone.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/half.glsl"

layout(constant_id = 0) const uint LANES = 32; // a power of two
layout(constant_id = 1) const uint ROWS = 8;
layout(constant_id = 2) const uint C = 4;
layout(constant_id = 3) const bool VEC4 = true; // C is a multiple of 4
layout(constant_id = 4) const uint PRECISION = PRECISION_F32; // of y
layout(constant_id = 5) const bool GATHER = false;
layout(local_size_x_id = 0, local_size_y_id = 1) in;

layout(push_constant, std430) uniform Push {
	uvec2 x, gamma, y, factors, gather, filled;
	uint rows;                          // all of y
	uint per_list, in_rows, lists, list; // with GATHER
} p;

shared float part[ROWS * LANES];

float square_sum(uvec2 x, uint lane) {
	float sum = 0;
	if (VEC4) {
		for (uint i = lane; i < C / 4; i += LANES) {
			vec4 v = F32x4(x).v[i];
			sum += dot(v, v);
		}
	} else {
		for (uint i = lane; i < C; i += LANES) {
			float v = F32(x).v[i];
			sum += v * v;
		}
	}
	return sum;
}

void main() {
	uint lane = gl_LocalInvocationID.x, slot = gl_LocalInvocationID.y;
	uint row = workgroup() * ROWS + slot;
	bool inside = row < p.rows, empty = false;
	uint source = row;
	if (GATHER && inside) {
		uint item = row / p.per_list, entry = row + (item * (p.lists - 1) + p.list) * p.per_list;
		source = U32(p.gather).v[entry];
		empty = source >= p.in_rows || present(p.filled) && U32(p.filled).v[entry] == 0; // a negative index is a large one here
		source = item * p.in_rows + (empty ? 0 : source);
	}
	uvec2 x = at(p.x, source, 4 * C), y = at(p.y, row, PRECISION == PRECISION_F32 ? 4 * C : 2 * C);
	part[slot * LANES + lane] = inside && !empty ? square_sum(x, lane) : 0;
	for (uint half_ = LANES / 2; half_ > 0; half_ /= 2) {
		barrier();
		if (lane < half_) part[slot * LANES + lane] += part[slot * LANES + lane + half_];
	}
	barrier();
	if (!inside) return;
	float f = sqrt(float(C)) / max(sqrt(part[slot * LANES]), 1e-12);
	if (present(p.factors) && lane == 0) F32(p.factors).v[row] = f;
	if (!present(p.y)) return;
	if (VEC4) {
		for (uint i = lane; i < C / 4; i += LANES) {
			vec4 v = F32x4(x).v[i] * f * F32x4(p.gamma).v[i];
			if (GATHER && empty) v = vec4(0);
			if (PRECISION == PRECISION_F32) F32x4(y).v[i] = v;
			else U32x2(y).v[i] = uvec2(pack(PRECISION, v.xy), pack(PRECISION, v.zw));
		}
	} else {
		for (uint i = lane; i < C; i += LANES) F32(y).v[i] = GATHER && empty ? 0.0 : F32(x).v[i] * f * F32(p.gamma).v[i];
	}
}
