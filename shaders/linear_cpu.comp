#version 450
// Rows times a matrix, in float32, for CPU drivers: what linear.comp computes, without shared memory and barriers. There it is up to
// twice as fast where rows are short, and compiled in half the time.
//
// A workgroup of 8 invocations computes 64 slots by 8 columns. An invocation, one lane of the CPU's vectors, has 8 slots, 8
// apart: a value of w is the same for all lanes, and each value read from memory serves 8 multiplications.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear.glsl"

const uint LANES = 8, TM = 8, TN = 8;
const uint TILE_M = LANES * TM, TILE_N = TN;
layout(local_size_x = 8) in;

void main() {
	const uint across = (OUT + TILE_N - 1) / TILE_N;
	uint tile = p.first + workgroup();
	if (tile >= p.tiles) return;
	uint m0 = tile / across * TILE_M + gl_LocalInvocationIndex, n0 = tile % across * TILE_N;

	F32 x_row[TM], w_row[TN];
	float acc[TM][TN], squares[TM];
	[[unroll]] for (uint r = 0; r < TM; r++) {
		x_row[r] = F32(source(m0 + r * LANES));
		squares[r] = 0;
		[[unroll]] for (uint c = 0; c < TN; c++) acc[r][c] = 0;
	}
	[[unroll]] for (uint c = 0; c < TN; c++) w_row[c] = F32(at(p.w, min(n0 + c, OUT - 1), IN * 4));
	for (uint k = 0; k < IN; k++) {
		float gamma = NORM ? F32(p.gamma).v[k] : 1.0;
		float x[TM];
		[[unroll]] for (uint r = 0; r < TM; r++) {
			x[r] = x_row[r].v[k];
			if (NORM) squares[r] = fma(x[r], x[r], squares[r]);
		}
		[[unroll]] for (uint c = 0; c < TN; c++) {
			float w = w_row[c].v[k];
			if (NORM) w *= gamma;
			[[unroll]] for (uint r = 0; r < TM; r++) acc[r][c] = fma(x[r], w, acc[r][c]);
		}
	}
	[[unroll]] for (uint r = 0; r < TM; r++) {
		uint slot = m0 + r * LANES;
		if (!is_filled(slot)) continue;
		Exit e = way_out(slot, NORM ? norm_factor(squares[r]) : 1.0);
		[[unroll]] for (uint c = 0; c < TN; c += 4) finish(e, n0 + c, vec4(acc[r][c], acc[r][c + 1], acc[r][c + 2], acc[r][c + 3]));
	}
}
