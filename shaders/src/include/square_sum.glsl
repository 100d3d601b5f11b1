// Rows whose length exceeds 1.8e19: their sum of squares overflows. A kernel that finds such a sum computes it again from
// elements times SCALE_DOWN, so that other rows keep their bits and their speed. Include
// address.glsl first; requires GL_EXT_control_flow_attributes.
#ifndef COLT5_SQUARE_SUM
#define COLT5_SQUARE_SUM

const float SCALE_DOWN = 8.271806125530277e-25; // 2^-80

// scaled multiplies by a power of two. It is precise, because compilers may else multiply a sum instead of its terms. With
// a constant scale of 1 it leaves no trace, which could change how an expression is compiled.
float scaled(float v, float scale) {
	if (scale == 1) return v;
	precise float r = v * scale;
	return r;
}

vec4 scaled(vec4 v, float scale) {
	if (scale == 1) return v;
	precise vec4 r = v * scale;
	return r;
}

// overflowed reports whether a sum is infinite or NaN. It compares bits, because compilers may assume that no such number
// occurs.
bool overflowed(float sum) { return (floatBitsToUint(sum) & 0x7f800000u) == 0x7f800000u; }

// scaled_square_sum returns the sum of squares of a row's elements times SCALE_DOWN. An iteration adds 4 elements, because
// some CPU drivers limit the number of iterations; more would be compiled for long.
float scaled_square_sum(uvec2 row, uint channels) {
	float sum = 0;
	[[dont_unroll]] for (uint i = 0; i < channels; i += 4) {
		[[unroll]] for (uint j = 0; j < 4; j++) {
			float v = scaled(F32(row).v[min(i + j, channels - 1)], SCALE_DOWN);
			if (i + j < channels) sum = fma(v, v, sum);
		}
	}
	return sum;
}

#endif
