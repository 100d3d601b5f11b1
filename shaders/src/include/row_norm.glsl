// Row sums and LayerNorm statistics for kernels that give each row INVOCATIONS_PER_ROW invocations. Include address.glsl
// first.
#ifndef COLT5_ROW_NORM
#define COLT5_ROW_NORM

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

// Norm standardises an element v of a row: ((v - near_mean) - correction) * inverse_deviation.
struct Norm { float near_mean, correction, inverse_deviation; };

// row_norm computes the statistics of a row of count elements. differences is an invocation's sum of v - near_mean and
// of its square, where near_mean is the mean up to rounding. The differences are small, so their sum is accurate even
// where the mean is large.
Norm row_norm(float near_mean, vec2 differences, float count) {
	vec2 sum = row_sum(differences);
	float correction = sum.x / count;
	float variance = max(sum.y / count - correction * correction, 0);
	return Norm(near_mean, correction, inversesqrt(variance + NORM_EPS));
}

#endif
