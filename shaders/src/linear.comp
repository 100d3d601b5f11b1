#version 460
// Linear layer in float32, with optional gather, RMSNorm, bias, GELU, score, residual and scatter:
//
//	x [B, InRows, IN]    w [OUT, IN]    y, residual [B, OutRows, OUT]    bias [OUT]    gamma [IN]
//	gather, score, valid [B, Lists, Rows]    scatter [B, Rows]    skip_bias [B, OutRows]: no bias where it is not 0
//	y[scatter[r], o] = gelu(sum_i norm(x[gather[r]])[i] * w[o, i] + bias[o]) * score[r] + residual[scatter[r], o]
//
// A workgroup computes a tile of TILE x TILE: TILE_M rows by TILE_N columns. An invocation computes THREAD_M x
// THREAD_N of it, in groups of 4 x 4, so that it reads shared memory as vec4. TILE_K inputs at a time are in shared
// memory, transposed; the next TILE_K are prefetched into registers. For the norm, w is multiplied by gamma when it is
// written to shared memory, each invocation sums the squares of one row of x, and the epilogue applies the row's
// factor. If the sum overflows, the invocation reads the row again. All tile sizes add in the order i = 0, 1, .. IN - 1, and so give the same bits.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear.glsl"

const uint TILE_M = TILE, TILE_N = TILE;
#if TILE == 128 // fewest shared memory reads per multiplication, but 220 registers per invocation
const uint THREAD_M = 16, THREAD_N = 8, TILE_K = 8;
#else // four times as many invocations for the same rows
const uint THREAD_M = 8, THREAD_N = 4, TILE_K = 32;
#endif
const uint THREADS_N = TILE_N / THREAD_N, THREADS_M = TILE_M / THREAD_M, THREADS = THREADS_N * THREADS_M;
const uint K_VEC4 = TILE_K / 4;                                     // vec4 of a row in a loop iteration
const uint ROW_STEP = THREADS / K_VEC4;                             // rows that the workgroup loads at a time
// vec4 of x and w that an invocation loads in a loop iteration.
const uint X_LOADS = TILE_M / ROW_STEP, W_LOADS = TILE_N / ROW_STEP;
layout(local_size_x = THREADS) in;

// Row k of a tile has element k of every row (of x or w); swizzle permutes its vec4.
shared vec4 x_tile[TILE_K * TILE_M / 4];
shared vec4 w_tile[TILE_K * TILE_N / 4];
shared float factors[TILE_M]; // of the norm

uvec2 x_rows[X_LOADS], w_rows[W_LOADS];
vec4 x_next[X_LOADS], w_next[W_LOADS], gamma_next;
float square_sum; // of row gl_LocalInvocationIndex % TILE_M
vec4 acc[THREAD_M][THREAD_N / 4];

// swizzle permutes the vec4 of a tile row to avoid bank conflicts: a subgroup stores K_VEC4 vec4 of each of 32 / K_VEC4
// rows, and these stores then use all 32 banks.
uint swizzle(uint v, uint kv) { return v ^ (8 / K_VEC4 * kv); }

// load_in reads columns col .. col + 3 of a row of IN floats; 0 past the end.
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

// prefetch loads inputs k0 .. k0 + TILE_K - 1 into registers.
void prefetch(uint k0) {
	uint col = k0 + gl_LocalInvocationIndex % K_VEC4 * 4;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) x_next[i] = load_in(x_rows[i], col);
	[[unroll]] for (uint i = 0; i < W_LOADS; i++) w_next[i] = load_in(w_rows[i], col);
	if (NORM) gamma_next = load_in(p.gamma, col);
}

// store_tiles writes the prefetched inputs to shared memory.
void store_tiles() {
	uint kv = gl_LocalInvocationIndex % K_VEC4, row = gl_LocalInvocationIndex / K_VEC4;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) {
		uint m = row + i * ROW_STEP;
		[[unroll]] for (uint j = 0; j < 4; j++) x_tile[(kv * 4 + j) * (TILE_M / 4) + swizzle(m / 4, kv)][m % 4] = x_next[i][j];
	}
	[[unroll]] for (uint i = 0; i < W_LOADS; i++) {
		vec4 v = w_next[i];
		if (NORM) v *= gamma_next;
		uint n = row + i * ROW_STEP;
		[[unroll]] for (uint j = 0; j < 4; j++) w_tile[(kv * 4 + j) * (TILE_N / 4) + swizzle(n / 4, kv)][n % 4] = v[j];
	}
}

// w_columns reads vec4 i of w from shared memory. With OUT = 1 only the first component has a use, and RADV of Mesa 26.1.6
// crashes on vectors in shared memory of which every load uses one component only.
vec4 w_columns(uint i) { return OUT == 1 ? vec4(w_tile[i].x) : w_tile[i]; }

void multiply(uint tx, uint ty) {
	[[unroll]] for (uint kv = 0; kv < K_VEC4; kv++) {
		uint sx = swizzle(tx, kv), sy = swizzle(ty, kv);
		[[unroll]] for (uint k = kv * 4; k < kv * 4 + 4; k++) {
			vec4 x[THREAD_M / 4], w[THREAD_N / 4];
			[[unroll]] for (uint g = 0; g < THREAD_M / 4; g++) x[g] = x_tile[k * (TILE_M / 4) + g * THREADS_M + sy];
			[[unroll]] for (uint h = 0; h < THREAD_N / 4; h++) w[h] = w_columns(k * (TILE_N / 4) + h * THREADS_N + sx);
			[[unroll]] for (uint r = 0; r < THREAD_M; r++)
				[[unroll]] for (uint h = 0; h < THREAD_N / 4; h++) acc[r][h] = fma(vec4(x[r / 4][r % 4]), w[h], acc[r][h]);
			if (NORM) {
				uint m = gl_LocalInvocationIndex % TILE_M;
				float v = x_tile[k * (TILE_M / 4) + swizzle(m / 4, kv)][m % 4];
				square_sum = fma(v, v, square_sum);
			}
		}
	}
}

// write_row writes row r of the invocation's part of the tile at (m0, n0).
void write_row(uint m0, uint n0, uint tx, uint ty, uint r) {
	uint row = (r / 4 * THREADS_M + ty) * 4 + r % 4;
	if (!is_written(m0 + row)) return;
	Epilogue e = epilogue_of(m0 + row, NORM ? factors[row] : 1.0);
	[[unroll]] for (uint h = 0; h < THREAD_N / 4; h++) write_columns(e, n0 + (h * THREADS_N + tx) * 4, acc[r][h]);
}

void main() {
	const uint tiles_n = (OUT + TILE_N - 1) / TILE_N;
	uint tile = p.first + workgroup_index();
	if (tile >= p.tiles) return;
	uint m0 = tile / tiles_n * TILE_M, n0 = tile % tiles_n * TILE_N;

	uint t = gl_LocalInvocationIndex;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) x_rows[i] = x_row(m0 + t / K_VEC4 + i * ROW_STEP);
	[[unroll]] for (uint i = 0; i < W_LOADS; i++) w_rows[i] = at(p.w, min(n0 + t / K_VEC4 + i * ROW_STEP, OUT - 1), IN * 4);
	[[unroll]] for (uint r = 0; r < THREAD_M; r++)
		[[unroll]] for (uint h = 0; h < THREAD_N / 4; h++) acc[r][h] = vec4(0);

	// 32 consecutive invocations cover 8 x 4 of the tile: they read few different vec4, and write whole 128-byte lines.
	uint tx = t % 8 + t / 32 % (THREADS_N / 8) * 8, ty = t / 8 % 4 + t / (32 * (THREADS_N / 8)) * 4;
	square_sum = 0;
	prefetch(0);
	for (uint k0 = 0; k0 < IN; k0 += TILE_K) {
		store_tiles();
		barrier();
		if (k0 + TILE_K < IN) prefetch(k0 + TILE_K);
		multiply(tx, ty);
		barrier();
	}

	if (NORM) {
		if (t < TILE_M) factors[t] = row_factor(m0 + t, square_sum);
		barrier();
	}
	[[unroll]] for (uint r = 0; r < THREAD_M; r++) write_row(m0, n0, tx, ty, r);
}
