// Backward of attention with a softmax over the keys that a query sees, in float32. For a query q with factor f, and its
// keys k_j and values v_j with factors g_j and h_j:
//
//	s_j = q . k_j / sqrt(DIM_HEAD) * f * g_j    p = softmax(s)    y = sum_j p_j * h_j * v_j
//	e_j = dy . v_j    delta = sum_j p_j * h_j * e_j    ds_j = p_j * (h_j * e_j - delta)
//	dq  = sum_j ds_j * f * g_j / sqrt(DIM_HEAD) * k_j
//	dk_j = sum of ds_j * f * g_j / sqrt(DIM_HEAD) * q    dv_j = sum of p_j * h_j * dy    over the queries that see key j
//
// As delta = dy . y, it needs no values. It is two kernels. That of QUERIES computes dq of OWN_ROWS queries of a head. It reads
// the keys twice: the first pass computes the softmax of each query, which it also writes to states, with delta; the second
// one adds up dq. The kernel of KEYS computes dk and dv of OWN_ROWS keys of a head from the queries that see them and from
// their states. No sum needs atomics. Of the forward pass, its arguments and y are read.
//
// Both kernels have the same loop. A workgroup has OWN_ROWS own rows and reads the other ones in tiles of OTHER_ROWS.
// Slices of the rows pass through shared memory, where invocations multiply all pairs of an own row and another one. The
// weights of pairs go to shared memory too; with them the other rows are added to sums in registers. Both kernels compute
// the same bits of a logit. The order of summation depends only on DIM_HEAD and on the numbers of the rows.
//
// With MATRIX defined, backward is that of attention_backward_matrix.glsl: cooperative matrices, for 16-bit rows. It reads the
// keys once, and states differ there. With LOW_REGISTERS too, it is that of attention_backward_lowreg.glsl.
//
// Include address.glsl first, and before it enable GL_EXT_buffer_reference, GL_EXT_buffer_reference_uvec2 and
// GL_EXT_control_flow_attributes; with MATRIX include matrix_operands.glsl before everything else. Define QUERIES or KEYS.
// This file uses the constants 0 to 8 and those from 20 on, and declares local_size. The including file defines:
//
//	Query query(uint i)             query i: whether it exists, addresses of its rows of q and dy, its factor. KEYS takes
//	                                existence and factor from states
//	Key key(uint j)                 key j: whether it exists, addresses of its rows of k and v, their factors
//	bool visible(uint i, uint j)    whether query i sees key j, if both exist
//	uint state_row(uint i)          number of query i in states
//	uvec2 states()                  address of states: a vec4 for each query and head
//	uvec2 y_address(uint i)         with QUERIES: the row of y of query i
//	uvec2 dq_address(uint i)        with QUERIES: the result of query i
//	uvec2 dk_address(uint j)        with KEYS: the results of key j
//	uvec2 dv_address(uint j)
//	uint tile_mask(uint i0, uint n, uint j0, uint m)
//	                                with MATRIX: which of keys j0 .. j0 + m - 1 are visible to queries i0 .. i0 + n - 1:
//	                                TILE_NONE, TILE_PARTIAL, or TILE_FULL (all that exist). The same in all invocations of
//	                                a subgroup
//
// A row has DIM_HEAD elements, float32 or 16-bit, in ROW_BYTES bytes. Define ATTENTION_NULL before the include if some keys,
// values and their results are float32 with MATRIX too: their addresses are odd, one more than that of the row.
//
// Rows that do not exist are not read and have gradient 0. Factors are used only with ROW_FACTORS. For the gradients of
// factors, define ATTENTION_SCORES before the include: a constant that is true if they are wanted, of queries with QUERIES
// and of keys with KEYS. Then the including file also defines:
//
//	float score_gradient(Pair p, float weight, float dlogit)    what a pair with p_j and ds_j adds to the gradient
//	                                                            not with MATRIX
//	bool factor_has_gradient(uint kind)                         with MATRIX: whether the factor of the first or the second
//	                                                            row, kind 0 or 1, has a gradient
//	void write_score(uint n, float gradient)                    writes the gradient of row n
//
// With MATRIX, define MERGED before the include if the queries belong to up to 4 lists, which see different keys. Then the
// including file also defines:
//
//	uvec4 slots_of(uint j)                      the slot of key j in each list, plus 1, or 0: a list sees the keys in it. NULL_SLOT:
//	                                            all see the key, which has no score
//	uint list_of_query(uint i)                  the list of query i, 0 to 3
//	bool is_query(uint i)                       with KEYS: whether number i is a query. A tile of queries is of one list
//	void write_list_score(uint list, uint slot, float gradient)
//	                                            with KEYS: writes the gradient of the score of a value, with SCORE_VALUES
//
//	backward(own, own_end, other, other_end)    computes rows own .. min(own + OWN_ROWS, own_end) - 1 of one kind from
//	                                            rows other .. other_end - 1 of the other kind. All invocations call it,
//	                                            with the same arguments, and again only after a barrier
#ifndef COLT5_ATTENTION_BACKWARD
#define COLT5_ATTENTION_BACKWARD

layout(constant_id = 0) const uint DIM_HEAD = 1; // elements of a head, 1 to 128
layout(constant_id = 3) const float SCALE = 1; // log2(e) / sqrt(DIM_HEAD): weights are computed with exp2
layout(constant_id = 4) const bool ROW_FACTORS = false; // queries, keys and values are multiplied by factors
layout(constant_id = 8) const uint HEADS = 1; // heads of a tensor

#ifdef MATRIX
#include "pack16.glsl"
const uint ROW_BYTES = 2 * DIM_HEAD;
layout(constant_id = 1) const uint OWN_ROWS = 64; // rows that a workgroup computes
layout(constant_id = 2) const uint OTHER_ROWS = 32; // rows of a tile
#include "attention16.glsl"
#ifndef LOW_REGISTERS
layout(constant_id = 28) const bool OWN_IN_REGISTERS = true; // the own rows are operands in registers
#endif
layout(local_size_x_id = 25) in;
#else
const uint ROW_BYTES = 4 * DIM_HEAD;
layout(constant_id = 1) const uint OWN_ROWS = 16; // rows that a workgroup computes
layout(constant_id = 2) const uint OTHER_ROWS = 32; // rows of a tile
layout(constant_id = 25) const uint THREADS = 128; // invocations of a workgroup
layout(local_size_x_id = 25) in;
#endif

#include "attention_rows.glsl"

const float LN2 = 0.69314718;

struct Query {
	bool exists;
	uvec2 q, dy;
	float factor;
};
struct Key {
	bool exists;
	uvec2 k, v;
	float key_factor, value_factor;
};

Query query(uint i);
Key key(uint j);
bool visible(uint i, uint j);
uint state_row(uint i);
uvec2 states();
#ifdef QUERIES
uvec2 y_address(uint i);
uvec2 dq_address(uint i);
#else
uvec2 dk_address(uint j);
uvec2 dv_address(uint j);
#endif
#ifdef ATTENTION_SCORES
void write_score(uint n, float gradient);
#endif

#ifdef MATRIX
const uint TILE_NONE = 0, TILE_PARTIAL = 1, TILE_FULL = 2, NO_TILE = 0xffffffff;

uint tile_mask(uint i0, uint n, uint j0, uint m);
#ifdef ATTENTION_SCORES
bool factor_has_gradient(uint kind);
#endif

#ifdef MERGED
const uint NULL_SLOT = 0xffffffff;
uvec4 slots_of(uint j);
uint list_of_query(uint i);
#ifdef KEYS
bool is_query(uint i);
void write_list_score(uint list, uint slot, float gradient);
#endif
#endif

#ifdef ATTENTION_NULL
#define FLOAT_ROWS
#endif
#ifdef LOW_REGISTERS
#include "attention_backward_lowreg.glsl"
#else
#include "attention_backward_matrix.glsl"
#endif
#else
#include "attention_backward_float.glsl"
#endif

#endif
