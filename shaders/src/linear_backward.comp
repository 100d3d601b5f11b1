#version 460
// Gradient of the weight of a linear layer, for each item of a batch, over parts of the rows:
//
//	dy [items, rows, OUT] f32    x [items, rows, IN] f32    dw [items, parts, OUT, IN] f32
//	dw[o, i] (+)= sum of dy[r, o] * x[r, i] over the rows of a part
//
// Another kernel adds the parts. A workgroup computes a tile of 64 x 64 of a part. An invocation computes 8 x 4 of it,
// in groups of 4 x 4, so that it reads shared memory as vec4. TILE_K rows at a time are in shared memory; the next
// TILE_K are prefetched into registers. Each element is added in the order of rows, as in linear_backward_cpu.comp, and
// so has the same bits.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear_backward.glsl"

const uint TILE = 64, THREAD_M = 8, THREAD_N = 4, TILE_K = 16;
const uint THREADS_M = TILE / THREAD_M, THREADS_N = TILE / THREAD_N, THREADS = THREADS_M * THREADS_N;
const uint ROW_VEC4 = TILE / 4;              // vec4 of a row in a tile
const uint ROW_STEP = THREADS / ROW_VEC4;    // rows that the workgroup loads at a time
const uint LOADS = TILE_K / ROW_STEP;        // vec4 of dy, and of x, that an invocation loads in a loop iteration
layout(local_size_x = THREADS) in;

shared vec4 dy_tile[TILE_K * ROW_VEC4], x_tile[TILE_K * ROW_VEC4];

vec4 dy_next[LOADS], x_next[LOADS], acc[THREAD_M];

// load reads elements col .. col + 3 of a row of n floats; 0 past the end.
vec4 load(uvec2 row, uint n, uint col) {
	if (n % 4 == 0) return col < n ? F32x4(row).v[col / 4] : vec4(0);
	F32 f = F32(row);
	vec4 v = vec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + i < n) v[i] = f.v[col + i];
	return v;
}

// prefetch loads rows k0 .. k0 + TILE_K - 1 of the tile into registers; 0 past the last one.
void prefetch(Tile t, uint k0) {
	uint col = gl_LocalInvocationIndex % ROW_VEC4 * 4;
	[[unroll]] for (uint i = 0; i < LOADS; i++) {
		uint k = k0 + gl_LocalInvocationIndex / ROW_VEC4 + i * ROW_STEP;
		uint row = t.row + min(k, t.count - 1);
		vec4 dy = load(at(p.dy, row, OUT * 4), OUT, t.out0 + col), x = load(at(p.x, row, IN * 4), IN, t.in0 + col);
		dy_next[i] = k < t.count ? dy : vec4(0);
		x_next[i] = k < t.count ? x : vec4(0);
	}
}

// With OUT or IN = 1 only the first component has a use, and RADV of Mesa 26.1.6 crashes on vectors in shared memory of
// which every load uses one component only.
vec4 dy_columns(uint i) { return OUT == 1 ? vec4(dy_tile[i].x) : dy_tile[i]; }
vec4 x_columns(uint i) { return IN == 1 ? vec4(x_tile[i].x) : x_tile[i]; }

void multiply(uint tx, uint ty) {
	[[unroll]] for (uint k = 0; k < TILE_K; k++) {
		vec4 dy[THREAD_M / 4], x = x_columns(k * ROW_VEC4 + tx);
		[[unroll]] for (uint g = 0; g < THREAD_M / 4; g++) dy[g] = dy_columns(k * ROW_VEC4 + g * THREADS_M + ty);
		[[unroll]] for (uint r = 0; r < THREAD_M; r++) acc[r] = fma(vec4(dy[r / 4][r % 4]), x, acc[r]);
	}
}

void main() {
	if (p.first + workgroup_index() >= p.tiles) return;
	Tile t = tile_of(p.first + workgroup_index(), TILE, TILE);
	[[unroll]] for (uint r = 0; r < THREAD_M; r++) acc[r] = vec4(0);

	// 32 consecutive invocations cover 8 x 4 of the tile: they read few different vec4, and write whole 128-byte lines.
	uint thread = gl_LocalInvocationIndex;
	uint tx = thread % 8 + thread / 32 % (THREADS_N / 8) * 8, ty = thread / 8 % 4 + thread / (32 * (THREADS_N / 8)) * 4;
	prefetch(t, 0);
	for (uint k0 = 0; k0 < t.count; k0 += TILE_K) {
		[[unroll]] for (uint i = 0; i < LOADS; i++) {
			dy_tile[thread + i * THREADS] = dy_next[i];
			x_tile[thread + i * THREADS] = x_next[i];
		}
		barrier();
		if (k0 + TILE_K < t.count) prefetch(t, k0 + TILE_K);
		multiply(tx, ty);
		barrier();
	}
	[[unroll]] for (uint r = 0; r < THREAD_M; r++) {
		uint o = t.out0 + (r / 4 * THREADS_M + ty) * 4 + r % 4, i = t.in0 + tx * 4;
		if (IN % 4 != 0) {
			[[unroll]] for (uint j = 0; j < 4; j++) store(t.slice, o, i + j, acc[r][j]);
		} else if (o < OUT && i < IN) {
			F32x4 row = F32x4(at(p.dw, t.slice * OUT + o, IN * 4));
			row.v[i / 4] = ADD ? row.v[i / 4] + acc[r] : acc[r];
		}
	}
}
