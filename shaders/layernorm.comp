#version 450
// LayerNorm: rows to mean 0 and variance 1, then by weight and bias.
//
//   x, y [Rows, C], may be the same memory    weight, bias [C]    add [Period, C] if ADD
//   y may have numbers of 16 bits, see half.glsl, where C is a multiple of 4
//   y[r] = (x[r] - mean) / sqrt(var + 1e-5) * weight + bias (+ add[r % Period])
//
// A workgroup takes ROWS_PER_WORKGROUP rows, LANES_PER_ROW invocations a row. A lane takes every LANES_PER_ROW-th element in order, and the lanes' sums are
// added in a tree of fixed shape: the order depends on C alone. The row is read three times, but from memory only once.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/half.glsl"
#include "include/row_norm.glsl"

#ifdef VEC4 // C is a multiple of 4
#define T vec4
#define ROW F32x4
#define FLOATS 4
#else
#define T float
#define ROW F32
#define FLOATS 1
#endif

layout(constant_id = 2) const uint COLUMNS = 1; // elements of type T in a row
layout(constant_id = 3) const bool ADD = false; // add rows of add
layout(constant_id = 4) const uint Y_DTYPE = DTYPE_F32; // of y
const uint STRIDE = COLUMNS * (4 * FLOATS);

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, bias, add, y;
	uint rows, period;
} p;

float total(float v) { return v; }
float total(vec4 v) { return (v.x + v.y) + (v.z + v.w); }

void main() {
	uint lane = gl_LocalInvocationID.x;
	uint row = workgroup() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint cols = inside ? COLUMNS : 0; // a row that is not there has no elements, but takes part in the barriers
	ROW x = ROW(at(p.x, row, STRIDE));
	uvec2 y = at(p.y, row, Y_DTYPE == DTYPE_F32 ? STRIDE : STRIDE / 2);
	float sum = 0;
	for (uint i = lane; i < cols; i += LANES_PER_ROW) sum += total(x.v[i]);
	float near = row_sum(vec2(sum, 0)).x / float(COLUMNS * FLOATS);
	vec2 differences = vec2(0);
	for (uint i = lane; i < cols; i += LANES_PER_ROW) {
		T v = x.v[i] - near;
		differences += vec2(total(v), dot(v, v));
	}
	Norm n = row_norm(near, differences, float(COLUMNS * FLOATS));
	ROW weight = ROW(p.weight), bias = ROW(p.bias), add = ROW(p.add);
	if (ADD) add = ROW(at(p.add, row % p.period, STRIDE));
	for (uint i = lane; i < cols; i += LANES_PER_ROW) {
		T v = ((x.v[i] - n.near) - n.rest) * n.factor * weight.v[i] + bias.v[i];
		if (ADD) v += add.v[i];
#ifdef VEC4
		if (Y_DTYPE != DTYPE_F32) {
			U32x2(y).v[i] = uvec2(pack(Y_DTYPE, v.xy), pack(Y_DTYPE, v.zw));
			continue;
		}
#endif
		ROW(y).v[i] = v;
	}
}
