// Row sums and LayerNorm statistics for kernels that give each row INVOCATIONS_PER_ROW invocations. Include address.glsl
// first.
#ifndef COLT5_ROW_NORM
#define COLT5_ROW_NORM
#include "square_sum.glsl"

layout(constant_id = 0) const uint INVOCATIONS_PER_ROW = 32; // invocations per row: a power of two
layout(constant_id = 1) const uint ROWS_PER_WORKGROUP = 8;
layout(local_size_x_id = 0, local_size_y_id = 1) in;

const float NORM_EPS = 1e-5;

shared vec2 partial_sums[ROWS_PER_WORKGROUP * INVOCATIONS_PER_ROW];

// row_sum returns the sum of value over the invocations of a row, added in a tree of fixed shape. All invocations call it.
vec2 row_sum(vec2 value) {
	uint invocation = gl_LocalInvocationID.x, first = gl_LocalInvocationID.y * INVOCATIONS_PER_ROW;
	barrier(); // all invocations have read the previous result
	partial_sums[first + invocation] = value;
	for (uint width = INVOCATIONS_PER_ROW / 2; width > 0; width /= 2) {
		barrier();
		if (invocation < width) partial_sums[first + invocation] += partial_sums[first + invocation + width];
	}
	barrier();
	return partial_sums[first];
}

shared uint any_overflows;

// Norm standardises an element v of a row: ((v * scale - near_mean) - correction) * inverse_deviation. overflows says
// that the sum of squares of the row does, and any_overflows that one of the workgroup's rows does: then compute the
// statistics again with scale SCALE_DOWN, for the rows that overflow.
struct Norm {
	float scale, near_mean, correction, inverse_deviation;
	bool overflows, any_overflows;
};

// row_norm computes the statistics of a row of count elements, times scale. differences is an invocation's sum of v *
// scale - near_mean and of its square, where near_mean is the mean up to rounding. The differences are small, so their
// sum is accurate even where the mean is large. All invocations call it.
Norm row_norm(float scale, float near_mean, vec2 differences, float count) {
	if (gl_LocalInvocationIndex == 0) any_overflows = 0;
	vec2 sum = row_sum(differences);
	bool overflows = overflowed(sum.y); // also if the mean does
	if (overflows) any_overflows = 1;
	barrier();
	float correction = sum.x / count;
	float variance = max(sum.y / count - correction * correction, 0);
	float eps = scale == 1 ? NORM_EPS : 1e-37; // not 0: all elements may be the same
	return Norm(scale, near_mean, correction, inversesqrt(variance + eps), overflows, any_overflows != 0);
}

#endif
