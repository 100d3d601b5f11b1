// Square root and quotient with the error of the last bit removed: devices may be off by several units in the last place.
// The residual of an approximation is exact where fma rounds once. The arguments are positive and normal numbers; a may
// be any number that is not larger than b, and b is at most 2^125: the reciprocal of a larger number is denormal, which
// devices may replace by 0.
#ifndef COLT5_DIVIDE
#define COLT5_DIVIDE

float exact_sqrt(float v) {
	precise float r = sqrt(v);
	precise float residual = fma(-r, r, v);
	return fma(residual, 0.5 / r, r);
}

float exact_quotient(float a, float b) {
	precise float q = a / b;
	precise float residual = fma(-q, b, a);
	return fma(residual, 1 / b, q);
}

#endif
