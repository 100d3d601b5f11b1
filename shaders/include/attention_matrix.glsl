// attend on cooperative matrices: queries, keys, values, weights and results have 16 bits, everything else is float32.
//
// Each subgroup has RM of the workgroup's queries. They stay in registers as matrices, and so do the running maximum m, the sum and the
// result of each of their rows, spread over matrices of one kind, ROWS: what is done to a row is done element by element. Keys and
// values pass through shared memory in rows 16 bytes longer than they are, so that 8 of them meet all banks; while a tile is worked on,
// the next one is on its way to registers.
//
// A row's m is not its maximum: it rises when a score is more than RISE powers of 2 above it, so that few tiles have to look for maxima across
// invocations. Weights are 2^RISE at most, which 16 bits hold as well as 1, and the largest is 1 at least. What m is follows from the
// row's own scores alone. m is one of them, before SCALE: a difference of large scores is exact, that of a product and its rounded self is not.
//
// Which element of a matrix an invocation holds is the device's affair. The matrix `place` tells, for it is loaded with the numbers of
// its own elements: row * 16 + column. Where the left operand of a product has the same places, as on NVIDIA, weights become one in
// registers; else they go through shared memory.

const uint DP = (DIM_HEAD + 15) / 16 * 16;         // DIM_HEAD with zeros behind it
const uint KV = DP / 8, LINE = KV + 1;      // pieces of 16 bytes of a row: in memory, and in shared memory
const uint RM = TILE_QUERIES / SUBGROUPS, TM = RM / MATRIX_M; // rows of a subgroup, matrices below each other
const uint TN = TILE_KEYS / MATRIX_N, TD = DP / MATRIX_N;      // matrices side by side: of scores, of results
const uint PK = TILE_KEYS / MATRIX_K, QK = DP / MATRIX_K;      // products for a result, and for a score
const uint PS = TILE_KEYS / 8 + 1;                 // pieces of a line of a strip
const uint OWN = (RM + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;  // rows whose maximum an invocation looks after
const uint LOADS = (TILE_KEYS * KV + THREADS - 1) / THREADS; // pieces that it fetches of a tile's keys or values

const float RISE = 8;     // powers of 2
const float LOWEST = -1e30; // m of a row that has seen nothing
const float HIGHEST = 1e29; // scores beyond it count as this

#ifdef BF16
#define ROUNDED(v) rounded_bf16(v) // for what is narrowed next
#else
#define ROUNDED(v) (v)
#endif
#define ROWS coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define HALF_ROWS coopmat<HALF, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define LEFT coopmat<HALF, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define RIGHT coopmat<HALF, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>

shared uvec4 tile[(TILE_QUERIES > 2 * TILE_KEYS ? TILE_QUERIES : 2 * TILE_KEYS) * LINE]; // keys, then values; before them the queries, after them the results
shared uvec4 strips[TILE_QUERIES * PS];                          // of each subgroup: what its invocations tell each other, RM lines
shared uint key_row[2 * TILE_KEYS];                           // of this tile and of the next one
shared vec2 key_factor[ROW_FACTORS ? 2 * TILE_KEYS : 2];
shared uint holed[4];                                  // j0 of these tiles if slots of them do not exist; 4, as the other arrays are whole pieces of 16 bytes

uvec4 next_keys[LOADS], next_values[LOADS];
float row_max[OWN]; // m of the rows that this invocation looks after
ROWS place, m[TM], sums[TM], scores[TM][TN], result[TM][TD];
LEFT q[TM][QK], weights[TM][PK];
bool direct; // place holds for LEFT too

// sync lets the subgroup's invocations see what they wrote to its strip. CPU drivers run them in lockstep, but take a subgroup's barrier for the
// workgroup's, which not all subgroups reach here.
void sync() {
	subgroupMemoryBarrierShared();
	if (!LOCKSTEP) subgroupBarrier();
}

uint own_row(uint n) { return gl_SubgroupInvocationID + n * SUBGROUP_SIZE; }

// load_piece reads numbers 8 i .. 8 i + 7 of a row, zeros past its end.
uvec4 load_piece(uvec2 row, uint i) {
	if (DIM_HEAD % 8 == 0) return DIM_HEAD == DP || i < DIM_HEAD / 8 ? U32x4(row).v[i] : uvec4(0);
	uvec4 v = uvec4(0);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (8 * i + 2 * j < DIM_HEAD) v[j] = U32(row).v[4 * i + j];
	return v;
}

void store_piece(uvec2 row, uint i, uvec4 v) {
	if (DIM_HEAD % 8 == 0) {
		if (DIM_HEAD == DP || i < DIM_HEAD / 8) U32x4(row).v[i] = v;
		return;
	}
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (8 * i + 2 * j < DIM_HEAD) U32(row).v[4 * i + j] = v[j];
}

uvec4 times(uvec4 v, float f) {
	[[unroll]] for (uint j = 0; j < 4; j++) v[j] = pack(OPERAND_DTYPE, unpack(OPERAND_DTYPE, v[j]) * f);
	return v;
}

// finite is v with the largest numbers in place of infinity and NaN: the weight of a key that is not seen is 0, and 0 times these is no 0. Their
// exponents are all ones, so that one more carries into the place of the sign.
uvec4 finite(uvec4 v) {
	const uint last = OPERAND_DTYPE == DTYPE_BF16 ? 7 : 10; // bit of an exponent
	uvec4 carry = (v & 0x7fff7fffu) + (0x00010001u << last);
	if (((carry.x | carry.y | carry.z | carry.w) & 0x80008000u) == 0) return v;
	carry &= 0x80008000u;
	return (v | (carry >> 15) * 0x7fffu) & ~(carry >> (15 - last));
}

void load_queries(uint i0) {
	for (uint e = gl_LocalInvocationIndex; e < TILE_QUERIES * KV; e += THREADS) {
		Query one = query(i0 + e / KV);
		uvec4 v = uvec4(0);
		if (one.exists) v = load_piece(one.at, e % KV);
		if (ROW_FACTORS) v = times(v, one.factor);
		tile[e / KV * LINE + e % KV] = v;
	}
}

// note_keys looks up the keys of the tile at j0; slots from j1 on do not exist.
void note_keys(uint set, uint j0, uint j1) {
	for (uint t = gl_LocalInvocationIndex; t < TILE_KEYS; t += THREADS) {
		Key k = Key(false, NO_ROW, 0, 0);
		if (j0 < j1 && t < j1 - j0) k = key(j0 + t);
		key_row[set * TILE_KEYS + t] = k.exists ? k.row : NO_ROW;
		if (ROW_FACTORS) key_factor[set * TILE_KEYS + t] = k.exists ? vec2(k.key_factor, k.value_factor) : vec2(0);
		if (!k.exists) holed[set] = j0;
	}
}

// fetch has the keys and values of the tile on their way, put leaves them in shared memory. No branch may lie around a fetch: where its ways
// meet, compilers copy what is under way, and wait for it. So fetch is asked for tiles that do not exist, too: they have no rows.
void fetch(uint set) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / KV;
		next_keys[n] = next_values[n] = uvec4(0);
		if (TILE_KEYS * KV % THREADS != 0 && j >= TILE_KEYS) continue;
		uint row = key_row[set * TILE_KEYS + j];
		if (row != NO_ROW) next_keys[n] = load_piece(key_at(row), e % KV);
		if (row != NO_ROW) next_values[n] = load_piece(value_at(row), e % KV);
	}
}

// put takes values that not all queries of the workgroup see without infinity and NaN.
void put(uint set, bool everything) {
	[[unroll]] for (uint n = 0; n < LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / KV;
		if (TILE_KEYS * KV % THREADS != 0 && j >= TILE_KEYS) continue;
		uvec4 k = next_keys[n], v = next_values[n];
		if (ROW_FACTORS) {
			vec2 factors = key_factor[set * TILE_KEYS + j];
			k = times(k, factors.x);
			v = times(v, factors.y);
		}
		if (!everything) v = finite(v);
		tile[j * LINE + e % KV] = k;
		tile[(TILE_KEYS + j) * LINE + e % KV] = v;
	}
}

// find_places fills place and direct, through the strip.
void find_places(uint strip) {
	for (uint e = gl_SubgroupInvocationID; e < MATRIX_M * MATRIX_N; e += SUBGROUP_SIZE)
		strips[strip + e / MATRIX_N * PS + e % MATRIX_N / 4][e % 4] = floatBitsToUint(float(e / MATRIX_N * 16 + e % MATRIX_N));
	sync();
	coopMatLoad(place, strips, strip, PS, gl_CooperativeMatrixLayoutRowMajor);
	sync();
	direct = false;
	if (!WEIGHTS_IN_REGISTERS || MATRIX_K != MATRIX_N) return;
	for (uint e = gl_SubgroupInvocationID; e < MATRIX_M * MATRIX_K / 2; e += SUBGROUP_SIZE) {
		uint row = e / (MATRIX_K / 2), col = e % (MATRIX_K / 2);
		strips[strip + row * PS + col / 4][col % 4] = pack(OPERAND_DTYPE, vec2(row * 16 + 2 * col, row * 16 + 2 * col + 1));
	}
	sync();
	LEFT left;
	coopMatLoad(left, strips, strip, PS, gl_CooperativeMatrixLayoutRowMajor);
	bool same = left.length() == place.length();
	if (same)
		[[unroll]] for (int k = 0; k < place.length(); k++) same = same && float(left[k]) == place[k];
	direct = subgroupAll(same);
	sync();
}

// spread writes row_max to the strip, each row's into all columns.
void spread_maxima(uint strip) {
	[[unroll]] for (uint n = 0; n < OWN; n++) {
		if (own_row(n) >= RM) continue;
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) strips[strip + own_row(n) * PS + c] = uvec4(floatBitsToUint(row_max[n]));
	}
}

// begin_rows gives the rows their state before the first tile. Queries are in shared memory.
void begin_rows(uint strip, uint first) {
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint k = 0; k < QK; k++)
			coopMatLoad(q[i][k], tile, (first + i * MATRIX_M) * LINE + k * MATRIX_K / 8, LINE, gl_CooperativeMatrixLayoutRowMajor);
#ifdef ATTENTION_NULL
	[[unroll]] for (uint n = 0; n < OWN; n++) {
		float s = 0;
		for (uint i = 0; i < KV; i++) {
			uvec4 words = own_row(n) < RM ? tile[(first + own_row(n)) * LINE + i] : uvec4(0);
			[[unroll]] for (uint j = 0; j < 2; j++) {
				vec4 k = load_row(null_key(), 2 * i + j);
				vec2 a = unpack(OPERAND_DTYPE, words[2 * j]), b = unpack(OPERAND_DTYPE, words[2 * j + 1]);
				s = fma(b.y, k.w, fma(b.x, k.z, fma(a.y, k.y, fma(a.x, k.x, s))));
			}
		}
		row_max[n] = bounded(s, HIGHEST);
	}
	spread_maxima(strip);
	sync();
	[[unroll]] for (uint i = 0; i < TM; i++) {
		coopMatLoad(m[i], strips, strip + i * MATRIX_M * PS, PS, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (int k = 0; k < place.length(); k++) sums[i][k] = uint(place[k]) % 16 == 0 ? 1.0 : 0.0;
	}
	[[unroll]] for (uint j = 0; j < TD; j++) {
		[[unroll]] for (int k = 0; k < place.length(); k++) {
			uint col = j * MATRIX_N + uint(place[k]) % 16;
			float v = DIM_HEAD == DP || col < DIM_HEAD ? F32(null_value()).v[col] : 0.0;
			[[unroll]] for (uint i = 0; i < TM; i++) result[i][j][k] = v;
		}
	}
	sync();
#else
	[[unroll]] for (uint n = 0; n < OWN; n++) row_max[n] = LOWEST;
	[[unroll]] for (uint i = 0; i < TM; i++) {
		m[i] = ROWS(LOWEST);
		sums[i] = ROWS(0);
		[[unroll]] for (uint j = 0; j < TD; j++) result[i][j] = ROWS(0);
	}
#endif
}

void multiply_keys() {
	[[unroll]] for (uint j = 0; j < TN; j++) {
		[[unroll]] for (uint i = 0; i < TM; i++) scores[i][j] = ROWS(0);
		[[unroll]] for (uint k = 0; k < QK; k++) {
			RIGHT keys;
			coopMatLoad(keys, tile, j * MATRIX_N * LINE + k * MATRIX_K / 8, LINE, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < TM; i++) scores[i][j] = coopMatMulAdd(q[i][k], keys, scores[i][j]);
		}
	}
	if (OPERAND_DTYPE != DTYPE_BF16) return; // no product of binary16 numbers comes near
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) scores[i][j][k] = bounded(scores[i][j][k], HIGHEST);
}

// hide takes scores of what is not seen from queries i0, i0 + 1 .. and slots j0, j0 + 1 ..
void hide(uint i0, uint j0) {
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) {
				uint row = i * MATRIX_M + uint(place[k]) / 16, col = j * MATRIX_N + uint(place[k]) % 16;
				if (!visible(i0 + row, j0 + col)) scores[i][j][k] = HIDDEN;
			}
}

// hide_holes takes scores of slots that do not exist.
void hide_holes(uint set) {
	[[unroll]] for (uint j = 0; j < TN; j++)
		[[unroll]] for (int k = 0; k < place.length(); k++) {
			bool exists = key_row[set * TILE_KEYS + j * MATRIX_N + uint(place[k]) % 16] != NO_ROW;
			[[unroll]] for (uint i = 0; i < TM; i++)
				if (!exists) scores[i][j][k] = HIDDEN;
		}
}

// raise finds the rows whose maximum in the tile is more than RISE powers above m, as weigh does, and makes it their m.
void raise(uint strip) {
	[[unroll]] for (uint i = 0; i < TM; i++) {
		ROWS most = scores[i][0];
		[[unroll]] for (uint j = 1; j < TN; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) most[k] = max(most[k], scores[i][j][k]);
		coopMatStore(most, strips, strip + i * MATRIX_M * PS, PS, gl_CooperativeMatrixLayoutRowMajor);
	}
	sync();
	[[unroll]] for (uint n = 0; n < OWN; n++) {
		if (own_row(n) >= RM) continue;
		vec4 most = vec4(HIDDEN);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) most = max(most, uintBitsToFloat(strips[strip + own_row(n) * PS + c]));
		float top = max(max(most.x, most.y), max(most.z, most.w));
		if (top - row_max[n] > RISE / SCALE) row_max[n] = top;
	}
	spread_maxima(strip);
	sync();
	[[unroll]] for (uint i = 0; i < TM; i++) {
		ROWS shrink;
		coopMatLoad(shrink, strips, strip + i * MATRIX_M * PS, PS, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (int k = 0; k < place.length(); k++) {
			float before = m[i][k], now = shrink[k];
			float factor = before == now ? 1.0 : exp2((before - now) * SCALE); // some devices' 2 to the 0 is not quite 1
			m[i][k] = now;
			shrink[k] = factor;
			sums[i][k] *= factor;
		}
		[[unroll]] for (uint j = 0; j < TD; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) result[i][j][k] *= shrink[k];
	}
	sync();
}

// weigh turns the tile's scores into weights. Scores above m are sought as whole numbers, which positive floats are ordered like: the maximum
// of a number and a NaN may be either, and a NaN in one row must not hide what is found in others.
void weigh(uint strip) {
	int above = 0;
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) above = max(above, floatBitsToInt(scores[i][j][k] - m[i][k]));
	if (subgroupAny(above > floatBitsToInt(RISE / SCALE))) raise(strip);
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++)
			[[unroll]] for (int k = 0; k < place.length(); k++) {
				float w = exp2((scores[i][j][k] - m[i][k]) * SCALE);
				sums[i][k] += w;
				scores[i][j][k] = w;
			}
	if (direct) {
		[[unroll]] for (uint i = 0; i < TM; i++)
			[[unroll]] for (uint j = 0; j < PK; j++)
				[[unroll]] for (int k = 0; k < place.length(); k++) weights[i][j][k] = HALF(ROUNDED(scores[i][j][k]));
		return;
	}
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < TN; j++) {
			[[unroll]] for (int k = 0; k < place.length(); k++) scores[i][j][k] = ROUNDED(scores[i][j][k]);
			coopMatStore(HALF_ROWS(scores[i][j]), strips, strip + i * MATRIX_M * PS + j * MATRIX_N / 8, PS, gl_CooperativeMatrixLayoutRowMajor);
		}
	sync();
	[[unroll]] for (uint i = 0; i < TM; i++)
		[[unroll]] for (uint j = 0; j < PK; j++)
			coopMatLoad(weights[i][j], strips, strip + i * MATRIX_M * PS + j * MATRIX_K / 8, PS, gl_CooperativeMatrixLayoutRowMajor);
	sync();
}

void multiply_values() {
	[[unroll]] for (uint k = 0; k < PK; k++) {
		[[unroll]] for (uint j = 0; j < TD; j++) {
			RIGHT values;
			coopMatLoad(values, tile, (TILE_KEYS + k * MATRIX_K) * LINE + j * MATRIX_N / 8, LINE, gl_CooperativeMatrixLayoutRowMajor);
			[[unroll]] for (uint i = 0; i < TM; i++) result[i][j] = coopMatMulAdd(weights[i][k], values, result[i][j]);
		}
	}
}

// finish_rows divides by the sums. Results leave through the rows of shared memory that the queries came by.
void finish_rows(uint strip, uint first, uint i0) {
	[[unroll]] for (uint i = 0; i < TM; i++) coopMatStore(sums[i], strips, strip + i * MATRIX_M * PS, PS, gl_CooperativeMatrixLayoutRowMajor);
	sync();
	[[unroll]] for (uint n = 0; n < OWN; n++) {
		if (own_row(n) >= RM) continue;
		vec4 parts = vec4(0);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) parts += uintBitsToFloat(strips[strip + own_row(n) * PS + c]);
		float sum = (parts.x + parts.y) + (parts.z + parts.w);
		row_max[n] = sum < 0.5 ? 0.0 : 1 / sum; // of one weight it is 1 at least, of none 0
	}
	spread_maxima(strip);
	sync();
	[[unroll]] for (uint i = 0; i < TM; i++) {
		ROWS factor;
		coopMatLoad(factor, strips, strip + i * MATRIX_M * PS, PS, gl_CooperativeMatrixLayoutRowMajor);
		[[unroll]] for (uint j = 0; j < TD; j++) {
			[[unroll]] for (int k = 0; k < place.length(); k++) result[i][j][k] = ROUNDED(result[i][j][k] * factor[k]);
			coopMatStore(HALF_ROWS(result[i][j]), tile, (first + i * MATRIX_M) * LINE + j * MATRIX_N / 8, LINE, gl_CooperativeMatrixLayoutRowMajor);
		}
	}
	sync();
	for (uint e = gl_SubgroupInvocationID; e < RM * KV; e += SUBGROUP_SIZE) {
		uint row = first + e / KV;
		if (query(i0 + row).exists) store_piece(result_at(i0 + row), e % KV, tile[row * LINE + e % KV]);
	}
}

// seek finds the next tile of which anything is seen, from the one at j0 on.
uint seek(uint i0, uint j0, uint j1) {
	while (j0 < j1 && sight(i0, TILE_QUERIES, j0) == NOTHING) j0 += TILE_KEYS;
	return j0;
}

void attend(uint i0, uint j0, uint j1) {
	uint first = gl_SubgroupID * RM, strip = first * PS, set = 0;
	if (gl_LocalInvocationIndex < 2) holed[gl_LocalInvocationIndex] = NO_ROW;
	load_queries(i0);
	find_places(strip);
	j0 = seek(i0, j0, j1);
	barrier();
	note_keys(set, j0, j1);
	begin_rows(strip, first);
	barrier();
	fetch(set);
	while (j0 < j1) {
		uint following = seek(i0, j0 + TILE_KEYS, j1), sees = sight(i0 + first, RM, j0);
		note_keys(set ^ 1, following, j1);
		put(set, sight(i0, TILE_QUERIES, j0) == EVERYTHING);
		barrier();
		fetch(set ^ 1);
		if (sees != NOTHING) {
			multiply_keys();
			if (sees == SOME) hide(i0 + first, j0);
			if (holed[set] == j0) hide_holes(set);
			weigh(strip);
			multiply_values();
		}
		barrier();
		set ^= 1;
		j0 = following;
	}
	finish_rows(strip, first, i0);
}
