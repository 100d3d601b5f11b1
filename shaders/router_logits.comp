#version 460
// Router logits: every token against the routing tokens of one or two sets, x being read once for all of them.
//
//   x [B, N, C]    tokens [R, C] or [B, R, C]    tokens2 [R2, C] or [B, R2, C]
//   logits [B, R, N], logits2 [B, R2, N]:  logits[b, r, i] = x[b, i] . tokens[r]
//   cosine:  SCALE * (x[b, i] / max(||x[b, i]||, 1e-12)) . (tokens[r] / max(||tokens[r]||, 1e-12))
//   factors [B, N], optional:  sqrt(C) / max(||x[b, i]||, 1e-12), what RMSNorm multiplies a row by
//
// A workgroup of 256 makes 256 / LANES * ROWS rows. LANES neighbours of a subgroup share a row: 8 of them read 128 bytes at once,
// and three shuffles end a sum. A lane works on ROWS rows at a time, so that it has that many loads under way and uses each piece
// of a routing token that often. GROUP routing tokens go in one pass over the rows; only with more than 16 there is a second.
// Order of summation: a lane adds columns lane, lane + LANES, ... and the lanes are added in pairs, whatever ROWS, GROUP and the
// subgroup size are.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "include/address.glsl"

#ifdef VEC4 // C is a multiple of 4
#define T vec4
#define ROW F32x4
#define FLOATS 4
#else
#define T float
#define ROW F32
#define FLOATS 1
#endif

layout(local_size_x = 256) in;
layout(constant_id = 0) const uint COLS = 1;  // T of a row
layout(constant_id = 1) const uint LANES = 1; // a power of two, at most the subgroup size
layout(constant_id = 2) const uint ROWS = 1;  // of a lane
layout(constant_id = 3) const uint R = 1;
layout(constant_id = 4) const uint R2 = 0;
layout(constant_id = 5) const uint GROUP = 1;
layout(constant_id = 6) const float SCALE = 0; // 0: dot product

const uint STRIDE = COLS * (4 * FLOATS);
const uint CLUSTERS = 256 / LANES; // rows that the workgroup works on at a time
const uint STEPS = COLS / LANES;
const float LEAST = 1e-24; // square of the least norm that is divided by

layout(push_constant) uniform Push {
	uvec2 x, tokens, tokens2, logits, logits2, factors;
	uint n;
	uint rows;   // of an item: N of B items if each brings its tokens, else B * N of one
	uint tiles;  // workgroups of an item
	uint groups; // in all
} p;

// Invocations numbered so that LANES neighbours are in one subgroup; subgroups are full.
uint invocation() { return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID; }

#ifdef VEC4
float add_product(vec4 a, vec4 b, float sum) {
	return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
#else
float add_product(float a, float b, float sum) { return fma(a, b, sum); }
#endif

float over_lanes(float v) {
	[[unroll]] for (uint m = 1; m < LANES; m *= 2) v += subgroupShuffleXor(v, m);
	return v;
}

uvec2 x[ROWS], tokens, tokens2; // addresses: the rows of this lane, the tokens of this item
float squares[ROWS], token_squares[GROUP], dots[ROWS * GROUP];

// token_column reads column col of routing token r, counted over both sets; past the last one it repeats it.
T token_column(uint r, uint col) {
	r = min(r, R + R2 - 1);
	if (r < R) return ROW(tokens).v[r * COLS + col];
	return ROW(tokens2).v[(r - R) * COLS + col];
}

void add_column(uint first, uint col) {
	T v[ROWS];
	[[unroll]] for (uint j = 0; j < ROWS; j++) {
		v[j] = ROW(x[j]).v[col];
	}
	[[unroll]] for (uint j = 0; j < ROWS; j++) {
		squares[j] = add_product(v[j], v[j], squares[j]);
	}
	[[unroll]] for (uint r = 0; r < GROUP; r++) {
		T t = token_column(first + r, col);
		if (SCALE != 0) token_squares[r] = add_product(t, t, token_squares[r]);
		[[unroll]] for (uint j = 0; j < ROWS; j++) {
			dots[j * GROUP + r] = add_product(v[j], t, dots[j * GROUP + r]);
		}
	}
}

// sum leaves in every lane the sums of its rows with tokens first .. first + GROUP - 1.
void sum(uint first) {
	uint lane = invocation() % LANES;
	[[unroll]] for (uint i = 0; i < ROWS * GROUP; i++) dots[i] = 0;
	[[unroll]] for (uint j = 0; j < ROWS; j++) squares[j] = 0;
	[[unroll]] for (uint r = 0; r < GROUP; r++) token_squares[r] = 0;
	for (uint s = 0; s < STEPS; s++) add_column(first, s * LANES + lane);
	if (lane < COLS % LANES) add_column(first, STEPS * LANES + lane);
	[[unroll]] for (uint i = 0; i < ROWS * GROUP; i++) dots[i] = over_lanes(dots[i]);
	[[unroll]] for (uint j = 0; j < ROWS; j++) squares[j] = over_lanes(squares[j]);
	if (SCALE != 0) {
		[[unroll]] for (uint r = 0; r < GROUP; r++) token_squares[r] = over_lanes(token_squares[r]);
	}
}

void store(uint j, uint row, uint first) {
	uint b = row / p.n, i = row - b * p.n;
	float inverse = inversesqrt(max(squares[j], LEAST));
	if (first == 0 && present(p.factors)) F32(p.factors).v[row] = sqrt(float(COLS * FLOATS)) * inverse;
	[[unroll]] for (uint r = 0; r < GROUP; r++) {
		float logit = dots[j * GROUP + r];
		if (SCALE != 0) logit = logit * inverse * inversesqrt(max(token_squares[r], LEAST)) * SCALE;
		uint token = first + r;
		if (token < R) F32(at(p.logits, b * R + token, p.n * 4)).v[i] = logit;
		else if (token < R + R2) F32(at(p.logits2, b * R2 + (token - R), p.n * 4)).v[i] = logit;
	}
}

void pass(uint row, uint item, uint first) {
	sum(first);
	if (invocation() % LANES == 0) {
		[[unroll]] for (uint j = 0; j < ROWS; j++) {
			uint i = row + j * CLUSTERS;
			if (i < p.rows) store(j, item * p.rows + i, first);
		}
	}
}

void main() {
	if (workgroup() >= p.groups) return;
	uint item = workgroup() / p.tiles;
	uint row = (workgroup() - item * p.tiles) * (ROWS * CLUSTERS) + invocation() / LANES; // the lane's first one, in the item
	[[unroll]] for (uint j = 0; j < ROWS; j++) {
		x[j] = at(p.x, item * p.rows + min(row + j * CLUSTERS, p.rows - 1), STRIDE); // rows past the last repeat it
	}
	tokens = at(p.tokens, item * R, STRIDE);
	tokens2 = at(p.tokens2, item * R2, STRIDE);
	if (GROUP >= R + R2) {
		pass(row, item, 0);
	} else {
		for (uint first = 0; first < R + R2; first += GROUP) pass(row, item, first);
	}
}
