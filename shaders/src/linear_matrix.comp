#version 460
// Linear layer on cooperative matrices: 16-bit operands, F16 or BF16, and float32 sums. It computes what linear.comp
// computes:
//
//	x [B, InRows, IN], y [B, OutRows, OUT] f32 or 16-bit    w [OUT, W_COLUMNS] 16-bit, padded with zeros
//	with TRANSPOSED_W w [IN, W_COLUMNS], and w[i, o] in place of w[o, i]
//	y[scatter[r], o] = gelu(sum_i norm(x[gather[r]])[i] * w[o, i] + bias[o]) * score[r] + residual[scatter[r], o]
//
// A workgroup computes a tile of TILE_M rows by TILE_N columns with SUBGROUPS_M x SUBGROUPS_N subgroups. TILE_K inputs
// at a time are in shared memory; rows there are padded by 16 bytes, so that 8 rows use all banks. The next TILE_K
// inputs are prefetched into registers. The factors of the norm are computed first, and applied before x is rounded.
// The results pass through shared memory, so that they are written in whole chunks of rows.
//
// With SPLIT_K > 1 the inputs are cut into SPLIT_K parts. A workgroup computes one part of a tile and writes the sums
// to y [SPLIT_K, total_rows, OUT] f32 without an epilogue; linear_sum.comp adds them and applies the epilogue.
//
// All tile shapes add in the same order, MATRIX_K inputs at a time, and so give the same bits.
//
// With LOW_REGISTERS defined, the kernel is for devices whose subgroups have few registers (4 to 16 KiB): nothing is
// prefetched, and loops stay loops. Intel's compiler (Mesa 26.1) takes the live range of a value to be one interval, so
// that a value carried around a loop occupies its registers in the whole loop, and its copies others.
#include "include/matrix_operands.glsl"
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"
#include "include/linear.glsl"

layout(constant_id = 13) const bool DENSE_INPUT = false; // computed row r reads row r of x
layout(constant_id = 14) const uint MATRIX_M = 16; // shape of a matrix product: M x K times K x N
layout(constant_id = 15) const uint MATRIX_N = 16;
layout(constant_id = 16) const uint MATRIX_K = 16;
layout(constant_id = 17) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 18) const uint TILE_M = 64; // rows of a workgroup
layout(constant_id = 19) const uint TILE_N = 64; // columns of a workgroup
layout(constant_id = 20) const uint TILE_K = 32; // inputs of a loop iteration
layout(constant_id = 21) const uint SUBGROUPS_M = 2; // subgroups of a workgroup along M
layout(constant_id = 22) const uint SUBGROUPS_N = 2; // subgroups of a workgroup along N
layout(constant_id = 23) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS_M * SUBGROUPS_N * SUBGROUP_SIZE
layout(constant_id = 24) const bool NO_EPILOGUE = false; // y is the rounded sum; OUT is a multiple of 8
layout(constant_id = 28) const bool FULL_TILES = false; // total_rows is a multiple of TILE_M
layout(constant_id = 29) const bool FAST_COMPILE = false; // less code, slower: no peeled iteration, one matrix stored at a time
layout(constant_id = 31) const bool TRANSPOSED_W = false; // rows of w have the weights of one input
layout(local_size_x_id = 23) in;

#ifdef LOW_REGISTERS
#define UNROLL_K [[dont_unroll]]
#define KEEP_LOOP [[dont_unroll]]
#else
#define UNROLL_K [[unroll]]
#define KEEP_LOOP
#endif

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint MATRICES_M = TILE_M / SUBGROUPS_M / MATRIX_M, MATRICES_N = TILE_N / SUBGROUPS_N / MATRIX_N; // of a subgroup
const uint W_COLUMNS = ((TRANSPOSED_W ? OUT : IN) + 7) / 8 * 8; // length of a row of w
const uint K_CHUNKS = TILE_K / 8, PITCH = K_CHUNKS + 1; // chunks of a row in a loop iteration
const uint W_ROWS = TRANSPOSED_W ? TILE_K : TILE_N, W_CHUNKS = TRANSPOSED_W ? TILE_N / 8 : K_CHUNKS, W_PITCH = W_CHUNKS + 1; // the same of w
const uint ROW_STEP = THREADS / K_CHUNKS, W_STEP = THREADS / W_CHUNKS; // rows of x and w that the workgroup loads at a time
// Rows that an invocation loads in a loop iteration.
const uint X_LOADS = (TILE_M + ROW_STEP - 1) / ROW_STEP, W_LOADS = (W_ROWS + W_STEP - 1) / W_STEP;
const uint PART_INPUTS = ((IN + SPLIT_K - 1) / SPLIT_K + 255) / 256 * 256; // of a part: the same for every TILE_K
const uint X_CHUNKS = X16 ? 1 : 2; // chunks that hold 8 elements of x
const uint N_VEC4 = TILE_N / SUBGROUPS_N / 4, OUT_PITCH = N_VEC4 + 1; // a subgroup's row of float32 results
const uint N_CHUNKS = TILE_N / SUBGROUPS_N / 8, OUT16_PITCH = N_CHUNKS + 1; // a subgroup's row of 16-bit results
const uint OPERAND_CHUNKS = TILE_M * PITCH + W_ROWS * W_PITCH, OUT_CHUNKS = SUBGROUPS_M * SUBGROUPS_N * MATRIX_M * OUT_PITCH;
// STORE_M is the number of matrices along M that are stored together: all or half of them if they fit into shared memory,
// else one.
const uint HALF_M = MATRICES_M % 2 == 0 ? MATRICES_M / 2 : 1, FITTING_M = HALF_M * OUT_CHUNKS <= OPERAND_CHUNKS ? HALF_M : 1;
const uint STORE_M = FAST_COMPILE ? 1 : MATRICES_M * OUT_CHUNKS <= OPERAND_CHUNKS ? MATRICES_M : FITTING_M;
// An invocation writes OUTPUTS vec4 of these results, BATCH at a time.
const uint OUTPUTS = (STORE_M * MATRIX_M * N_VEC4 + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;
const uint MAX_BATCH = RESIDUAL ? 8 : 4, BATCH = OUTPUTS < MAX_BATCH ? OUTPUTS : MAX_BATCH;

// tile holds rows of x, then of w; at the end the results.
shared uvec4 tile[OPERAND_CHUNKS > OUT_CHUNKS ? OPERAND_CHUNKS : OUT_CHUNKS];
shared float factors[NORM ? TILE_M : 1];

// Output is the prefetched input of the epilogue for 4 columns of a row.
struct Output {
	bool valid;
	Epilogue epilogue;
	vec4 residual;
};

Output next_outputs[BATCH];
// bias is used if SUBGROUP_SIZE is a multiple of N_VEC4: an invocation then writes the same columns in all rows.
vec4 bias;

uint part;
uvec2 x_rows[DENSE_INPUT ? 1 : X_LOADS], w_rows;
uvec4 x_next[X_LOADS * X_CHUNKS], w_next[W_LOADS], gamma_next[2];
ACCUMULATOR acc[MATRICES_M][MATRICES_N];

// load_16bit reads 8 16-bit elements from column col on, of the row that is `row` rows of IN elements after base; 0
// past its end.
uvec4 load_16bit(uvec2 base, uint row, uint col) {
	if (IN % 8 == 0) return IN % TILE_K == 0 || col < IN ? U32x4(base).v[row * (IN / 8) + col / 8] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + 2 * i < IN) v[i] = U32(base).v[row * (IN / 2) + col / 2 + i];
	return v;
}

// load_f32 reads 4 floats likewise.
uvec4 load_f32(uvec2 base, uint row, uint col) {
	if (IN % 4 == 0) return IN % TILE_K == 0 || col < IN ? U32x4(base).v[row * (IN / 4) + col / 4] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + i < IN) v[i] = U32(base).v[row * IN + col + i];
	return v;
}

void prefetch_x(uint i, uvec2 base, uint row, uint col) {
	if (X16) {
		x_next[i * X_CHUNKS] = load_16bit(base, row, col);
	} else {
		x_next[i * X_CHUNKS] = load_f32(base, row, col);
		x_next[i * X_CHUNKS + X_CHUNKS - 1] = load_f32(base, row, col + 4);
	}
}

// prefetch loads inputs k0 .. k0 + TILE_K - 1 of the tile at (m0, n0) into registers.
void prefetch(uint m0, uint n0, uint k0) {
	uint row = gl_LocalInvocationIndex / K_CHUNKS, col = k0 + gl_LocalInvocationIndex % K_CHUNKS * 8;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) {
		if (TILE_M % ROW_STEP != 0 && row + i * ROW_STEP >= TILE_M) continue;
		if (!DENSE_INPUT) {
			prefetch_x(i, x_rows[i], 0, col);
#ifdef LOW_REGISTERS
		} else if (!FULL_TILES) { // a condition would keep the elements of the iteration before in registers
			uint last = p.total_rows - 1, first = min(m0 + row, last);
			prefetch_x(i, x_rows[0], min(i * ROW_STEP, last - first), col);
#endif
		} else if (FULL_TILES || m0 + row + i * ROW_STEP < p.total_rows) {
			prefetch_x(i, x_rows[0], i * ROW_STEP, col);
		}
	}
	if (TRANSPOSED_W) {
		uint k = k0 + gl_LocalInvocationIndex / W_CHUNKS, column = n0 + gl_LocalInvocationIndex % W_CHUNKS * 8;
		uvec2 rows = at(w_rows, k0, W_COLUMNS * 2);
		[[unroll]] for (uint i = 0; i < W_LOADS; i++) {
			w_next[i] = uvec4(0);
			if (TILE_K % W_STEP != 0 && k + i * W_STEP >= k0 + TILE_K) continue;
			if (IN % TILE_K != 0 && k + i * W_STEP >= IN) continue;
			if (OUT % TILE_N == 0 || column < OUT) w_next[i] = U32x4(rows).v[i * W_STEP * (W_COLUMNS / 8) + column / 8];
		}
	} else {
		[[unroll]] for (uint i = 0; i < W_LOADS; i++) {
			w_next[i] = uvec4(0);
			if (TILE_N % ROW_STEP != 0 && row + i * ROW_STEP >= TILE_N) continue;
			if (OUT % TILE_N != 0 && n0 + row + i * ROW_STEP >= OUT) continue;
			if (IN % TILE_K == 0 || col < IN) w_next[i] = U32x4(w_rows).v[i * ROW_STEP * (W_COLUMNS / 8) + col / 8];
		}
	}
	if (NORM) {
		gamma_next[0] = load_f32(p.gamma, 0, col);
		gamma_next[1] = load_f32(p.gamma, 0, col + 4);
	}
}

// x_operand applies the norm to the 8 elements of x of load i, and rounds them to 16 bits.
uvec4 x_operand(uint i, uint row) {
	if (X16) return x_next[i * X_CHUNKS];
	vec4 a = uintBitsToFloat(x_next[i * X_CHUNKS]), b = uintBitsToFloat(x_next[i * X_CHUNKS + X_CHUNKS - 1]);
	if (NORM) {
		a *= factors[row] * uintBitsToFloat(gamma_next[0]);
		b *= factors[row] * uintBitsToFloat(gamma_next[1]);
	}
	return uvec4(pack16(OPERAND_DTYPE, a.xy), pack16(OPERAND_DTYPE, a.zw), pack16(OPERAND_DTYPE, b.xy), pack16(OPERAND_DTYPE, b.zw));
}

// store_tiles writes the prefetched inputs to shared memory.
void store_tiles() {
	uint row = gl_LocalInvocationIndex / K_CHUNKS, chunk = gl_LocalInvocationIndex % K_CHUNKS;
	[[unroll]] for (uint i = 0; i < X_LOADS; i++) {
		if (TILE_M % ROW_STEP != 0 && row + i * ROW_STEP >= TILE_M) continue;
		tile[(row + i * ROW_STEP) * PITCH + chunk] = x_operand(i, row + i * ROW_STEP);
	}
	row = gl_LocalInvocationIndex / W_CHUNKS;
	chunk = gl_LocalInvocationIndex % W_CHUNKS;
	[[unroll]] for (uint i = 0; i < W_LOADS; i++) {
		if (W_ROWS % W_STEP != 0 && row + i * W_STEP >= W_ROWS) continue;
		tile[TILE_M * PITCH + (row + i * W_STEP) * W_PITCH + chunk] = w_next[i];
	}
}

// multiply adds the products of the inputs in shared memory to the sums of subgroup (subgroup_m, subgroup_n).
void multiply(uint subgroup_m, uint subgroup_n) {
	UNROLL_K for (uint k = 0; k < TILE_K / MATRIX_K; k++) {
		OPERAND_A x[MATRICES_M];
		OPERAND_B w;
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			coopMatLoad(x[i], tile, (subgroup_m * (TILE_M / SUBGROUPS_M) + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH,
				gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
			uint column = subgroup_n * (TILE_N / SUBGROUPS_N) + j * MATRIX_N;
			if (TRANSPOSED_W)
				coopMatLoad(w, tile, TILE_M * PITCH + k * MATRIX_K * W_PITCH + column / 8, W_PITCH, gl_CooperativeMatrixLayoutRowMajor);
			else
				coopMatLoad(w, tile, (TILE_M + column) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) acc[i][j] = coopMatMulAdd(x[i], w, acc[i][j]);
		}
	}
}

// compute_factors computes the factors of the norm of the tile's rows. A subgroup sums a row, and loads ROWS rows at a
// time.
void compute_factors(uint m0) {
#ifdef LOW_REGISTERS
	const uint ROWS = 1;
#else
	const uint ROWS = 4;
#endif
	for (uint first = gl_SubgroupID * ROWS; first < TILE_M; first += SUBGROUPS_M * SUBGROUPS_N * ROWS) {
		float square_sums[ROWS];
		uvec2 rows[ROWS];
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			square_sums[r] = 0;
			rows[r] = x_row(m0 + first + r);
		}
		KEEP_LOOP for (uint col = gl_SubgroupInvocationID * 4; col < IN; col += SUBGROUP_SIZE * 4) {
			vec4 v[ROWS];
			[[unroll]] for (uint r = 0; r < ROWS; r++) v[r] = uintBitsToFloat(load_f32(rows[r], 0, col));
			[[unroll]] for (uint r = 0; r < ROWS; r++)
				square_sums[r] = fma(v[r].x, v[r].x, fma(v[r].y, v[r].y, fma(v[r].z, v[r].z, fma(v[r].w, v[r].w, square_sums[r]))));
		}
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			square_sums[r] = subgroupAdd(square_sums[r]);
			if (subgroupElect()) factors[first + r] = norm_factor(square_sums[r]);
		}
	}
	barrier();
}

#include "include/linear_matrix_results.glsl"

// tile_origin returns the first row and column of tile n. Tiles are ordered in bands of 8 tiles along M, column by
// column within a band, so that concurrent workgroups share w in the cache.
uvec2 tile_origin(uint n) {
	const uint tiles_n = (OUT + TILE_N - 1) / TILE_N;
	uint tiles_m = (p.total_rows + TILE_M - 1) / TILE_M, band = n / (8 * tiles_n) * 8, band_tiles = min(tiles_m - band, 8);
	n -= band * tiles_n;
	return uvec2((band + n % band_tiles) * TILE_M, n / band_tiles * TILE_N);
}

void main() {
	uint n = p.first + workgroup_index();
	if (n >= p.tiles) return;
	part = n % SPLIT_K;
	n /= SPLIT_K;
	uint m0 = tile_origin(n).x, n0 = tile_origin(n).y;

	uint t = gl_LocalInvocationIndex;
	if (DENSE_INPUT) x_rows[0] = at(p.x, min(m0 + t / K_CHUNKS, p.total_rows - 1), IN * X_BYTES);
	else
		[[unroll]] for (uint i = 0; i < X_LOADS; i++) x_rows[i] = x_row(m0 + t / K_CHUNKS + i * ROW_STEP);
	[[unroll]] for (uint i = 0; i < X_LOADS * X_CHUNKS; i++) x_next[i] = uvec4(0);
	w_rows = at(p.w, (TRANSPOSED_W ? 0 : n0) + t / W_CHUNKS, W_COLUMNS * 2);
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
			acc[i][j] = ACCUMULATOR(0);
#ifdef LOW_REGISTERS
			// If all values of a sum come from products, Intel's compiler keeps a matrix in one place: it does not split it into
			// single registers at the start of the loop.
			acc[i][j] = coopMatMulAdd(OPERAND_A(0), OPERAND_B(0), acc[i][j]);
#endif
		}
	if (NORM) compute_factors(m0);

	uint subgroup_m = gl_SubgroupID % SUBGROUPS_M, subgroup_n = gl_SubgroupID / SUBGROUPS_M;
	uint begin = SPLIT_K > 1 ? part * PART_INPUTS : 0, end = SPLIT_K > 1 ? min(begin + PART_INPUTS, IN) : IN;
#ifdef LOW_REGISTERS
	[[dont_unroll]] for (; begin < end; begin += TILE_K) {
		prefetch(m0, n0, begin);
		store_tiles();
		barrier();
		multiply(subgroup_m, subgroup_n);
		barrier();
	}
#else
	if (begin < end) prefetch(m0, n0, begin);
	for (; begin + (FAST_COMPILE ? 0 : TILE_K) < end; begin += TILE_K) {
		store_tiles();
		barrier();
		if (!FAST_COMPILE || begin + TILE_K < end) prefetch(m0, n0, begin + TILE_K);
		multiply(subgroup_m, subgroup_n);
		barrier();
	}
#endif
	m0 += subgroup_m * (TILE_M / SUBGROUPS_M);
	n0 += subgroup_n * (TILE_N / SUBGROUPS_N);
#ifndef LOW_REGISTERS
	if (!FAST_COMPILE) {
		if (begin < end) store_tiles(); // a part may be empty
		barrier();
	}
	prefetch_bias(n0);
	if (!NO_EPILOGUE) prefetch_outputs(m0, n0, 0);
	if (!FAST_COMPILE) {
		if (begin < end) multiply(subgroup_m, subgroup_n);
		barrier();
	}
#endif

	uint base = gl_SubgroupID * STORE_M * MATRIX_M * OUT_PITCH;
#ifdef LOW_REGISTERS
	// Mesa's compilers do not unroll a loop that contains a loop, and would index acc in memory.
	store_rows(0, m0, n0, base);
	if (STORE_M < MATRICES_M) store_rows(STORE_M, m0, n0, base);
	if (2 * STORE_M < MATRICES_M) store_rows(2 * STORE_M, m0, n0, base);
	if (3 * STORE_M < MATRICES_M) store_rows(3 * STORE_M, m0, n0, base);
#else
	[[unroll]] for (uint i = 0; i < MATRICES_M; i += STORE_M) {
		[[unroll]] for (uint s = 0; s < STORE_M; s++)
			[[unroll]] for (uint j = 0; j < MATRICES_N; j++) {
				if (NO_EPILOGUE) {
					ACCUMULATOR16 h = ACCUMULATOR16(round_operands(acc[i + s][j]));
					coopMatStore(h, tile, base + s * MATRIX_M * OUT16_PITCH + j * MATRIX_N / 8, OUT16_PITCH, gl_CooperativeMatrixLayoutRowMajor);
				} else {
					coopMatStore(acc[i + s][j], tile, base + s * MATRIX_M * OUT_PITCH + j * MATRIX_N / 4, OUT_PITCH, gl_CooperativeMatrixLayoutRowMajor);
				}
			}
		subgroupMemoryBarrierShared();
		subgroupBarrier();
		if (NO_EPILOGUE) write_rows_16bit(m0 + i * MATRIX_M, n0, base);
		else write_rows(m0 + i * MATRIX_M, n0, base, i + STORE_M == MATRICES_M);
		subgroupMemoryBarrierShared();
		subgroupBarrier();
	}
#endif
}
