// Attention of a tile of queries of one head to a row of key slots: one pass over the keys with an online softmax, in
// float32:
//
//	y[i] = sum_j w_ij v_j / sum_j w_ij    w_ij = e^(q_i . k_j / sqrt(DIM_HEAD))    over the keys j visible to query i
//	y[i] = 0 if there are none
//
// A workgroup computes TILE_QUERIES queries. For each tile of TILE_KEYS keys it writes the scores to shared memory,
// replaces them by weights there (with a running maximum and sum of each row), and multiplies the weights by the values;
// results stay in registers. Queries stay in shared memory. Keys and values pass through it in slices; the next slice
// is prefetched into registers. The order of summation depends only on DIM_HEAD, TILE_KEYS and the positions of the
// tiles. A key that a query does not see changes no bit of its row.
//
// With LOW_REGISTERS defined, the products hold fewer values in registers at a time; the bits are the same.
//
// With MATRIX defined, attend is that of attention_matrix.glsl: cooperative matrices, for 16-bit rows. With CPU
// defined, attend is that of attention_cpu.glsl: the same result without shared memory and barriers, for CPU drivers.
//
// Include address.glsl first, and before it enable GL_EXT_buffer_reference, GL_EXT_buffer_reference_uvec2 and
// GL_EXT_control_flow_attributes; with MATRIX include matrix_operands.glsl before everything else. This file uses the
// constants 0 to 8 and those from 20 on, and declares local_size; pipelines/attention.go sets them. Define
// ATTENTION_NULL before the include if each head has a null key and value. The including file defines:
//
//	Query query(uint i)                       query i: whether it exists, address and factor of its row
//	Key key(uint j)                           key slot j: whether it exists, a row number for key_address and
//	                                          value_address, factors of key and value
//	uvec2 key_address(uint row)               address of a key by row number; called for every 16 bytes, so keep it cheap
//	uvec2 value_address(uint row)             address of a value by row number
//	uint tile_mask(uint i0, uint n, uint j0)  which of slots j0 .. j0 + TILE_KEYS - 1 are visible to queries
//	                                          i0 .. i0 + n - 1: TILE_NONE (the tile is skipped), TILE_PARTIAL, or
//	                                          TILE_FULL (all that exist). The same in all invocations of the
//	                                          workgroup, or of the subgroup that computes these queries
//	bool visible(uint i, uint j)              whether query i sees slot j; called for TILE_PARTIAL only
//	uvec2 result_address(uint i)              address of the result of a query that exists
//	uvec2 null_key(), null_value()            with ATTENTION_NULL: addresses of a key and value that every query
//	                                          sees, without factors
//
// The including file chooses the numbering of i and j by what it passes to attend. A row has DIM_HEAD elements, float32
// or 16-bit, in ROW_BYTES bytes. Its address is a multiple of 16 if ROW_BYTES is, else a multiple of 4. The null key
// and value are always float32. Results of queries that do not exist are not used, but their address must be safe to
// read. Factors are used only with ROW_FACTORS.
//
//	attend(i0, j0, j1)                        computes queries i0 .. i0 + TILE_QUERIES - 1 over slots j0 .. j1 - 1, in tiles
//	                                          of TILE_KEYS slots from j0 on. All invocations call it, once, with the same
//	                                          arguments
#ifndef COLT5_ATTENTION
#define COLT5_ATTENTION

layout(constant_id = 0) const uint DIM_HEAD = 1; // elements of a head, 1 to 128
layout(constant_id = 3) const float SCALE = 1; // log2(e) / sqrt(DIM_HEAD): weights are computed with exp2
layout(constant_id = 4) const bool ROW_FACTORS = false; // queries, keys and values are multiplied by factors
layout(constant_id = 8) const uint HEADS = 1; // heads of a tensor
#if defined(MATRIX)
#include "pack16.glsl"
const uint ROW_BYTES = 2 * DIM_HEAD;
layout(constant_id = 1) const uint TILE_QUERIES = 64; // queries of a workgroup
layout(constant_id = 2) const uint TILE_KEYS = 32; // keys of a tile
#include "attention16.glsl"
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
	uvec2 address;
	float factor;
};
struct Key {
	bool exists;
	uint row; // not NO_ROW
	float key_factor, value_factor;
};
const uint NO_ROW = 0xffffffff;
const uint TILE_NONE = 0, TILE_PARTIAL = 1, TILE_FULL = 2;

Query query(uint i);
Key key(uint j);
uvec2 key_address(uint row);
uvec2 value_address(uint row);
uint tile_mask(uint i0, uint n, uint j0);
bool visible(uint i, uint j);
uvec2 result_address(uint i);
#ifdef ATTENTION_NULL
uvec2 null_key();
uvec2 null_value();
#endif

#include "attention_rows.glsl"

#if defined(MATRIX) && defined(LOW_REGISTERS)
#include "attention_lowreg.glsl"
#elif defined(MATRIX)
#include "attention_matrix.glsl"
#elif defined(CPU)
#include "attention_cpu.glsl"
#else
#include "attention_float.glsl"
#endif

#endif
