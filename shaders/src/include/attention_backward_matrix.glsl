// backward of attention_backward.glsl on cooperative matrices: queries, keys, values, gradients and the weights of pairs
// have 16-bit elements, everything else is float32.
//
// Each subgroup computes SUBGROUP_ROWS of the workgroup's own rows, whose sums stay in registers as ACCUMULATOR matrices.
// The other rows pass through shared memory in tiles; rows there are padded by 16 bytes, so that 8 rows use all banks. A
// tile is computed in groups of GROUP rows: products and along of the pairs with the own rows, then their weights, then the
// sums. The next tile is prefetched into registers. The own rows are operands in registers, or stay in shared memory where
// those are few.
//
// The kernel of the queries reads the keys once, as the forward pass does: weights are relative to a running maximum of
// their query, and sums are rescaled when it rises (attention_backward_softmax.glsl).
//
// All rows that a workgroup reads first are loaded at once. No load is under a branch that the compiler cannot make a
// predicate: it would wait for each one where the branches join. Rows of float32, which are null keys and values, are
// therefore loaded when they are stored to shared memory.
//
// Rows are multiplied by their factors before the products. A gradient of a row's factor is the product of the row and
// of its gradient without the factor.
//
// A state is the running maximum of a query at the end, before SCALE, the logarithm to base 2 of 1 / the sum of the weights
// relative to it, delta, and f. It is 0 for a query without keys.
//
// A row with an element that is infinite or NaN is computed with finite numbers, because 0 * infinity would be NaN; the
// weights of its pairs become NaN.
//
// As in attention_matrix.glsl, the matrix `position` finds the mapping of elements to invocations, and accumulators become
// operands in registers where matrix A has the same mapping.

// A chunk is 16 bytes: 8 operands or 4 floats. A pitch is the distance of rows in shared memory, in chunks.
const uint PADDED_DIM = (DIM_HEAD + 15) / 16 * 16; // DIM_HEAD, padded with zeros
const uint ROW_CHUNKS = PADDED_DIM / 8, PITCH = ROW_CHUNKS + 1;
// Rows of a subgroup, and the matrices that hold them.
const uint SUBGROUP_ROWS = OWN_ROWS / SUBGROUPS, MATRICES_M = SUBGROUP_ROWS / MATRIX_M;
// Other rows that are computed at a time: matrices of products, and steps of the sums.
const uint GROUP = MATRIX_N > MATRIX_K ? MATRIX_N : MATRIX_K, GROUP_MATRICES = GROUP / MATRIX_N, GROUP_STEPS = GROUP / MATRIX_K;
// Matrices that hold a row of sums, and matrix products that are added for a product of rows.
const uint SUM_MATRICES = PADDED_DIM / MATRIX_N, PRODUCT_STEPS = PADDED_DIM / MATRIX_K;
const uint GROUP_CHUNKS = GROUP / 8 > MATRIX_N / 4 ? GROUP / 8 : MATRIX_N / 4; // of a row of weights, or of floats
const uint DELTA_CHUNKS = (ROW_CHUNKS + 3) / 4; // parts of delta, one for each chunk of a row
const uint SCRATCH_PITCH = (GROUP_CHUNKS > DELTA_CHUNKS ? GROUP_CHUNKS : DELTA_CHUNKS) + 1;
// Rows for which an invocation computes the state.
const uint STATE_ROWS = (SUBGROUP_ROWS + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;
// Chunks that an invocation loads: of each kind of row of a tile, and of the own rows.
const uint LOADS = (OTHER_ROWS * ROW_CHUNKS + THREADS - 1) / THREADS;
const uint OWN_LOADS = (OWN_ROWS * ROW_CHUNKS + THREADS - 1) / THREADS;

const float MAX_RAW_PRODUCT = 1e29; // bound of the magnitude of products

#ifdef BF16
#define ROUND_OPERAND(v) round_bf16(v) // before a conversion to bfloat16_t: some devices truncate
#else
#define ROUND_OPERAND(v) (v)
#endif

// tile holds own rows of one kind, then other rows of both kinds, then results.
shared uvec4 tile[(OWN_ROWS > 2 * OTHER_ROWS ? OWN_ROWS : 2 * OTHER_ROWS) * PITCH];
shared uvec4 own_tile[OWN_IN_REGISTERS ? 1 : 2 * OWN_ROWS * PITCH]; // own rows of both kinds
// scratch is for exchanges within a subgroup; each subgroup has SUBGROUP_ROWS rows of it, from chunk `base` on.
shared uvec4 scratch[OWN_ROWS * SCRATCH_PITCH];
uvec4 next_first[LOADS], next_second[LOADS], own_chunks[2][OWN_LOADS];
ACCUMULATOR position, products[MATRICES_M][GROUP_MATRICES], along[MATRICES_M][GROUP_MATRICES], product_sums[MATRICES_M][SUM_MATRICES];
OPERAND_A own_first[OWN_IN_REGISTERS ? MATRICES_M : 1][OWN_IN_REGISTERS ? PRODUCT_STEPS : 1], product_weights[MATRICES_M][GROUP_STEPS];
OPERAND_A own_second[OWN_IN_REGISTERS ? MATRICES_M : 1][OWN_IN_REGISTERS ? PRODUCT_STEPS : 1];
#ifdef QUERIES
uvec4 result_chunks[OWN_LOADS]; // of y
ACCUMULATOR row_max[MATRICES_M], row_delta[MATRICES_M], row_sums[MATRICES_M];
#else
ACCUMULATOR value_sums[MATRICES_M][SUM_MATRICES];
#ifdef MERGED
ACCUMULATOR score_sums[MATRICES_M]; // of a list
#endif
OPERAND_A value_weights[MATRICES_M][GROUP_STEPS];
#endif
bool in_registers; // OPERAND_A has the same mapping of elements to invocations as ACCUMULATOR

// subgroup_sync makes writes to scratch visible within the subgroup. CPU drivers run a subgroup in lockstep, and
// implement a subgroup barrier as a workgroup barrier, which would deadlock here because not all subgroups reach it.
void subgroup_sync() {
	subgroupMemoryBarrierShared();
	if (!LOCKSTEP) subgroupBarrier();
}

uint element_row(int k) { return uint(position[k]) / 16; }
uint element_column(int k) { return uint(position[k]) % 16; }

#include "attention_backward_rows.glsl"

#include "attention_backward_loads.glsl"
#include "attention_positions.glsl"

// multiply_group computes products and along of the own rows and of the other rows from row `column` of the tile on.
void multiply_group(uint first_row, uint column) {
	[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++) {
		uint other = (column + j * MATRIX_N) * PITCH;
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) products[i][j] = along[i][j] = ACCUMULATOR(0);
		[[unroll]] for (uint k = 0; k < PRODUCT_STEPS; k++) {
			OPERAND_B rows;
			coopMatLoad(rows, tile, other + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
				OPERAND_A own = own_first[OWN_IN_REGISTERS ? i : 0][OWN_IN_REGISTERS ? k : 0];
				if (!OWN_IN_REGISTERS)
					coopMatLoad(own, own_tile, (first_row + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
				products[i][j] = coopMatMulAdd(own, rows, products[i][j]);
			}
		}
		[[unroll]] for (uint k = 0; k < PRODUCT_STEPS; k++) {
			OPERAND_B rows;
			coopMatLoad(rows, tile, OTHER_ROWS * PITCH + other + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
				OPERAND_A own = own_second[OWN_IN_REGISTERS ? i : 0][OWN_IN_REGISTERS ? k : 0];
				if (!OWN_IN_REGISTERS)
					coopMatLoad(own, own_tile, (OWN_ROWS + first_row + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
				along[i][j] = coopMatMulAdd(own, rows, along[i][j]);
			}
		}
	}
	if (OPERAND_DTYPE != DTYPE_BF16) return; // sums of products of F16 operands are smaller
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
		[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
			[[unroll]] for (int k = 0; k < position.length(); k++) {
				products[i][j][k] = clamp_score(products[i][j][k], MAX_RAW_PRODUCT);
				along[i][j][k] = clamp_score(along[i][j][k], MAX_RAW_PRODUCT);
			}
}

// spoil_infinite makes products and along of infinite rows NaN, or the weights that replaced them: compilers may replace NaN
// by a number on the way from a product to a weight.
void spoil_infinite(uint first_row, uint column, uint buf) {
	[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			uint other = other_infinite[buf * OTHER_ROWS + column + j * MATRIX_N + element_column(k)];
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
				if ((other | own_infinite[first_row + i * MATRIX_M + element_row(k)]) != 0) products[i][j][k] = along[i][j][k] = uintBitsToFloat(0x7fc00000u);
		}
}

// hide sets the elements of products and along of pairs whose query does not see the key, if partial, or where the other row does
// not exist, if missing, to two values. The subgroup's own rows start at own, the group's other rows at `first`.
void hide(uint own, uint first, uint column, uint buf, bool partial, bool missing, float product, float value) {
#ifdef MERGED
	uint local = gl_SubgroupID * SUBGROUP_ROWS;
#ifdef KEYS
	uint list = list_of_query(first);
#endif
#endif
	[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			uint other = column + j * MATRIX_N + element_column(k);
			bool exists = !missing || present(other_addresses[buf * OTHER_ROWS + other].xy);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
				uint row = own + i * MATRIX_M + element_row(k);
#if defined(MERGED) && defined(QUERIES)
				if (exists && (!partial || (own_lists[local + i * MATRIX_M + element_row(k)] & other_lists[buf * OTHER_ROWS + other]) != 0)) continue;
#elif defined(MERGED)
				if (exists && (!partial || own_slots[local + i * MATRIX_M + element_row(k)][list] != 0)) continue;
#elif defined(QUERIES)
				if (exists && (!partial || visible(row, first + other))) continue;
#else
				if (exists && (!partial || visible(first + other, row))) continue;
#endif
				products[i][j][k] = product;
				along[i][j][k] = value;
			}
		}
}

#ifdef QUERIES
#include "attention_backward_softmax.glsl"
#endif

// compute_weights replaces products by p and along by ds: with QUERIES both without the factor 1 / sum of the weights.
void compute_weights(uint column, uint buf) {
	[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
#ifdef KEYS
			vec4 state = query_states[buf * OTHER_ROWS + column + j * MATRIX_N + element_column(k)];
#endif
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
#ifdef QUERIES
				float weight = exp2((products[i][j][k] - row_max[i][k]) * SCALE);
				along[i][j][k] = weight * (along[i][j][k] - row_delta[i][k]);
#else
				float power = fma(products[i][j][k] - state.x, SCALE, state.y); // not above 0 if both kernels compute the same products
				float weight = exp2(power > 0 ? 0 : power);
				along[i][j][k] = weight * (along[i][j][k] - state.z);
#endif
				products[i][j][k] = weight;
			}
		}
}

// TO_OPERANDS converts accumulators to operands.
#define TO_OPERANDS(W, V) \
	if (in_registers) { \
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
			[[unroll]] for (uint j = 0; j < GROUP_STEPS; j++) \
				[[unroll]] for (int k = 0; k < position.length(); k++) W[i][j][k] = OPERAND(ROUND_OPERAND(V[i][j % GROUP_MATRICES][k])); \
	} else { \
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
			[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++) { \
				[[unroll]] for (int k = 0; k < position.length(); k++) V[i][j][k] = ROUND_OPERAND(V[i][j][k]); \
				coopMatStore(ACCUMULATOR16(V[i][j]), scratch, base + i * MATRIX_M * SCRATCH_PITCH + j * MATRIX_N / 8, SCRATCH_PITCH, \
					gl_CooperativeMatrixLayoutRowMajor); \
			} \
		subgroup_sync(); \
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++) \
			[[unroll]] for (uint j = 0; j < GROUP_STEPS; j++) \
				coopMatLoad(W[i][j], scratch, base + i * MATRIX_M * SCRATCH_PITCH + j * MATRIX_K / 8, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor); \
		subgroup_sync(); \
	}

// add_group adds the other rows from row `column` of the tile on, times their weights, to the sums.
void add_group(uint base, uint column) {
	TO_OPERANDS(product_weights, along)
#ifdef KEYS
	TO_OPERANDS(value_weights, products)
#endif
	[[unroll]] for (uint k = 0; k < GROUP_STEPS; k++) {
		uint first = (column + k * MATRIX_K) * PITCH;
		[[unroll]] for (uint j = 0; j < SUM_MATRICES; j++) {
			OPERAND_B rows;
			coopMatLoad(rows, tile, first + j * MATRIX_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) product_sums[i][j] = coopMatMulAdd(product_weights[i][k], rows, product_sums[i][j]);
#ifdef KEYS
			coopMatLoad(rows, tile, OTHER_ROWS * PITCH + first + j * MATRIX_N / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) value_sums[i][j] = coopMatMulAdd(value_weights[i][k], rows, value_sums[i][j]);
#endif
		}
	}
}

#if defined(MERGED) && defined(KEYS)
// add_list_scores adds p * e = ds + p * delta of a group.
void add_list_scores(uint column, uint buf) {
	[[unroll]] for (uint j = 0; j < GROUP_MATRICES; j++)
		[[unroll]] for (int k = 0; k < position.length(); k++) {
			float delta = query_states[buf * OTHER_ROWS + column + j * MATRIX_N + element_column(k)].z;
			[[unroll]] for (uint i = 0; i < MATRICES_M; i++) score_sums[i][k] += fma(products[i][j][k], delta, along[i][j][k]);
		}
}

// write_list_scores writes the gradients of the scores of the subgroup's values in a list, and starts new sums.
void write_list_scores(uint base, uint first_row, uint list) {
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
		coopMatStore(score_sums[i], scratch, base + i * MATRIX_M * SCRATCH_PITCH, SCRATCH_PITCH, gl_CooperativeMatrixLayoutRowMajor);
		score_sums[i] = ACCUMULATOR(0);
	}
	subgroup_sync();
	[[unroll]] for (uint n = 0; n < STATE_ROWS; n++) {
		uint row = gl_SubgroupInvocationID + n * SUBGROUP_SIZE;
		if (row >= SUBGROUP_ROWS) continue;
		uint slot = own_slots[first_row + row][list];
		if (slot == 0 || slot == NULL_SLOT) continue;
		vec4 columns = vec4(0);
		[[unroll]] for (uint c = 0; c < MATRIX_N / 4; c++) columns += uintBitsToFloat(scratch[base + row * SCRATCH_PITCH + c]);
		write_list_score(list, slot - 1, (columns.x + columns.y) + (columns.z + columns.w));
	}
	subgroup_sync();
}
#endif

#include "attention_backward_tiles.glsl"

// add_tiles adds the other rows to the sums, from the tile at `first` on, which is prefetched.
void add_tiles(uint own, uint first, uint end, uint base, uint first_row) {
	uint buf = 0;
	while (first < end) {
		uint next = next_visible_tile(own, first + OTHER_ROWS, end), mask = mask_of(own + first_row, SUBGROUP_ROWS, first);
		lookup_other(buf ^ 1, next, end);
		store_tile(buf, first);
		barrier();
		prefetch(buf ^ 1);
		if (mask != TILE_NONE && some_exist[buf] == first) {
			bool partial = mask == TILE_PARTIAL, missing = some_missing[buf] == first;
			bool hidden = partial || missing, spoiled = some_infinite[buf] == first || own_state[1] != 0;
			[[unroll]] for (uint column = 0; column < OTHER_ROWS; column += GROUP) {
				multiply_group(first_row, column);
#ifdef QUERIES
				if (hidden) hide(own + first_row, first, column, buf, partial, missing, MASKED_SCORE, 0);
				raise_maxima(base, first_row);
				compute_weights(column, buf);
				if (spoiled) {
					spoil_infinite(first_row, column, buf);
					if (hidden) hide(own + first_row, first, column, buf, partial, missing, 0, 0);
				}
				add_row_sums();
#else
				compute_weights(column, buf);
				if (spoiled) spoil_infinite(first_row, column, buf);
				if (hidden) hide(own + first_row, first, column, buf, partial, missing, 0, 0);
#ifdef MERGED
				if (SCORE_VALUES) add_list_scores(column, buf);
#endif
#endif
				add_group(base, column);
			}
		}
#if defined(MERGED) && defined(KEYS)
		if (SCORE_VALUES && (next >= end || list_of_query(next) != list_of_query(first))) write_list_scores(base, first_row, list_of_query(first));
#endif
		barrier();
		buf ^= 1;
		first = next;
	}
}

#include "attention_backward_results.glsl"

void backward(uint own, uint own_end, uint other, uint other_end) {
	uint first_row = gl_SubgroupID * SUBGROUP_ROWS, base = first_row * SCRATCH_PITCH;
	if (gl_LocalInvocationIndex < 2) {
		own_state[gl_LocalInvocationIndex] = 0;
		some_exist[gl_LocalInvocationIndex] = some_missing[gl_LocalInvocationIndex] = some_infinite[gl_LocalInvocationIndex] = NO_TILE;
	}
	find_positions(base);
	other = next_visible_tile(own, other, other_end);
	barrier();
	lookup_own(own, own_end);
	lookup_other(0, other, other_end);
	barrier();
	if (own_state[0] == 0) other_end = other;
	load_own();
	prefetch(0);
	store_own(0);
	if (OWN_IN_REGISTERS) {
		barrier();
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			[[unroll]] for (uint k = 0; k < PRODUCT_STEPS; k++)
				coopMatLoad(own_first[i][k], tile, (first_row + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
		barrier();
	}
	store_own(1);
	barrier();
	if (OWN_IN_REGISTERS)
		[[unroll]] for (uint i = 0; i < MATRICES_M; i++)
			[[unroll]] for (uint k = 0; k < PRODUCT_STEPS; k++)
				coopMatLoad(own_second[i][k], tile, (first_row + i * MATRIX_M) * PITCH + k * MATRIX_K / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
#ifdef QUERIES
	init_states();
#endif
	barrier();
	[[unroll]] for (uint i = 0; i < MATRICES_M; i++) {
#ifdef QUERIES
		row_max[i] = ACCUMULATOR(INITIAL_MAX);
		row_sums[i] = ACCUMULATOR(0);
		[[unroll]] for (int k = 0; k < position.length(); k++) row_delta[i][k] = query_states[first_row + i * MATRIX_M + element_row(k)].z;
#endif
#if defined(MERGED) && defined(KEYS)
		score_sums[i] = ACCUMULATOR(0);
#endif
		[[unroll]] for (uint j = 0; j < SUM_MATRICES; j++) {
			product_sums[i][j] = ACCUMULATOR(0);
#ifdef KEYS
			value_sums[i][j] = ACCUMULATOR(0);
#endif
		}
	}
	add_tiles(own, other, other_end, base, first_row);
#ifdef QUERIES
	finish_states(base, first_row, own + first_row, own_end);
#endif
	write_results(first_row, own, own_end);
}
