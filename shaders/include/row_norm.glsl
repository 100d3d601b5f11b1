// Sums over rows dealt out to a workgroup, and the mean and deviation of a row (LayerNorm). address.glsl comes first.
#ifndef COLT5_ROW_NORM
#define COLT5_ROW_NORM

layout(constant_id = 0) const uint LANES_PER_ROW = 32; // invocations per row: a power of two
layout(constant_id = 1) const uint ROWS_PER_WORKGROUP = 8;
layout(local_size_x_id = 0, local_size_y_id = 1) in;

const float NORM_EPS = 1e-5;

shared vec2 parts[ROWS_PER_WORKGROUP * LANES_PER_ROW];

// row_sum adds up the values of a row's lanes, in a tree of fixed shape. All invocations call it.
vec2 row_sum(vec2 value) {
	uint lane = gl_LocalInvocationID.x, first = gl_LocalInvocationID.y * LANES_PER_ROW;
	barrier(); // the result before this one has been read
	parts[first + lane] = value;
	for (uint half_ = LANES_PER_ROW / 2; half_ > 0; half_ /= 2) {
		barrier();
		if (lane < half_) parts[first + lane] += parts[first + lane + half_];
	}
	barrier();
	return parts[first];
}

// Norm says how to standardise a row: ((v - near) - rest) * factor.
struct Norm { float near, rest, factor; };

// row_norm takes what the lane knows of a row of count values: the sum of v - near, and the sum of its square. near is the mean up
// to rounding, which is what the first sum is for: the differences are small, so what they sum to is exact where the mean is large.
Norm row_norm(float near, vec2 differences, float count) {
	vec2 sum = row_sum(differences);
	float rest = sum.x / count;
	float variance = max(sum.y / count - rest * rest, 0);
	return Norm(near, rest, inversesqrt(variance + NORM_EPS));
}

#endif
