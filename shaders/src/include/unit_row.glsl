// Gradient of rows that are divided by their length, u = v / max(|v|, 1e-12), by INVOCATIONS_PER_ROW invocations a row.
// Include address.glsl first; requires GL_EXT_control_flow_attributes. The including file defines:
//
//	float upstream(uint i)    gradient of element i of u of the invocation's row
#ifndef COLT5_UNIT_ROW
#define COLT5_UNIT_ROW
#include "row_norm.glsl"
#include "square_sum.glsl"

const float MIN_LENGTH = 1e-12;

shared uint overflows; // whether a row's sum of squares overflows

float upstream(uint i);

// unit_sums returns the sums of v * v and of v * upstream over the row's elements v times scale. All invocations call
// it.
vec2 unit_sums(uvec2 row, uint channels, float scale) {
	vec2 sums = vec2(0);
	for (uint i = gl_LocalInvocationID.x; i < channels; i += INVOCATIONS_PER_ROW) {
		float v = scaled(F32(row).v[i], scale);
		sums += v * vec2(v, upstream(i));
	}
	return row_sum(sums);
}

// Unit describes a row v: u = (v * scale) * inverse; along is the product of u and its gradient, 0 where the length is
// replaced by the constant 1e-12.
struct Unit { float scale, inverse, along; };

// unit_of returns that of a row of so many elements; of none for invocations without a row. All invocations call it.
Unit unit_of(uvec2 row, uint channels) {
	if (gl_LocalInvocationIndex == 0) overflows = 0;
	vec2 sums = unit_sums(row, channels, 1);
	if (gl_LocalInvocationID.x == 0 && overflowed(sums.x)) overflows = 1;
	barrier();
	float scale = 1;
	if (overflows != 0) {
		vec2 scaled_sums = unit_sums(row, channels, SCALE_DOWN);
		if (overflowed(sums.x)) {
			sums = scaled_sums;
			scale = SCALE_DOWN;
		}
	}
	float length = sqrt(sums.x), inverse = 1 / max(length, MIN_LENGTH);
	return Unit(scale, inverse, length > MIN_LENGTH ? sums.y * inverse : 0);
}

// unit_gradient is the gradient of an element v of the row, given that of u.
float unit_gradient(Unit unit, float v, float du) {
	return (du - scaled(v, unit.scale) * unit.inverse * unit.along) * unit.inverse * unit.scale;
}

#endif
