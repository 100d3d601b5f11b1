// Attention of a tile of TILE_QUERIES queries of one head to a row of key slots, in one pass, by one workgroup, in float32:
//
//	y[i] = sum_j e^(q_i . k_j / sqrt(DIM_HEAD)) v_j / sum_j e^(q_i . k_j / sqrt(DIM_HEAD))    over the keys j that query i sees; 0 if there are none
//
// Keys come in tiles of TILE_KEYS. The products of a tile are written to shared memory as scores, become weights there (with the running
// maximum m and sum l of each row), and are multiplied by the values; the results stay in registers. Queries lie in shared memory,
// keys and values pass through it in chunks, the next of which is on its way to registers meanwhile. The order of summation depends
// on DIM_HEAD, TILE_KEYS and the places of the tiles alone; a key that a query does not see changes no bit of its row.
//
// With CPU defined attend is that of attention_cpu.glsl, for CPU drivers: the same result without shared memory and barriers.
//
// With MATRIX defined attend is that of attention_matrix.glsl, on cooperative matrices, for numbers of 16 bits.
//
// Include address.glsl first, and before it GL_EXT_buffer_reference, GL_EXT_buffer_reference_uvec2 and
// GL_EXT_control_flow_attributes; with MATRIX, matrix.glsl before everything. Constants 0 to 7 and those from 20 on belong to this file,
// and so does local_size; pipelines/attention.go sets them.
// Define ATTENTION_NULL before the include if the head has a null key and value. The includer then defines:
//
//	Query query(uint i)              query i: whether it exists, address of its row, factor of the row
//	Key key(uint j)                  key slot j: whether it exists, a number for key_at and value_at, factors of its key and value
//	uvec2 key_at(uint row)           address of the key of that number; cheap, called for every 16 bytes
//	uvec2 value_at(uint row)         address of the value
//	uint sight(uint i0, uint n, uint j0)    what queries i0 .. i0 + n - 1 see of slots j0 .. j0 + TILE_KEYS - 1: NOTHING (the tile is left
//	                                 out), SOME, or EVERYTHING that exists; the same in all invocations of the workgroup, or of the
//	                                 subgroup that has these queries
//	bool visible(uint i, uint j)     whether query i sees slot j; asked where sight is SOME
//	uvec2 result_at(uint i)          address of the result of a query that exists
//	uvec2 null_key(), null_value()   with ATTENTION_NULL: addresses of one more key and value, which every query sees, without factor
//
// i and j are numbers of the includer's choice: those that it passes to attend, and up. A row has DIM_HEAD floats, or numbers of 16 bits; its
// address is a multiple of 16 if its length is one, else a multiple of 4. ROW_BYTES is the length; the null key and value are float32
// always. The results of what does not exist are not used; a query's address can be read all the same. Factors count only with the
// constant ROW_FACTORS.
//
//	attend(i0, j0, j1)               computes queries i0 .. i0 + TILE_QUERIES - 1 over slots j0 .. j1 - 1, in tiles that start at j0 and every TILE_KEYS
//	                                 slots from there. All invocations call it, once, with the same numbers.
#ifndef COLT5_ATTENTION
#define COLT5_ATTENTION

layout(constant_id = 0) const uint DIM_HEAD = 1; // elements of a head, 1 to 128
layout(constant_id = 3) const float SCALE = 1; // log2(e) / sqrt(DIM_HEAD): weights are computed with exp2
layout(constant_id = 8) const uint HEADS = 1; // heads of a tensor
layout(constant_id = 4) const bool ROW_FACTORS = false; // queries, keys and values are multiplied by factors
#if defined(MATRIX)
#include "half.glsl"
const uint ROW_BYTES = 2 * DIM_HEAD;
layout(constant_id = 1) const uint TILE_QUERIES = 64; // queries of a workgroup
layout(constant_id = 2) const uint TILE_KEYS = 32; // keys of a tile
layout(constant_id = 20) const uint MATRIX_M = 16; // shape of a cooperative matrix product: MATRIX_M x MATRIX_K times MATRIX_K x MATRIX_N
layout(constant_id = 21) const uint MATRIX_N = 16;
layout(constant_id = 22) const uint MATRIX_K = 16;
layout(constant_id = 23) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 24) const uint SUBGROUPS = 4; // subgroups of a workgroup
layout(constant_id = 25) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS * SUBGROUP_SIZE
layout(constant_id = 26) const bool WEIGHTS_IN_REGISTERS = true; // reuse accumulators as operands without shared memory where the device maps elements alike
layout(constant_id = 27) const bool LOCKSTEP = false; // the invocations of a subgroup run in lockstep and need no barrier
layout(local_size_x_id = 25) in;
#elif defined(CPU)
const uint ROW_BYTES = 4 * DIM_HEAD;
const uint TILE_QUERIES = 8, TILE_KEYS = 8, THREADS = 8;
layout(local_size_x = 8) in;
#else
const uint ROW_BYTES = 4 * DIM_HEAD;
layout(constant_id = 1) const uint TILE_QUERIES = 64; // queries of a workgroup
layout(constant_id = 2) const uint TILE_KEYS = 32; // keys of a tile
const uint THREADS = 128;
layout(local_size_x = 128) in;
#endif

struct Query {
	bool exists;
	uvec2 at;
	float factor;
};
struct Key {
	bool exists;
	uint row; // anything but NO_ROW
	float key_factor, value_factor;
};
const uint NO_ROW = 0xffffffff;
const uint NOTHING = 0, SOME = 1, EVERYTHING = 2;

Query query(uint i);
Key key(uint j);
uvec2 key_at(uint row);
uvec2 value_at(uint row);
uint sight(uint i0, uint n, uint j0);
bool visible(uint i, uint j);
uvec2 result_at(uint i);
#ifdef ATTENTION_NULL
uvec2 null_key();
uvec2 null_value();
#endif

const float HIDDEN = -2e38;  // score of a key that is not seen; differences of it and other scores stay finite
const float LARGEST = 1e37;  // scores beyond it count as this

const uint D4 = (DIM_HEAD + 3) / 4; // vec4 of a row

// load_row reads vec4 i of a row of DIM_HEAD floats, zeros past its end.
vec4 load_row(uvec2 row, uint i) {
	if (DIM_HEAD % 4 == 0) return i < D4 ? F32x4(row).v[i] : vec4(0);
	F32 f = F32(row);
	vec4 v = vec4(0);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (4 * i + j < DIM_HEAD) v[j] = f.v[4 * i + j];
	return v;
}

void store_row(uvec2 row, uint i, vec4 v) {
	if (DIM_HEAD % 4 == 0) {
		F32x4(row).v[i] = v;
		return;
	}
	F32 f = F32(row);
	[[unroll]] for (uint j = 0; j < 4; j++)
		if (4 * i + j < DIM_HEAD) f.v[4 * i + j] = v[j];
}

// bounded is a score that is no larger than most, or NaN: clamp and max may lose NaN. It has no branch, for it is asked of every score.
float bounded(float score, float most) {
	float end = uintBitsToFloat(floatBitsToUint(most) | floatBitsToUint(score) & 0x80000000u);
	return mix(score, end, abs(score) > most);
}

#if defined(MATRIX)
#include "attention_matrix.glsl"
#elif defined(CPU)
#include "attention_cpu.glsl"
#else
const uint NK = (D4 + 7) / 8;                                 // chunks of the keys of a tile: DK vec4 of every key
const uint DK = (D4 + NK - 1) / NK;
const uint NV = NK == 3 ? 4 : NK;                             // chunks of its values: whole rows of VK values
const uint VK = TILE_KEYS / NV;
const uint KEY_LOADS = (TILE_KEYS * DK + THREADS - 1) / THREADS;     // vec4 that an invocation fetches for a chunk
const uint VALUE_LOADS = (VK * D4 + THREADS - 1) / THREADS;
const uint LOADS = KEY_LOADS > VALUE_LOADS ? KEY_LOADS : VALUE_LOADS;
const uint QS = NK * DK | 1, KS = DK | 1, PS = TILE_KEYS / 4 | 1;    // strides in vec4: odd, so that 8 rows side by side meet all 32 banks
const uint NX = TILE_KEYS / 4, NY = THREADS / NX, TM = TILE_QUERIES / NY;      // of scores, an invocation has TM rows NY apart, 4 columns NX apart
const uint OX0 = D4 > 8 ? 16 : D4 > 4 ? 8 : 4;
const uint OX = OX0, OY = THREADS / OX;                       // of results, OR rows OY apart, OC vec4 OX apart
const uint OR = TILE_QUERIES / OY, OC = (D4 + OX - 1) / OX;
const uint PARTS = THREADS / TILE_QUERIES;                              // invocations that share a row of weights
const uint PV = TILE_KEYS / 4 / PARTS;                               // vec4 of it that each has
const uint SUMS = 4 / PARTS, SV = PV / SUMS;                  // a row's weights are summed in 4 parts, whatever TILE_QUERIES is, of SV vec4

shared vec4 q_tile[TILE_QUERIES * QS];
shared vec4 chunk[TILE_KEYS * KS > VK * D4 ? TILE_KEYS * KS : VK * D4];
shared vec4 weights[TILE_QUERIES * PS];
shared uint key_row[2 * TILE_KEYS]; // of this tile and of the next one
shared vec2 key_factor[ROW_FACTORS ? 2 * TILE_KEYS : 2];
shared float part[THREADS];  // what the invocations that share a row tell each other
shared float shrink[TILE_QUERIES];     // what the maximum's rise makes of a row's old results

vec4 next[LOADS];
float scores[TM * 4];
vec4 result[OR * OC];
float row_max, row_sums[SUMS]; // of row t % TILE_QUERIES: over all its keys; over those of this invocation

// place is an invocation's column and row in a grid that is `across` wide. 32 invocations cover 8 x 4: few different vec4 to read.
uvec2 place(uint across) {
	uint t = gl_LocalInvocationIndex, wide = max(across / 8, 1);
	if (across < 8) return uvec2(t % across, t / across);
	return uvec2(t % 8 + t / 32 % wide * 8, t / 8 % 4 + t / (32 * wide) * 4);
}

void load_queries(uint i0) {
	for (uint e = gl_LocalInvocationIndex; e < TILE_QUERIES * (NK * DK); e += THREADS) {
		uint row = e / (NK * DK), col = e % (NK * DK);
		Query q = query(i0 + row);
		vec4 v = vec4(0);
		if (q.exists) v = load_row(q.at, col);
		if (ROW_FACTORS) v *= q.factor;
		q_tile[row * QS + col] = v;
	}
}

// note_keys looks up the keys of the tile at j0; slots from j1 on do not exist.
void note_keys(uint set, uint j0, uint j1) {
	uint t = gl_LocalInvocationIndex;
	if (t >= TILE_KEYS) return;
	Key k = Key(false, NO_ROW, 0, 0);
	if (j0 < j1 && t < j1 - j0) k = key(j0 + t);
	key_row[set * TILE_KEYS + t] = k.exists ? k.row : NO_ROW;
	if (ROW_FACTORS) key_factor[set * TILE_KEYS + t] = k.exists ? vec2(k.key_factor, k.value_factor) : vec2(0); // 0 times NaN is no 0
}

void fetch_keys(uint set, uint c) {
	[[unroll]] for (uint n = 0; n < KEY_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / DK;
		next[n] = vec4(0);
		if (TILE_KEYS * DK % THREADS != 0 && j >= TILE_KEYS) continue;
		uint row = key_row[set * TILE_KEYS + j];
		if (row != NO_ROW) next[n] = load_row(key_at(row), c * DK + e % DK);
	}
}

void put_keys(uint set) {
	[[unroll]] for (uint n = 0; n < KEY_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / DK;
		if (TILE_KEYS * DK % THREADS != 0 && j >= TILE_KEYS) continue;
		vec4 v = next[n];
		if (ROW_FACTORS) v *= key_factor[set * TILE_KEYS + j].x;
		chunk[j * KS + e % DK] = v;
	}
}

void fetch_values(uint set, uint c) {
	[[unroll]] for (uint n = 0; n < VALUE_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / D4;
		next[n] = vec4(0);
		if (VK * D4 % THREADS != 0 && j >= VK) continue;
		uint row = key_row[set * TILE_KEYS + c * VK + j];
		if (row != NO_ROW) next[n] = load_row(value_at(row), e % D4);
	}
}

// finite is v with the largest numbers in place of infinity and NaN: the weight of a key that is not seen is 0, and 0 times these is no 0.
vec4 finite(vec4 v) {
	uvec4 bits = floatBitsToUint(v);
	vec4 large = uintBitsToFloat(bits & 0x80000000u | 0x7f7fffffu);
	return mix(v, large, equal(bits & 0x7f800000u, uvec4(0x7f800000u)));
}

// put_values takes what not all queries of the tile see without infinity and NaN.
void put_values(uint set, uint c, bool everything) {
	[[unroll]] for (uint n = 0; n < VALUE_LOADS; n++) {
		uint e = gl_LocalInvocationIndex + n * THREADS, j = e / D4;
		if (VK * D4 % THREADS != 0 && j >= VK) continue;
		vec4 v = next[n];
		if (ROW_FACTORS) v *= key_factor[set * TILE_KEYS + c * VK + j].y;
		chunk[e] = everything ? v : finite(v);
	}
}

// multiply_keys adds the products of chunk c of the dims.
void multiply_keys(uvec2 at, uint c) {
	[[unroll]] for (uint i = 0; i < DK; i++) {
		vec4 k[4];
		[[unroll]] for (uint j = 0; j < 4; j++) k[j] = chunk[(at.x + j * NX) * KS + i];
		[[unroll]] for (uint r = 0; r < TM; r++) {
			vec4 q = q_tile[(at.y + r * NY) * QS + c * DK + i];
			[[unroll]] for (uint j = 0; j < 4; j++) {
				float s = scores[r * 4 + j];
				s = fma(q.x, k[j].x, s);
				s = fma(q.y, k[j].y, s);
				s = fma(q.z, k[j].z, s);
				scores[r * 4 + j] = fma(q.w, k[j].w, s);
			}
		}
	}
}

void write_scores(uvec2 at, uint set, uint i0, uint j0, bool everything) {
	[[unroll]] for (uint j = 0; j < 4; j++) {
		uint col = at.x + j * NX;
		bool exists = key_row[set * TILE_KEYS + col] != NO_ROW;
		[[unroll]] for (uint r = 0; r < TM; r++) {
			uint row = at.y + r * NY;
			bool seen = exists && (everything || visible(i0 + row, j0 + col));
			weights[row * PS + col / 4][col % 4] = seen ? bounded(scores[r * 4 + j] * SCALE, LARGEST) : HIDDEN;
		}
	}
}

// weigh turns the tile's scores into weights. It has one barrier.
void weigh() {
	uint row = gl_LocalInvocationIndex % TILE_QUERIES, first = row * PS + gl_LocalInvocationIndex / TILE_QUERIES * PV;
	vec4 s[PV], most = vec4(HIDDEN);
	[[unroll]] for (uint i = 0; i < PV; i++) {
		s[i] = weights[first + i];
		most = max(most, s[i]);
	}
	part[gl_LocalInvocationIndex] = max(max(most.x, most.y), max(most.z, most.w));
	barrier();
	float before = row_max;
	[[unroll]] for (uint n = 0; n < PARTS; n++) row_max = max(row_max, part[n * TILE_QUERIES + row]);
	float factor = before == row_max ? 1.0 : exp2(before - row_max); // some devices' 2 to the 0 is not quite 1
	[[unroll]] for (uint n = 0; n < SUMS; n++) {
		vec4 sum = vec4(0);
		[[unroll]] for (uint i = n * SV; i < (n + 1) * SV; i++) {
			vec4 w = mix(exp2(s[i] - row_max), vec4(0), equal(s[i], vec4(HIDDEN)));
			weights[first + i] = w;
			sum += w;
		}
		row_sums[n] = fma(row_sums[n], factor, (sum.x + sum.y) + (sum.z + sum.w));
	}
	if (gl_LocalInvocationIndex < TILE_QUERIES) shrink[row] = factor;
}

void shrink_results(uvec2 at) {
	[[unroll]] for (uint r = 0; r < OR; r++) {
		float factor = shrink[at.y + r * OY];
		[[unroll]] for (uint h = 0; h < OC; h++) result[r * OC + h] *= factor;
	}
}

// multiply_values adds what chunk c of the values contributes.
void multiply_values(uvec2 at, uint c) {
	[[unroll]] for (uint i = 0; i < VK / 4; i++) {
		vec4 v[4 * OC];
		[[unroll]] for (uint j = 0; j < 4; j++)
			[[unroll]] for (uint h = 0; h < OC; h++) v[j * OC + h] = chunk[(4 * i + j) * D4 + min(at.x + h * OX, D4 - 1)];
		[[unroll]] for (uint r = 0; r < OR; r++) {
			vec4 w = weights[(at.y + r * OY) * PS + c * (VK / 4) + i];
			[[unroll]] for (uint j = 0; j < 4; j++)
				[[unroll]] for (uint h = 0; h < OC; h++) result[r * OC + h] = fma(vec4(w[j]), v[j * OC + h], result[r * OC + h]);
		}
	}
}

// begin_rows gives the rows their state before the first tile. Queries are in shared memory.
void begin_rows(uvec2 at) {
	row_max = HIDDEN;
	[[unroll]] for (uint n = 0; n < SUMS; n++) row_sums[n] = 0;
	[[unroll]] for (uint i = 0; i < OR * OC; i++) result[i] = vec4(0);
#ifdef ATTENTION_NULL
	float s = 0;
	for (uint i = 0; i < D4; i++) {
		vec4 q = q_tile[gl_LocalInvocationIndex % TILE_QUERIES * QS + i], k = load_row(null_key(), i);
		s = fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, s))));
	}
	row_max = bounded(s * SCALE, LARGEST);
	row_sums[0] = gl_LocalInvocationIndex < TILE_QUERIES ? 1 : 0;
	[[unroll]] for (uint h = 0; h < OC; h++) {
		vec4 v = load_row(null_value(), min(at.x + h * OX, D4 - 1));
		[[unroll]] for (uint r = 0; r < OR; r++) result[r * OC + h] = v;
	}
#endif
}

void finish_rows(uvec2 at, uint i0) {
	[[unroll]] for (uint n = 0; n < SUMS; n++)
		weights[gl_LocalInvocationIndex % TILE_QUERIES * PS][gl_LocalInvocationIndex / TILE_QUERIES * SUMS + n] = row_sums[n];
	barrier();
	[[unroll]] for (uint r = 0; r < OR; r++) {
		uint row = at.y + r * OY;
		vec4 sums = weights[row * PS];
		float sum = (sums.x + sums.y) + (sums.z + sums.w);
		float factor = sum > 0 ? 1 / sum : 0;
		if (!query(i0 + row).exists) continue;
		uvec2 to = result_at(i0 + row);
		[[unroll]] for (uint h = 0; h < OC; h++)
			if (at.x + h * OX < D4) store_row(to, at.x + h * OX, result[r * OC + h] * factor);
	}
}

// seek finds the next tile of which anything is seen, from the one at j0 on.
uint seek(uint i0, uint j0, uint j1) {
	while (j0 < j1 && sight(i0, TILE_QUERIES, j0) == NOTHING) j0 += TILE_KEYS;
	return j0;
}

void attend(uint i0, uint j0, uint j1) {
	uvec2 at = place(NX), out_at = place(OX);
	uint set = 0;
	load_queries(i0);
	j0 = seek(i0, j0, j1);
	note_keys(set, j0, j1);
	barrier();
	begin_rows(out_at);
	if (j0 < j1) fetch_keys(set, 0);
	while (j0 < j1) {
		uint following = seek(i0, j0 + TILE_KEYS, j1);
		bool everything = sight(i0, TILE_QUERIES, j0) == EVERYTHING;
		[[unroll]] for (uint i = 0; i < TM * 4; i++) scores[i] = 0;
		for (uint c = 0; c < NK; c++) {
			put_keys(set);
			barrier();
			if (c + 1 < NK) fetch_keys(set, c + 1);
			else fetch_values(set, 0);
			multiply_keys(at, c);
			if (c + 1 == NK) write_scores(at, set, i0, j0, everything);
			barrier();
		}
		put_values(set, 0, everything);
		note_keys(set ^ 1, following, j1);
		weigh();
		barrier();
		shrink_results(out_at);
		for (uint c = 0; c < NV; c++) {
			if (c + 1 < NV) fetch_values(set, c + 1);
			else if (following < j1) fetch_keys(set ^ 1, 0);
			multiply_values(out_at, c);
			barrier();
			if (c + 1 < NV) {
				put_values(set, c + 1, everything);
				barrier();
			}
		}
		set ^= 1;
		j0 = following;
	}
	finish_rows(out_at, i0);
}

#endif

#endif
