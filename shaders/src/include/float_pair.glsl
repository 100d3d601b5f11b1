// Arithmetic with pairs of floats, for coordinate descent.
#ifndef COLT5_FLOAT_PAIR
#define COLT5_FLOAT_PAIR

// FloatPair is a number as the sum of two floats. One float is not enough: at logits of 15, half an ulp divided by eps =
// 0.03 is 1.6e-5.
struct FloatPair { float hi, lo; };

// fast_two_sum requires |hi| >= |lo|, or hi = 0.
FloatPair fast_two_sum(float hi, float lo) {
	precise float sum = hi + lo;
	precise float rest = lo - (sum - hi);
	return FloatPair(sum, rest);
}

// product is exact to about 2^-44; if fma is not exact, to 2^-24.
FloatPair product(FloatPair x, FloatPair y) {
	precise float hi = x.hi * y.hi;
	precise float lo = fma(x.hi, y.hi, -hi) + (x.hi * y.lo + x.lo * y.hi);
	return fast_two_sum(hi, lo);
}

FloatPair subtract(FloatPair x, float y) {
	precise float hi = x.hi - y;
	precise float back = hi - x.hi;
	precise float lo = ((x.hi - (hi - back)) - (y + back)) + x.lo;
	return fast_two_sum(hi, lo);
}

FloatPair minimum(float x, FloatPair y) {
	if (y.hi < x || (y.hi == x && y.lo < 0)) return y;
	return FloatPair(x, 0);
}

// difference returns s - x, exact where the two are close.
vec4 difference(vec4 s, FloatPair x) {
	precise vec4 d = (s - x.hi) - x.lo;
	return d;
}

#endif
