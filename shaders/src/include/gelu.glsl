// The exact GELU: x * normal_cdf(x), where normal_cdf is the standard normal distribution function. GLSL has no erf.
#ifndef COLT5_GELU
#define COLT5_GELU

// normal_tail returns the standard normal distribution function at -z, for z >= 0, as 2^-P(z). P is the weighted
// minimax polynomial of -log2(erfc(z / sqrt 2) / 2) on [0, 6.5], and grows beyond. The error in float32 is at most
// 5e-8. From 10 on the result is 0.
vec4 normal_tail(vec4 z) {
	bvec4 far = greaterThan(z, vec4(10));
	z = min(z, 10.0);
	vec4 c = vec4(2.3349384719040245e-06);
	c = fma(c, z, vec4(-3.373767322045751e-05));
	c = fma(c, z, vec4(0.0001612932828720659));
	c = fma(c, z, vec4(0.00019170409359503537));
	c = fma(c, z, vec4(-0.007126864045858383));
	c = fma(c, z, vec4(0.05253361165523529));
	c = fma(c, z, vec4(0.4591982960700989));
	c = fma(c, z, vec4(1.1511059999465942));
	return mix(exp2(-fma(c, z, vec4(1))), vec4(0), far);
}

vec4 normal_cdf(vec4 x) {
	precise vec4 tail = normal_tail(abs(x)), rest = 1.0 - tail;
	return mix(rest, tail, lessThan(x, vec4(0)));
}

#endif
