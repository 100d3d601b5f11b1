#version 460
// Gradient of the weight of a linear layer on cooperative matrices: 16-bit operands, F16 or BF16, and float32 sums. It
// computes what linear_backward.comp computes:
//
//	dy [items, rows, OUT] f32 or 16-bit    x [items, rows, IN] f32 or 16-bit    dw [items, parts, OUT, IN] f32
//	dw[o, i] (+)= sum of dy[r, o] * x[r, i] over the rows of a part
//
// A workgroup computes a tile of TILE_M outputs by TILE_N inputs of a part with SUBGROUPS_M x SUBGROUPS_N subgroups.
// TILE_K rows at a time are in shared memory, as they are in device memory; they are padded by 16 bytes, so that 8 rows
// use all banks. The matrix of dy is loaded transposed. The next TILE_K rows are prefetched into registers. The results
// pass through shared memory, so that they are written in whole chunks of rows.
//
// All tile shapes add in the same order, MATRIX_K rows at a time, and so give the same bits.
//
// With LOW_REGISTERS defined, the kernel is for devices whose subgroups have few registers, as in linear_matrix.comp.
#include "include/matrix_operands.glsl"
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear_backward.glsl"
#include "include/pack16.glsl"

layout(constant_id = 11) const bool X16 = false; // x has 16-bit elements; IN is a multiple of 8 then
layout(constant_id = 12) const bool DY16 = false; // dy has 16-bit elements; OUT is a multiple of 8 then
layout(constant_id = 14) const uint MATRIX_M = 16; // shape of a matrix product: M x K times K x N
layout(constant_id = 15) const uint MATRIX_N = 16;
layout(constant_id = 16) const uint MATRIX_K = 16;
layout(constant_id = 17) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 18) const uint TILE_M = 64; // outputs of a workgroup
layout(constant_id = 19) const uint TILE_N = 64; // inputs of a workgroup
layout(constant_id = 20) const uint TILE_K = 32; // rows of a loop iteration
layout(constant_id = 21) const uint SUBGROUPS_M = 2; // subgroups of a workgroup along M
layout(constant_id = 22) const uint SUBGROUPS_N = 2; // subgroups of a workgroup along N
layout(constant_id = 23) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS_M * SUBGROUPS_N * SUBGROUP_SIZE
layout(constant_id = 28) const bool FULL_TILES = false; // the rows of every part are a multiple of TILE_K
layout(constant_id = 29) const bool FAST_COMPILE = false; // less code, slower: no peeled iteration, one matrix stored at a time
layout(local_size_x_id = 23) in;

#ifdef LOW_REGISTERS
#define UNROLL_K [[dont_unroll]]
#else
#define UNROLL_K [[unroll]]
#endif

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint MATRICES_M = TILE_M / SUBGROUPS_M / MATRIX_M, MATRICES_N = TILE_N / SUBGROUPS_N / MATRIX_N; // of a subgroup
const uint DY_CHUNKS = TILE_M / 8, DY_PITCH = DY_CHUNKS + 1, X_CHUNKS = TILE_N / 8, X_PITCH = X_CHUNKS + 1;
const uint DY_STEP = THREADS / DY_CHUNKS, X_STEP = THREADS / X_CHUNKS; // rows that the workgroup loads at a time
const uint DY_LOADS = (TILE_K + DY_STEP - 1) / DY_STEP, X_LOADS = (TILE_K + X_STEP - 1) / X_STEP; // rows of an invocation
const uint DY_WORDS = DY16 ? 1 : 2, X_WORDS = X16 ? 1 : 2; // chunks that hold 8 elements in device memory
const uint DY_ROW = OUT * (DY16 ? 2 : 4), X_ROW = IN * (X16 ? 2 : 4); // bytes
const uint N_VEC4 = TILE_N / SUBGROUPS_N / 4, OUT_PITCH = N_VEC4 + 1; // a subgroup's row of results
const uint OPERAND_CHUNKS = TILE_K * (DY_PITCH + X_PITCH), OUT_CHUNKS = SUBGROUPS_M * SUBGROUPS_N * MATRIX_M * OUT_PITCH;
// STORE_M is the number of matrices along M that are stored together: all or half of them if they fit into shared memory,
// else one.
const uint HALF_M = MATRICES_M % 2 == 0 ? MATRICES_M / 2 : 1, FITTING_M = HALF_M * OUT_CHUNKS <= OPERAND_CHUNKS ? HALF_M : 1;
const uint STORE_M = FAST_COMPILE ? 1 : MATRICES_M * OUT_CHUNKS <= OPERAND_CHUNKS ? MATRICES_M : FITTING_M;
// An invocation writes OUTPUTS vec4 of these results.
const uint OUTPUTS = (STORE_M * MATRIX_M * N_VEC4 + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;

// tile holds rows of dy, then of x; at the end the results.
shared uvec4 tile[OPERAND_CHUNKS > OUT_CHUNKS ? OPERAND_CHUNKS : OUT_CHUNKS];

uvec4 dy_next[DY_LOADS * DY_WORDS], x_next[X_LOADS * X_WORDS];
ACCUMULATOR acc[MATRICES_M][MATRICES_N];

// load reads chunk `word` of the 8 elements from column col on of a row of n; 0 past its end.
uvec4 load(uvec2 row, bool is16, uint n, uint col, uint word) {
	if (is16) return col < n ? U32x4(row).v[col / 8] : uvec4(0);
	col += 4 * word;
	if (n % 4 == 0) return col < n ? U32x4(row).v[col / 4] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + i < n) v[i] = U32(row).v[col + i];
	return v;
}

// prefetch loads rows k0 .. k0 + TILE_K - 1 of the tile into registers; 0 past the last one.
void prefetch(Tile t, uint k0) {
	uint k = k0 + gl_LocalInvocationIndex / DY_CHUNKS, col = t.out0 + gl_LocalInvocationIndex % DY_CHUNKS * 8;
	uvec2 first = at(p.dy, t.row + k, DY_ROW);
	[[unroll]] for (uint i = 0; i < DY_LOADS; i++) {
		uvec2 row = FULL_TILES ? at(first, i * DY_STEP, DY_ROW) : at(p.dy, t.row + min(k + i * DY_STEP, t.count - 1), DY_ROW);
		[[unroll]] for (uint w = 0; w < DY_WORDS; w++) {
			uvec4 v = load(row, DY16, OUT, col, w);
			dy_next[i * DY_WORDS + w] = FULL_TILES || k + i * DY_STEP < t.count ? v : uvec4(0);
		}
	}
	k = k0 + gl_LocalInvocationIndex / X_CHUNKS;
	col = t.in0 + gl_LocalInvocationIndex % X_CHUNKS * 8;
	first = at(p.x, t.row + k, X_ROW);
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) {
		uvec2 row = FULL_TILES ? at(first, i * X_STEP, X_ROW) : at(p.x, t.row + min(k + i * X_STEP, t.count - 1), X_ROW);
		[[unroll]] for (uint w = 0; w < X_WORDS; w++) {
			uvec4 v = load(row, X16, IN, col, w);
			x_next[i * X_WORDS + w] = FULL_TILES || k + i * X_STEP < t.count ? v : uvec4(0);
		}
	}
}

// operand rounds 8 elements to 16 bits.
uvec4 operand(uvec4 first, uvec4 second) {
	vec4 a = uintBitsToFloat(first), b = uintBitsToFloat(second);
	return uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw));
}

// store_tiles writes the prefetched rows to shared memory.
void store_tiles() {
	uint row = gl_LocalInvocationIndex / DY_CHUNKS, chunk = gl_LocalInvocationIndex % DY_CHUNKS;
	[[unroll]] for (uint i = 0; i < DY_LOADS; i++) {
		if (TILE_K % DY_STEP != 0 && row + i * DY_STEP >= TILE_K) continue;
		tile[(row + i * DY_STEP) * DY_PITCH + chunk] = DY16 ? dy_next[i] : operand(dy_next[i * DY_WORDS], dy_next[i * DY_WORDS + DY_WORDS - 1]);
	}
	row = gl_LocalInvocationIndex / X_CHUNKS;
	chunk = gl_LocalInvocationIndex % X_CHUNKS;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) {
		if (TILE_K % X_STEP != 0 && row + i * X_STEP >= TILE_K) continue;
		tile[TILE_K * DY_PITCH + (row + i * X_STEP) * X_PITCH + chunk] = X16 ? x_next[i] : operand(x_next[i * X_WORDS], x_next[i * X_WORDS + X_WORDS - 1]);
	}
}

// multiply adds the products of the rows in shared memory to the sums of subgroup (subgroup_m, subgroup_n).
void multiply(uint subgroup_m, uint subgroup_n) {
	UNROLL_K for (uint k = 0; k < TILE_K / MATRIX_K; k++) {
		OPERAND_A dy[MATRICES_M];
		OPERAND_B x;
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			coopMatLoad(dy[i], tile, k * MATRIX_K * DY_PITCH + (subgroup_m * (TILE_M / SUBGROUPS_M) + i * MATRIX_M) / 8, DY_PITCH,
				gl_CooperativeMatrixLayoutColumnMajor);
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
			coopMatLoad(x, tile, TILE_K * DY_PITCH + k * MATRIX_K * X_PITCH + (subgroup_n * (TILE_N / SUBGROUPS_N) + j * MATRIX_N) / 8, X_PITCH,
				gl_CooperativeMatrixLayoutRowMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) acc[i][j] = coopMatMulAdd(dy[i], x, acc[i][j]);
		}
	}
}

// write_rows writes the outputs from o0 on, inputs from i0 on, whose sums are in shared memory from chunk `base` on.
void write_rows(uint slice, uint o0, uint i0, uint base) {
	UNROLL_K for (uint n = 0; n < OUTPUTS; n++) {
		uint e = gl_SubgroupInvocationID + n * SUBGROUP_SIZE, o = o0 + e / N_VEC4, i = i0 + e % N_VEC4 * 4;
		if (STORE_M * MATRIX_M * N_VEC4 % SUBGROUP_SIZE != 0 && e >= STORE_M * MATRIX_M * N_VEC4) continue;
		vec4 sums = uintBitsToFloat(tile[base + e / N_VEC4 * OUT_PITCH + e % N_VEC4]);
		if (IN % 4 != 0) {
			[[unroll]] for (uint j = 0; j < 4; j++) store(slice, o, i + j, sums[j]);
		} else if (o < OUT && i < IN) {
			F32x4 row = F32x4(at(p.dw, slice * OUT + o, IN * 4));
			row.v[i / 4] = ADD ? row.v[i / 4] + sums : sums;
		}
	}
}

// store_rows passes the sums of matrices m .. m + STORE_M - 1 along M through shared memory, from chunk `base` on, and
// writes them. o0 and i0 are the first output and input of the subgroup.
void store_rows(uint m, uint slice, uint o0, uint i0, uint base) {
	[[unroll]] for (uint s = 0; s < STORE_M; s++)
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++)
			coopMatStore(acc[m + s][j], tile, base + s * MATRIX_M * OUT_PITCH + j * MATRIX_N / 4, OUT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
	subgroupMemoryBarrierShared();
	subgroupBarrier();
	write_rows(slice, o0 + m * MATRIX_M, i0, base);
	subgroupMemoryBarrierShared();
	subgroupBarrier();
}

void main() {
	if (p.first + workgroup_index() >= p.tiles) return;
	Tile t = tile_of(p.first + workgroup_index(), TILE_M, TILE_N);
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
			acc[i][j] = ACCUMULATOR(0);
#ifdef LOW_REGISTERS
			acc[i][j] = coopMatMulAdd(OPERAND_A(0), OPERAND_B(0), acc[i][j]); // see linear_matrix.comp
#endif
		}
	uint subgroup_m = gl_SubgroupID % SUBGROUPS_M, subgroup_n = gl_SubgroupID / SUBGROUPS_M;
#ifdef LOW_REGISTERS
	[[dont_unroll]] for (uint k0 = 0; k0 < t.count; k0 += TILE_K) {
		prefetch(t, k0);
		store_tiles();
		barrier();
		multiply(subgroup_m, subgroup_n);
		barrier();
	}
#else
	prefetch(t, 0);
	uint k0 = TILE_K;
	for (; k0 < t.count + (FAST_COMPILE ? TILE_K : 0); k0 += TILE_K) {
		store_tiles();
		barrier();
		if (!FAST_COMPILE || k0 < t.count) prefetch(t, k0);
		multiply(subgroup_m, subgroup_n);
		barrier();
	}
	if (!FAST_COMPILE) {
		store_tiles();
		barrier();
		multiply(subgroup_m, subgroup_n);
		barrier();
	}
#endif

	uint o0 = t.out0 + subgroup_m * (TILE_M / SUBGROUPS_M), i0 = t.in0 + subgroup_n * (TILE_N / SUBGROUPS_N);
	uint base = gl_SubgroupID * STORE_M * MATRIX_M * OUT_PITCH;
#ifdef LOW_REGISTERS
	// Mesa's compilers do not unroll a loop that contains a loop, and would index acc in memory.
	store_rows(0, t.slice, o0, i0, base);
	if (STORE_M < MATRICES_M) store_rows(STORE_M, t.slice, o0, i0, base);
	if (2 * STORE_M < MATRICES_M) store_rows(2 * STORE_M, t.slice, o0, i0, base);
	if (3 * STORE_M < MATRICES_M) store_rows(3 * STORE_M, t.slice, o0, i0, base);
#else
	[[unroll]] for (uint m = 0; m < MATRICES_M; m += STORE_M) store_rows(m, t.slice, o0, i0, base);
#endif
}
