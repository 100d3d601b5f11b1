// Sums over the rows of items, by blocks of rows, in an order that depends on the number of rows only. Include
// address.glsl first. Before the include, declare a push block p with the uints rows (of an item), rows_per_block,
// blocks (of an item) and all_blocks (of all items), and define SUM, float, vec2, or vec4 for columns that are groups of 4. The including file also defines:
//
//	SUM term(uint item, uint row, uint column)    what row `row` of an item adds to the sum of a column
//
// A workgroup computes 32 columns of a block with 8 rows of 32 invocations. Each invocation adds every 8th row, in runs
// of 32 whose sums are added separately to keep the rounding error of long sums small; the 8 sums are added in a tree.
#ifndef COLT5_COLUMN_SUM
#define COLT5_COLUMN_SUM

layout(constant_id = 2) const uint CHANNELS = 1; // elements in a row
layout(constant_id = 7) const bool ADD_SUM = false; // add the sums to what is there
const uint SUM_COLUMNS = 32, SUM_ROWS = 8, SUM_RUN = 32;
layout(local_size_x = 32, local_size_y = 8) in;

shared SUM partial_sums[SUM_ROWS * SUM_COLUMNS];

SUM term(uint item, uint row, uint column);

// run_sums returns the sum of an invocation's rows of first .. end - 1.
SUM run_sums(uint item, uint first, uint end, uint column) {
	SUM sum = SUM(0), run_sum = SUM(0);
	uint count = 0, i = first + gl_LocalInvocationID.y;
	// Four rows at a time, in the same order: their loads overlap.
	for (; i + 3 * SUM_ROWS < end; i += 4 * SUM_ROWS) {
		SUM a = term(item, i, column), b = term(item, i + SUM_ROWS, column), c = term(item, i + 2 * SUM_ROWS, column),
			d = term(item, i + 3 * SUM_ROWS, column);
		run_sum = ((run_sum + a) + b) + c;
		run_sum += d;
		count += 4;
		if (count == SUM_RUN) {
			sum += run_sum;
			run_sum = SUM(0);
			count = 0;
		}
	}
	for (; i < end; i += SUM_ROWS) {
		run_sum += term(item, i, column);
		if (++count == SUM_RUN) {
			sum += run_sum;
			run_sum = SUM(0);
			count = 0;
		}
	}
	return sum + run_sum;
}

// block_sum computes the sum of a column over a block of rows. Blocks are counted over all items. All invocations call
// it; it returns true in the one that has the sum.
bool block_sum(out uint block, out uint column, out SUM sum) {
	const uint groups_per_block = (CHANNELS + SUM_COLUMNS - 1) / SUM_COLUMNS;
	block = workgroup_index() / groups_per_block;
	column = workgroup_index() % groups_per_block * SUM_COLUMNS + gl_LocalInvocationID.x;
	bool inside = block < p.all_blocks && column < CHANNELS;
	uint own = gl_LocalInvocationID.y * SUM_COLUMNS + gl_LocalInvocationID.x;
	uint item = block / p.blocks, first = block % p.blocks * p.rows_per_block;
	partial_sums[own] = inside ? run_sums(item, first, first + min(p.rows_per_block, p.rows - first), column) : SUM(0);
	for (uint rows = SUM_ROWS / 2; rows > 0; rows /= 2) {
		barrier();
		if (gl_LocalInvocationID.y < rows) partial_sums[own] += partial_sums[own + rows * SUM_COLUMNS];
	}
	sum = partial_sums[own];
	return inside && gl_LocalInvocationID.y == 0;
}

// store_sum writes or adds a sum to row `block` of y.
void store_sum(uvec2 y, uint block, uint column, float sum) {
	F32 row = F32(at(y, block, 4 * CHANNELS));
	row.v[column] = ADD_SUM ? row.v[column] + sum : sum;
}

#endif
