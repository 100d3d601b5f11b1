#version 450
// Rows times a matrix, on cooperative matrices: operands of 16 bits, F16 or BF16, sums in float32:
//
//	x [B, InRows, IN], float32 or 16 bits    w [OUT, WK] 16 bits, WK being IN up to a multiple of 8, zeros behind IN
//	y [B, OutRows, OUT], float32 or 16 bits    slot = item * Rows + r
//	y[scatter[slot], o] = gelu(sum_i norm(x[gather[slot]])[i] * w[o, i] + bias[o]) * score[slot] + residual[scatter[slot], o]
//	unless [B, OutRows]: rows of y whose word is not 0 get no bias
//
// A workgroup computes a tile of TILE_M slots by TILE_N columns with SUBGROUPS_M x SUBGROUPS_N subgroups. TILE_K inputs at a time lie in shared memory, in rows
// 16 bytes longer than that, so that 8 of them meet all banks; the next TILE_K are on their way to registers meanwhile. With the norm each
// row's factor is found first, and multiplied in before x is rounded. The sums leave through shared memory, in whole pieces of rows.
//
// With SPLIT_K parts the inputs are cut into so many, each a workgroup's, whose sums go to y [SPLIT_K, slots, OUT] as they are; linear_sum.comp
// adds them and finishes the rows.
//
// All tiles add in the same order, MATRIX_K elements after MATRIX_K elements, and so give the same bits.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef BF16
#extension GL_EXT_bfloat16 : require
#define OPERAND_DTYPE DTYPE_BF16
#define HALF bfloat16_t
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define OPERAND_DTYPE DTYPE_F16
#define HALF float16_t
#endif
#include "include/address.glsl"
#include "include/linear.glsl"

layout(constant_id = 13) const bool DENSE_INPUT = false; // slot s reads row s of x
layout(constant_id = 14) const uint MATRIX_M = 16; // shape of a cooperative matrix product: MATRIX_M x MATRIX_K times MATRIX_K x MATRIX_N
layout(constant_id = 15) const uint MATRIX_N = 16;
layout(constant_id = 16) const uint MATRIX_K = 16;
layout(constant_id = 17) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 18) const uint TILE_M = 64; // slots of a workgroup
layout(constant_id = 19) const uint TILE_N = 64; // columns of a workgroup
layout(constant_id = 20) const uint TILE_K = 32; // inputs of a loop iteration
layout(constant_id = 21) const uint SUBGROUPS_M = 2; // subgroups of a workgroup along M
layout(constant_id = 22) const uint SUBGROUPS_N = 2; // subgroups of a workgroup along N
layout(constant_id = 23) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS_M * SUBGROUPS_N * SUBGROUP_SIZE
layout(constant_id = 24) const bool NO_EPILOGUE = false; // y is the 16-bit sum, without any further operation, and OUT is a multiple of 8
layout(constant_id = 28) const bool FULL_TILES = false; // slots is a multiple of TILE_M
layout(constant_id = 29) const bool FAST_COMPILE = false; // smaller code that compiles faster and runs slower: the last iteration stays in the loop, results are stored one matrix at a time
layout(local_size_x_id = 23) in;

const uint TM = TILE_M / SUBGROUPS_M / MATRIX_M, TN = TILE_N / SUBGROUPS_N / MATRIX_N;          // products of a subgroup
const uint WK = (IN + 7) / 8 * 8;                         // a row of w
const uint KV = TILE_K / 8, LINE = KV + 1;                    // pieces of 16 bytes of a row: that a step takes, and in shared memory
const uint STRIDE = THREADS / KV;                         // rows fetched side by side
const uint AL = (TILE_M + STRIDE - 1) / STRIDE, WL = (TILE_N + STRIDE - 1) / STRIDE; // rows of x and of w that an invocation fetches in a step
const uint PART = ((IN + SPLIT_K - 1) / SPLIT_K + 255) / 256 * 256; // inputs of a part, whatever TILE_K is
const uint AP = X16 ? 1 : 2;                              // uvec4 for 8 elements of x
const uint CV = TILE_N / SUBGROUPS_N / 4, STRIP = CV + 1;              // pieces of 4 columns of a subgroup's row of results
const uint HV = TILE_N / SUBGROUPS_N / 8, HALF_STRIP = HV + 1;         // of 8
const uint TILES = (TILE_M + TILE_N) * LINE, STRIPS = SUBGROUPS_M * SUBGROUPS_N * MATRIX_M * STRIP;
// Matrices below each other that leave together: all of them or half of them, where shared memory has room for that, else one.
const uint HALF_TM = TM % 2 == 0 ? TM / 2 : 1, SOME = HALF_TM * STRIPS <= TILES ? HALF_TM : 1, TS = FAST_COMPILE ? 1 : TM * STRIPS <= TILES ? TM : SOME;
const uint PIECES = (TS * MATRIX_M * CV + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;   // of these rows, that an invocation finishes,
const uint WANTED = RESIDUAL ? 8 : 4, GROUP = PIECES < WANTED ? PIECES : WANTED; // so many of them at a time

shared uvec4 tile[TILES > STRIPS ? TILES : STRIPS]; // x, then w; in the end the results
shared float factors[NORM ? TILE_M : 1];

// Piece is 4 columns of a row of results: where they go, and what they need besides their sums.
struct Piece {
	bool there;
	Exit exit;
	vec4 residual;
};

Piece coming[GROUP];
vec4 bias; // of this invocation's columns, which are the same in all rows if a row has SUBGROUP_SIZE pieces or a part of that

uint part;
uvec2 a_row[DENSE_INPUT ? 1 : AL], w_row;
uvec4 a_next[AL * AP], w_next[WL], gamma_next[2];
coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> acc[TM][TN];

// words_of reads 8 elements of 16 bits from col on, of the row of IN that comes `down` rows after the one at base; 0 past its end.
uvec4 words_of(uvec2 base, uint down, uint col) {
	if (IN % 8 == 0) return IN % TILE_K == 0 || col < IN ? U32x4(base).v[down * (IN / 8) + col / 8] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + 2 * i < IN) v[i] = U32(base).v[down * (IN / 2) + col / 2 + i];
	return v;
}

// floats_of reads 4 floats likewise.
uvec4 floats_of(uvec2 base, uint down, uint col) {
	if (IN % 4 == 0) return IN % TILE_K == 0 || col < IN ? U32x4(base).v[down * (IN / 4) + col / 4] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint i = 0; i < 4; i++)
		if (col + i < IN) v[i] = U32(base).v[down * IN + col + i];
	return v;
}

void fetch_row(uint i, uvec2 base, uint down, uint col) {
	if (X16) {
		a_next[i * AP] = words_of(base, down, col);
	} else {
		a_next[i * AP] = floats_of(base, down, col);
		a_next[i * AP + AP - 1] = floats_of(base, down, col + 4);
	}
}

void fetch(uint m0, uint n0, uint k0) {
	uint row = gl_LocalInvocationIndex / KV, col = k0 + gl_LocalInvocationIndex % KV * 8;
	[[unroll]] for (uint i = 0; i < AL; i++) {
		if (TILE_M % STRIDE != 0 && row + i * STRIDE >= TILE_M) continue;
		if (!DENSE_INPUT) {
			fetch_row(i, a_row[i], 0, col);
		} else if (FULL_TILES || m0 + row + i * STRIDE < p.slots) {
			fetch_row(i, a_row[0], i * STRIDE, col);
		}
	}
	[[unroll]] for (uint i = 0; i < WL; i++) {
		w_next[i] = uvec4(0);
		if (TILE_N % STRIDE != 0 && row + i * STRIDE >= TILE_N) continue;
		if (OUT % TILE_N != 0 && n0 + row + i * STRIDE >= OUT) continue;
		if (IN % TILE_K == 0 || col < IN) w_next[i] = U32x4(w_row).v[i * STRIDE * (WK / 8) + col / 8];
	}
	if (NORM) {
		gamma_next[0] = floats_of(p.gamma, 0, col);
		gamma_next[1] = floats_of(p.gamma, 0, col + 4);
	}
}

// operand rounds 8 elements of x.
uvec4 operand(uint i, uint row) {
	if (X16) return a_next[i * AP];
	vec4 a = uintBitsToFloat(a_next[i * AP]), b = uintBitsToFloat(a_next[i * AP + AP - 1]);
	if (NORM) {
		a *= factors[row] * uintBitsToFloat(gamma_next[0]);
		b *= factors[row] * uintBitsToFloat(gamma_next[1]);
	}
	return uvec4(pack(OPERAND_DTYPE, a.xy), pack(OPERAND_DTYPE, a.zw), pack(OPERAND_DTYPE, b.xy), pack(OPERAND_DTYPE, b.zw));
}

void put() {
	uint row = gl_LocalInvocationIndex / KV, kv = gl_LocalInvocationIndex % KV;
	[[unroll]] for (uint i = 0; i < AL; i++) {
		if (TILE_M % STRIDE != 0 && row + i * STRIDE >= TILE_M) continue;
		tile[(row + i * STRIDE) * LINE + kv] = operand(i, row + i * STRIDE);
	}
	[[unroll]] for (uint i = 0; i < WL; i++) {
		if (TILE_N % STRIDE != 0 && row + i * STRIDE >= TILE_N) continue;
		tile[(TILE_M + row + i * STRIDE) * LINE + kv] = w_next[i];
	}
}

void multiply(uint wm, uint wn) {
	[[unroll]] for (uint k = 0; k < TILE_K / MATRIX_K; k++) {
		coopmat<HALF, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a[TM];
		coopmat<HALF, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> w;
		[[unroll]] for (uint i = 0; i < TM; i++)
			coopMatLoad(a[i], tile, (wm * (TILE_M / SUBGROUPS_M) + i * MATRIX_M) * LINE + k * MATRIX_K / 8, LINE, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint j = 0; j < TN; j++) {
			coopMatLoad(w, tile, (TILE_M + wn * (TILE_N / SUBGROUPS_N) + j * MATRIX_N) * LINE + k * MATRIX_K / 8, LINE, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < TM; i++) acc[i][j] = coopMatMulAdd(a[i], w, acc[i][j]);
		}
	}
}

// find_factors sums the squares of the tile's rows: a subgroup a row, ROWS of them on their way at a time.
void find_factors(uint m0) {
	const uint ROWS = 4;
	for (uint first = gl_SubgroupID * ROWS; first < TILE_M; first += SUBGROUPS_M * SUBGROUPS_N * ROWS) {
		float square[ROWS];
		uvec2 from[ROWS];
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			square[r] = 0;
			from[r] = source(m0 + first + r);
		}
		for (uint col = gl_SubgroupInvocationID * 4; col < IN; col += SUBGROUP_SIZE * 4) {
			vec4 v[ROWS];
			[[unroll]] for (uint r = 0; r < ROWS; r++) v[r] = uintBitsToFloat(floats_of(from[r], 0, col));
			[[unroll]] for (uint r = 0; r < ROWS; r++)
				square[r] = fma(v[r].x, v[r].x, fma(v[r].y, v[r].y, fma(v[r].z, v[r].z, fma(v[r].w, v[r].w, square[r]))));
		}
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			square[r] = subgroupAdd(square[r]);
			if (subgroupElect()) factors[first + r] = norm_factor(square[r]);
		}
	}
	barrier();
}

// expect has what pieces first .. first + GROUP - 1 of the invocation need on its way, for rows from m0 and columns from n0 on.
void expect(uint m0, uint n0, uint first) {
	[[unroll]] for (uint n = 0; n < GROUP; n++) {
		uint e = gl_SubgroupInvocationID + (first + n) * SUBGROUP_SIZE, slot = m0 + e / CV, col = n0 + e % CV * 4;
		coming[n].there = (TS * MATRIX_M * CV % (GROUP * SUBGROUP_SIZE) == 0 || e < TS * MATRIX_M * CV) && (OUT % TILE_N == 0 || col < OUT) && is_filled(slot);
		if (!coming[n].there) continue;
		coming[n].exit = way_out(slot, 1);
		if (SPLIT_K > 1) coming[n].exit.row = part * p.slots + slot;
		if (RESIDUAL) coming[n].residual = load_out(at(p.residual, coming[n].exit.row, OUT * 4), col);
	}
}

void expect_bias(uint n0) {
	uint col = n0 + gl_SubgroupInvocationID % CV * 4;
	if (BIAS && SUBGROUP_SIZE % CV == 0 && (OUT % TILE_N == 0 || col < OUT)) bias = load_out(p.bias, col);
}

// write finishes the rows from m0 on, whose sums lie in the subgroup's strip. The first pieces are expected; while some are finished, the next ones
// are on their way, in the end those of the rows behind these.
void write(uint m0, uint n0, uint strip, bool last) {
	[[dont_unroll]] for (uint first = 0; first < PIECES; first += GROUP) {
		Piece pieces[GROUP];
		[[unroll]] for (uint n = 0; n < GROUP; n++) pieces[n] = coming[n];
		if (first + GROUP < PIECES) expect(m0, n0, first + GROUP);
		else if (!last) expect(m0 + TS * MATRIX_M, n0, 0);
		[[unroll]] for (uint n = 0; n < GROUP; n++) {
			if (!pieces[n].there) continue;
			uint e = gl_SubgroupInvocationID + (first + n) * SUBGROUP_SIZE, col = n0 + e % CV * 4;
			Addition a = Addition(vec4(0), pieces[n].residual);
			if (BIAS && pieces[n].exit.bias) a.bias = SUBGROUP_SIZE % CV == 0 ? bias : load_out(p.bias, col);
			store_out(exit_y(pieces[n].exit), col, finished(pieces[n].exit, a, uintBitsToFloat(tile[strip + e / CV * STRIP + e % CV])));
		}
	}
}

// write_plain is write where there is nothing to finish.
void write_plain(uint m0, uint n0, uint strip) {
	[[unroll]] for (uint n = 0; n < (TS * MATRIX_M * HV + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE; n++) {
		uint e = gl_SubgroupInvocationID + n * SUBGROUP_SIZE, slot = m0 + e / HV, col = n0 + e % HV * 8;
		if (TS * MATRIX_M * HV % SUBGROUP_SIZE != 0 && e >= TS * MATRIX_M * HV) continue;
		if ((FULL_TILES || slot < p.slots) && (OUT % TILE_N == 0 || col < OUT)) U32x4(exit_y(way_out(slot, 1))).v[col / 8] = tile[strip + e / HV * HALF_STRIP + e % HV];
	}
}

#ifdef BF16
// rounded rounds to nearest what is narrowed next: devices cut off.
coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> rounded(coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> m) {
	for (uint i = 0; i < m.length(); i++) m[i] = rounded_bf16(m[i]);
	return m;
}
#else
#define rounded(m) (m)
#endif

// place finds the tile of a workgroup: 8 tiles of rows go side by side through the columns, so that they share w in the cache.
uvec2 place(uint n) {
	const uint across = (OUT + TILE_N - 1) / TILE_N;
	uint down = (p.slots + TILE_M - 1) / TILE_M, band = n / (8 * across) * 8, high = min(down - band, 8);
	n -= band * across;
	return uvec2((band + n % high) * TILE_M, n / high * TILE_N);
}

void main() {
	uint n = p.first + workgroup();
	if (n >= p.tiles) return;
	part = n % SPLIT_K;
	n /= SPLIT_K;
	uint m0 = place(n).x, n0 = place(n).y;

	uint t = gl_LocalInvocationIndex;
	if (DENSE_INPUT) a_row[0] = at(p.x, min(m0 + t / KV, p.slots - 1), IN * X_BYTES);
	else
		[[unroll]] for (uint i = 0; i < AL; i++) a_row[i] = source(m0 + t / KV + i * STRIDE);
	[[unroll]] for (uint i = 0; i < AL * AP; i++) a_next[i] = uvec4(0);
	w_row = at(p.w, n0 + t / KV, WK * 2);
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++) acc[i][j] = coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(0);
	if (NORM) find_factors(m0);

	uint wm = gl_SubgroupID % SUBGROUPS_M, wn = gl_SubgroupID / SUBGROUPS_M;
	uint begin = SPLIT_K > 1 ? part * PART : 0, end = SPLIT_K > 1 ? min(begin + PART, IN) : IN;
	if (begin < end) fetch(m0, n0, begin);
	for (; begin + (FAST_COMPILE ? 0 : TILE_K) < end; begin += TILE_K) {
		put();
		barrier();
		if (!FAST_COMPILE || begin + TILE_K < end) fetch(m0, n0, begin + TILE_K);
		multiply(wm, wn);
		barrier();
	}
	m0 += wm * (TILE_M / SUBGROUPS_M);
	n0 += wn * (TILE_N / SUBGROUPS_N);
	if (!FAST_COMPILE) {
		if (begin < end) put(); // a part may be empty
		barrier();
	}
	expect_bias(n0);
	if (!NO_EPILOGUE) expect(m0, n0, 0);
	if (!FAST_COMPILE) {
		if (begin < end) multiply(wm, wn);
		barrier();
	}

	uint strip = gl_SubgroupID * TS * MATRIX_M * STRIP;
	[[unroll]] for (uint i = 0; i < TM; i += TS) {
		[[unroll]] for (uint s = 0; s < TS; s++)
			[[unroll]] for (uint j = 0; j < TN; j++) {
				if (NO_EPILOGUE) {
					coopmat<HALF, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> h = coopmat<HALF, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(rounded(acc[i + s][j]));
					coopMatStore(h, tile, strip + s * MATRIX_M * HALF_STRIP + j * MATRIX_N / 8, HALF_STRIP, gl_CooperativeMatrixLayoutRowMajor);
				} else {
					coopMatStore(acc[i + s][j], tile, strip + s * MATRIX_M * STRIP + j * MATRIX_N / 4, STRIP, gl_CooperativeMatrixLayoutRowMajor);
				}
			}
		subgroupMemoryBarrierShared();
		subgroupBarrier();
		if (NO_EPILOGUE) write_plain(m0 + i * MATRIX_M, n0, strip);
		else write(m0 + i * MATRIX_M, n0, strip, i + TS == TM);
		subgroupMemoryBarrierShared();
		subgroupBarrier();
	}
}
