#version 460
// Gradient of the weight of a linear layer for CPU drivers: computes what linear_backward.comp computes, without shared
// memory and barriers, in the same order.
//
// A workgroup of 8 invocations computes a tile of 8 rows by 64 columns of dw. An invocation, one lane of the CPU's
// vector unit, computes 8 columns, 8 apart: an element of dy is the same for all lanes, and each element read from
// memory is used in 8 multiplications.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear_backward.glsl"

const uint THREADS = 8, THREAD_M = 8, THREAD_N = 8;
layout(local_size_x = 8) in;

void main() {
	if (p.first + workgroup_index() >= p.tiles) return;
	Tile t = tile_of(p.first + workgroup_index(), THREAD_M, THREADS * THREAD_N);
	uint in0 = t.in0 + gl_LocalInvocationIndex;
	uint columns[THREAD_N];
	float acc[THREAD_M][THREAD_N];
	[[unroll]] for (uint c = 0; c < THREAD_N; c++) {
		columns[c] = min(in0 + c * THREADS, IN - 1);
		[[unroll]] for (uint r = 0; r < THREAD_M; r++) acc[r][c] = 0;
	}
	for (uint k = 0; k < t.count; k++) {
		// The CPU driver of Mesa 26.1.6 runs a loop's body once more with all lanes off, and then still reads elements that are
		// the same for all lanes. min keeps that read inside of dy.
		uint row = t.row + min(k, t.count - 1);
		F32 dy = F32(at(p.dy, row, OUT * 4)), x = F32(at(p.x, row, IN * 4));
		float v[THREAD_N];
		[[unroll]] for (uint c = 0; c < THREAD_N; c++) v[c] = x.v[columns[c]];
		[[unroll]] for (uint r = 0; r < THREAD_M; r++) {
			float d = dy.v[min(t.out0 + r, OUT - 1)];
			[[unroll]] for (uint c = 0; c < THREAD_N; c++) acc[r][c] = fma(d, v[c], acc[r][c]);
		}
	}
	[[unroll]] for (uint r = 0; r < THREAD_M; r++)
		[[unroll]] for (uint c = 0; c < THREAD_N; c++) store(t.slice, t.out0 + r, in0 + c * THREADS, acc[r][c]);
}
