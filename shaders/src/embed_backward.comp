#version 460
// Backward of the token embedding: rows of the gradient of a table are sums over the tokens with the row's id.
//
//	ids [items, n] i32 or u8    dy [items, n, C]    dtable [items, V, C]
//	dtable[b, v] (+)= sum of dy[b, i] over the tokens i of item b with ids[b, i] = v; ids outside of [0, V) have no part
//
// The kernel is two dispatches with scratch between them:
//
//	SORT  a workgroup sorts the tokens of an item that have one of 256 ids, in order of position. It reads all ids of
//	      the item twice, so an item costs ceil(V / 256) * n reads and V * n comparisons of integers.
//	SUM   a workgroup computes 32 columns (vec4 with VEC4) of rows of dtable with 8 rows of 32 invocations. Each adds
//	      every 8th token of a row's id, in runs of 32 whose sums are added separately to keep the rounding error of
//	      long sums small; the 8 sums are added in a tree.
//
// The order of summation of a row depends on the number of its tokens in the item only. ADD adds to dtable. Scratch has
// the buckets [items, V, 2] u32, first and end in the order, and the order [items, n] u32 of tokens.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "include/address.glsl"

layout(constant_id = 1) const uint VOCABULARY = 1; // rows of dtable
layout(constant_id = 2) const bool IDS_ARE_BYTES = false; // ids are u8, else i32
layout(constant_id = 3) const bool ADD = false; // add to dtable

layout(push_constant) uniform Push {
	uvec2 ids, dy, dtable, buckets, order;
	uint items, n;
} p;

#ifdef SORT

const uint THREADS = 256; // ids of a workgroup, one an invocation
const uint BLOCKS = (VOCABULARY + THREADS - 1) / THREADS; // workgroups of an item
layout(local_size_x = 256) in;

shared uint counts[2 * THREADS]; // tokens of each id; double-buffered in the scan
shared uint lower; // tokens with ids below those of the workgroup
shared uvec4 tile[THREADS / 4];

const uint NONE = 0xffffffffu; // no id, as every number from VOCABULARY on

uint id_at(uint item, uint i) {
	if (i >= p.n) return NONE;
	return IDS_ARE_BYTES ? byte_at(p.ids, item * p.n + i) : U32(p.ids).v[item * p.n + i];
}

// inclusive_scan returns the sum of counts 0 .. t, t being this invocation.
uint inclusive_scan() {
	uint t = gl_LocalInvocationID.x, buf = 0;
	barrier();
	for (uint distance = 1; distance < THREADS; distance *= 2) {
		uint sum = counts[buf + t] + (t >= distance ? counts[buf + t - distance] : 0);
		buf = THREADS - buf;
		counts[buf + t] = sum;
		barrier();
	}
	return counts[buf + t];
}

void main() {
	uint item = workgroup_index() / BLOCKS, first_id = workgroup_index() % BLOCKS * THREADS, t = gl_LocalInvocationID.x;
	if (item >= p.items) return;
	counts[t] = 0;
	if (t == 0) lower = 0;
	barrier();
	uint own_lower = 0;
	for (uint i = t; i < p.n; i += THREADS) {
		uint id = id_at(item, i);
		if (id < first_id) own_lower++;
		else if (id - first_id < THREADS) atomicAdd(counts[id - first_id], 1);
	}
	if (own_lower > 0) atomicAdd(lower, own_lower);
	barrier();
	uint own_count = counts[t];
	uint end = inclusive_scan() + lower, next = end - own_count;
	uint own_id = first_id + t;
	bool inside = own_id < VOCABULARY;
	if (inside) U32x2(at(p.buckets, item, 8 * VOCABULARY)).v[own_id] = uvec2(next, end);

	U32 order = U32(at(p.order, item, 4 * p.n));
	for (uint base = 0; base < p.n; base += THREADS) {
		barrier();
		tile[t / 4][t % 4] = id_at(item, base + t);
		barrier();
		[[dont_unroll]] for (uint j = 0; inside && j < THREADS / 4; j++) {
			bvec4 same = equal(tile[j], uvec4(own_id));
			if (!any(same)) continue;
			[[unroll]] for (uint k = 0; k < 4; k++)
				if (same[k]) order.v[next++] = base + 4 * j + k;
		}
	}
}

#else

#ifdef VEC4 // rows have a multiple of 4 floats, so they start at multiples of 16 bytes
#define T vec4
#define ROW F32x4
#define T_BYTES 16
#else
#define T float
#define ROW F32
#define T_BYTES 4
#endif

layout(constant_id = 0) const uint COLUMNS = 1; // elements of type T in a row
layout(constant_id = 4) const uint ROWS_PER_WORKGROUP = 1; // rows of dtable, one after the other
const uint STRIDE = COLUMNS * T_BYTES;
const uint WIDTH = 32, LANES = 8, RUN = 32;
layout(local_size_x = 32, local_size_y = 8) in;

shared T partial_sums[LANES * WIDTH];

// run_sums returns the sum of an invocation's tokens of a bucket.
T run_sums(uint item, uvec2 bucket, uint column) {
	U32 order = U32(at(p.order, item, 4 * p.n));
	T sum = T(0), run_sum = T(0);
	uint count = 0;
	for (uint i = bucket.x + gl_LocalInvocationID.y; i < bucket.y; i += LANES) {
		run_sum += ROW(at(p.dy, item * p.n + order.v[i], STRIDE)).v[column];
		if (++count == RUN) {
			sum += run_sum;
			run_sum = T(0);
			count = 0;
		}
	}
	return sum + run_sum;
}

// sum_row computes a row of dtable, or the invocation's column of it.
void sum_row(uint item, uint id, uint column) {
	uvec2 bucket = U32x2(at(p.buckets, item, 8 * VOCABULARY)).v[id];
	bool inside = column < COLUMNS, writes = inside && gl_LocalInvocationID.y == 0;
	ROW dtable = ROW(at(p.dtable, item * VOCABULARY + id, STRIDE));
	if (bucket.x == bucket.y) { // most rows of a large table
		if (!ADD && writes) dtable.v[column] = T(0);
		return;
	}
	uint own = gl_LocalInvocationID.y * WIDTH + gl_LocalInvocationID.x;
	barrier(); // the sums of the row before have been read
	partial_sums[own] = inside ? run_sums(item, bucket, column) : T(0);
	for (uint lanes = LANES / 2; lanes > 0; lanes /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < lanes) partial_sums[own] += partial_sums[own + lanes * WIDTH];
	}
	if (!writes) return;
	T sum = partial_sums[own];
	dtable.v[column] = ADD ? dtable.v[column] + sum : sum;
}

void main() {
	const uint column_groups = (COLUMNS + WIDTH - 1) / WIDTH, row_groups = (VOCABULARY + ROWS_PER_WORKGROUP - 1) / ROWS_PER_WORKGROUP;
	uint column = workgroup_index() % column_groups * WIDTH + gl_LocalInvocationID.x;
	uint rows = workgroup_index() / column_groups, item = rows / row_groups, first = rows % row_groups * ROWS_PER_WORKGROUP;
	if (item >= p.items) return;
	for (uint id = first; id < min(first + ROWS_PER_WORKGROUP, VOCABULARY); id++) sum_row(item, id, column);
}

#endif
