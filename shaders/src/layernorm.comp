#version 460
// LayerNorm: rows standardised to mean 0 and variance 1, then scaled and shifted.
//
//	x, y [Rows, C], y may alias x    weight, bias [C]    add [Period, C] with ADD
//	y[r] = (x[r] - mean) / sqrt(var + 1e-5) * weight + bias (+ add[r % Period])
//	x is f32; y is f32, or f16 or bf16 where C is a multiple of 4
//
// A workgroup computes ROWS_PER_WORKGROUP rows with INVOCATIONS_PER_ROW invocations each. Invocation i of a row adds
// elements i, i + INVOCATIONS_PER_ROW, ..., and the partial sums are added in a tree of fixed shape, so the order of
// summation depends on C only.
// The row is read three times; the second and third read hit the cache.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/pack16.glsl"
#include "include/row_norm.glsl"

#ifdef VEC4 // C is a multiple of 4
#define T vec4
#define ROW F32x4
#define T_FLOATS 4
#else
#define T float
#define ROW F32
#define T_FLOATS 1
#endif

layout(constant_id = 2) const uint COLUMNS = 1; // elements of type T in a row
layout(constant_id = 3) const bool ADD = false; // add rows of add
layout(constant_id = 4) const uint Y_DTYPE = DTYPE_F32; // of y
const uint STRIDE = COLUMNS * (4 * T_FLOATS);

layout(push_constant, std430) uniform Push {
	uvec2 x, weight, bias, add, y;
	uint rows, period;
} p;

float horizontal_sum(float v) { return v; }
float horizontal_sum(vec4 v) { return (v.x + v.y) + (v.z + v.w); }

void main() {
	uint invocation = gl_LocalInvocationID.x;
	uint row = workgroup_index() * ROWS_PER_WORKGROUP + gl_LocalInvocationID.y;
	bool inside = row < p.rows;
	uint columns = inside ? COLUMNS : 0; // invocations past the last row have no elements, but take part in the barriers
	ROW x = ROW(at(p.x, row, STRIDE));
	uvec2 y = at(p.y, row, Y_DTYPE == DTYPE_F32 ? STRIDE : STRIDE / 2);
	float sum = 0;
	for (uint i = invocation; i < columns; i += INVOCATIONS_PER_ROW) sum += horizontal_sum(x.v[i]);
	float near_mean = row_sum(vec2(sum, 0)).x / float(COLUMNS * T_FLOATS);
	vec2 differences = vec2(0);
	for (uint i = invocation; i < columns; i += INVOCATIONS_PER_ROW) {
		T v = x.v[i] - near_mean;
		differences += vec2(horizontal_sum(v), dot(v, v));
	}
	Norm n = row_norm(near_mean, differences, float(COLUMNS * T_FLOATS));
	ROW weight = ROW(p.weight), bias = ROW(p.bias), add = ROW(p.add);
	if (ADD) add = ROW(at(p.add, row % p.period, STRIDE));
	for (uint i = invocation; i < columns; i += INVOCATIONS_PER_ROW) {
		T v = ((x.v[i] - n.near_mean) - n.correction) * n.inverse_deviation * weight.v[i] + bias.v[i];
		if (ADD) v += add.v[i];
#ifdef VEC4
		if (Y_DTYPE != DTYPE_F32) {
			U32x2(y).v[i] = uvec2(pack16(Y_DTYPE, v.xy), pack16(Y_DTYPE, v.zw));
			continue;
		}
#endif
		ROW(y).v[i] = v;
	}
}
