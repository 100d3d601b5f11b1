#version 460
// Linear layer in float32 for CPU drivers: computes what linear.comp computes, without shared memory and barriers. On
// CPU drivers it is up to twice as fast for short rows, and compiles in half the time.
//
// A workgroup of 8 invocations computes 64 rows by 8 columns. An invocation, one lane of the CPU's vector unit,
// computes 8 rows, 8 apart: an element of w is the same for all lanes, and each element read from memory is used in 8
// multiplications.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear.glsl"

const uint THREADS = 8, THREAD_M = 8, THREAD_N = 8;
const uint TILE_M = THREADS * THREAD_M, TILE_N = THREAD_N;
layout(local_size_x = 8) in;

void main() {
	const uint tiles_n = (OUT + TILE_N - 1) / TILE_N;
	uint tile = p.first + workgroup_index();
	if (tile >= p.tiles) return;
	uint m0 = tile / tiles_n * TILE_M + gl_LocalInvocationIndex, n0 = tile % tiles_n * TILE_N;

	uvec2 addresses[THREAD_M];
	[[dont_unroll]] for (uint r = 0; r < THREAD_M; r++) addresses[r] = x_row(m0 + r * THREADS); // a loop, like the epilogue
	F32 x_rows[THREAD_M], w_rows[THREAD_N];
	float acc[THREAD_M][THREAD_N], square_sums[THREAD_M];
	[[unroll]] for (uint r = 0; r < THREAD_M; r++) {
		x_rows[r] = F32(addresses[r]);
		square_sums[r] = 0;
		[[unroll]] for (uint c = 0; c < THREAD_N; c++) acc[r][c] = 0;
	}
	[[unroll]] for (uint c = 0; c < THREAD_N; c++) w_rows[c] = F32(at(p.w, min(n0 + c, OUT - 1), IN * 4));
	for (uint k = 0; k < IN; k++) {
		float gamma = NORM ? F32(p.gamma).v[k] : 1.0;
		float x[THREAD_M];
		[[unroll]] for (uint r = 0; r < THREAD_M; r++) {
			x[r] = x_rows[r].v[k];
			if (NORM) square_sums[r] = fma(x[r], x[r], square_sums[r]);
		}
		[[unroll]] for (uint c = 0; c < THREAD_N; c++) {
			float w = w_rows[c].v[k];
			if (NORM) w *= gamma;
			[[unroll]] for (uint r = 0; r < THREAD_M; r++) acc[r][c] = fma(x[r], w, acc[r][c]);
		}
	}
	// The epilogue is a loop, so that it is compiled once. Its index would keep the sums in memory; these are copies.
	vec4 sums[THREAD_M][THREAD_N / 4];
	float squares[THREAD_M];
	[[unroll]] for (uint r = 0; r < THREAD_M; r++) {
		squares[r] = square_sums[r];
		[[unroll]] for (uint c = 0; c < THREAD_N / 4; c++) sums[r][c] = vec4(acc[r][4 * c], acc[r][4 * c + 1], acc[r][4 * c + 2], acc[r][4 * c + 3]);
	}
	[[dont_unroll]] for (uint r = 0; r < THREAD_M; r++) {
		uint row = m0 + r * THREADS;
		if (!is_written(row)) continue;
		Epilogue e = epilogue_of(row, NORM ? row_factor(row, squares[r]) : 1.0);
		[[unroll]] for (uint c = 0; c < THREAD_N / 4; c++) write_columns(e, n0 + 4 * c, sums[r][c]);
	}
}
