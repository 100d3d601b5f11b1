// Rows of DIM_HEAD floats as vec4, and the bounds of scores: what the forward and backward kernels of attention share.
// Include address.glsl first and declare DIM_HEAD before the include.
#ifndef COLT5_ATTENTION_ROWS
#define COLT5_ATTENTION_ROWS

const float MASKED_SCORE = -2e38; // score of a key that is not visible; its differences to other scores are finite
const float MAX_SCORE = 1e37; // bound of the magnitude of scores

const uint ROW_VEC4 = (DIM_HEAD + 3) / 4; // vec4 in a row

// load_row reads vec4 i of a row of DIM_HEAD floats; 0 past its end.
vec4 load_row(uvec2 row, uint i) {
	if (DIM_HEAD % 4 == 0) return i < ROW_VEC4 ? F32x4(row).v[i] : vec4(0);
	F32 f = F32(row);
	vec4 v = vec4(0);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (4 * i + j < DIM_HEAD) v[j] = f.v[4 * i + j];
	return v;
}

void store_row(uvec2 row, uint i, vec4 v) {
	if (DIM_HEAD % 4 == 0) {
		F32x4(row).v[i] = v;
		return;
	}
	F32 f = F32(row);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (4 * i + j < DIM_HEAD) f.v[4 * i + j] = v[j];
}

// clamp_score bounds the magnitude of a score; a NaN stays a NaN, which clamp does not promise. It is branch-free
// because it runs for every score.
float clamp_score(float score, float bound) {
	float end = uintBitsToFloat(floatBitsToUint(bound) | floatBitsToUint(score) & 0x80000000u);
	return mix(score, end, abs(score) > bound);
}

#endif
