#version 450
// Rows times a matrix, in float32:
//
//	x [B, InRows, IN]    w [OUT, IN]    y [B, OutRows, OUT]    slot = item * Rows + r
//	y[scatter[slot], o] = gelu(sum_i norm(x[gather[slot]])[i] * w[o, i] + bias[o]) * score[slot] + residual[scatter[slot], o]
//	unless [B, OutRows]: rows of y whose word is not 0 get no bias
//
// A workgroup computes a tile of TILE_M slots by TILE_N columns, an invocation TM x TN of it, in groups of 4 x 4 so that it reads shared
// memory in vec4. TILE_K inputs at a time lie in shared memory, transposed; the next TILE_K are on their way to registers meanwhile.
// The norm costs little: w is multiplied by gamma on the way to shared memory, each invocation sums the squares of one row of x
// there, and the row's factor follows the sum. All tile sizes add in the same order, i = 0, 1, .. IN - 1, and so give the same bits.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear.glsl"

const uint TILE_M = TILE, TILE_N = TILE;
#if TILE == 128 // few reads of shared memory for a multiplication, but 220 registers
const uint TM = 16, TN = 8, TILE_K = 8;
#else // four times as many invocations
const uint TM = 8, TN = 4, TILE_K = 32;
#endif
const uint NX = TILE_N / TN, NY = TILE_M / TM, THREADS = NX * NY; // invocations across and down
const uint KV = TILE_K / 4;                                   // vec4 of a row that a step takes
const uint STRIDE = THREADS / KV;                         // rows fetched side by side
const uint AL = TILE_M / STRIDE, WL = TILE_N / STRIDE;            // vec4 of x and of w that an invocation fetches in a step
layout(local_size_x = THREADS) in;

// Row k of a tile holds element k of every row (x) or column (w); swizzle() shuffles its vec4.
shared vec4 a_tile[TILE_K * TILE_M / 4];
shared vec4 w_tile[TILE_K * TILE_N / 4];
shared float squares[TILE_M];

uvec2 a_row[AL], w_row[WL];
vec4 a_next[AL], w_next[WL], gamma_next;
float square; // the sum of the squares of the slot that this invocation watches
vec4 acc[TM][TN / 4];

// swizzle moves the vec4 at v so that the stores of a subgroup, KV vec4 of a row from each of 32 / KV rows, meet all 32 banks.
uint swizzle(uint v, uint kv) { return v ^ (8 / KV * kv); }

// load_in reads columns col .. col + 3 of a row of IN; 0 past its end.
vec4 load_in(uvec2 row, uint col) {
	if (IN % 4 == 0) {
		if (IN % TILE_K == 0 || col < IN) return F32x4(row).v[col / 4];
		return vec4(0);
	}
	F32 f = F32(row);
	vec4 v = vec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + i < IN) v[i] = f.v[col + i];
	return v;
}

void fetch(uint k0) {
	uint col = k0 + gl_LocalInvocationIndex % KV * 4;
	[[unroll]] for (uint i = 0; i < AL; i++) a_next[i] = load_in(a_row[i], col);
	[[unroll]] for (uint i = 0; i < WL; i++) w_next[i] = load_in(w_row[i], col);
	if (NORM) gamma_next = load_in(p.gamma, col);
}

void put() {
	uint kv = gl_LocalInvocationIndex % KV, row = gl_LocalInvocationIndex / KV;
	[[unroll]] for (uint i = 0; i < AL; i++) {
		uint m = row + i * STRIDE;
		[[unroll]] for (uint j = 0; j < 4; j++) a_tile[(kv * 4 + j) * (TILE_M / 4) + swizzle(m / 4, kv)][m % 4] = a_next[i][j];
	}
	[[unroll]] for (uint i = 0; i < WL; i++) {
		vec4 v = w_next[i];
		if (NORM) v *= gamma_next;
		uint n = row + i * STRIDE;
		[[unroll]] for (uint j = 0; j < 4; j++) w_tile[(kv * 4 + j) * (TILE_N / 4) + swizzle(n / 4, kv)][n % 4] = v[j];
	}
}

void multiply(uint tx, uint ty) {
	[[unroll]] for (uint kv = 0; kv < KV; kv++) {
		uint sx = swizzle(tx, kv), sy = swizzle(ty, kv);
		[[unroll]] for (uint k = kv * 4; k < kv * 4 + 4; k++) {
			vec4 a[TM / 4], w[TN / 4];
			[[unroll]] for (uint g = 0; g < TM / 4; g++) a[g] = a_tile[k * (TILE_M / 4) + g * NY + sy];
			[[unroll]] for (uint h = 0; h < TN / 4; h++) w[h] = w_tile[k * (TILE_N / 4) + h * NX + sx];
			[[unroll]] for (uint r = 0; r < TM; r++)
				[[unroll]] for (uint h = 0; h < TN / 4; h++) acc[r][h] = fma(vec4(a[r / 4][r % 4]), w[h], acc[r][h]);
			if (NORM) {
				uint m = gl_LocalInvocationIndex % TILE_M;
				float v = a_tile[k * (TILE_M / 4) + swizzle(m / 4, kv)][m % 4];
				square = fma(v, v, square);
			}
		}
	}
}

// write finishes the invocation's row r.
void write(uint m0, uint n0, uint tx, uint ty, uint r) {
	uint row = (r / 4 * NY + ty) * 4 + r % 4;
	if (!is_filled(m0 + row)) return;
	Exit e = way_out(m0 + row, NORM ? norm_factor(squares[row]) : 1.0);
	[[unroll]] for (uint h = 0; h < TN / 4; h++) finish(e, n0 + (h * NX + tx) * 4, acc[r][h]);
}

void main() {
	const uint across = (OUT + TILE_N - 1) / TILE_N;
	uint tile = p.first + workgroup();
	if (tile >= p.tiles) return;
	uint m0 = tile / across * TILE_M, n0 = tile % across * TILE_N;

	uint t = gl_LocalInvocationIndex;
	[[unroll]] for (uint i = 0; i < AL; i++) a_row[i] = source(m0 + t / KV + i * STRIDE);
	[[unroll]] for (uint i = 0; i < WL; i++) w_row[i] = at(p.w, min(n0 + t / KV + i * STRIDE, OUT - 1), IN * 4);
	[[unroll]] for (uint r = 0; r < TM; r++)
		[[unroll]] for (uint h = 0; h < TN / 4; h++) acc[r][h] = vec4(0);

	// 32 invocations cover 8 x 4 of the tile: few different vec4 for a subgroup to read, whole 128-byte lines for it to write.
	uint tx = t % 8 + t / 32 % (NX / 8) * 8, ty = t / 8 % 4 + t / (32 * (NX / 8)) * 4;
	square = 0;
	fetch(0);
	for (uint k0 = 0; k0 < IN; k0 += TILE_K) {
		put();
		barrier();
		if (k0 + TILE_K < IN) fetch(k0 + TILE_K);
		multiply(tx, ty);
		barrier();
	}

	if (NORM) {
		if (t < TILE_M) squares[t] = square;
		barrier();
	}
	[[unroll]] for (uint r = 0; r < TM; r++) write(m0, n0, tx, ty, r);
}
