// Blocks of rows for the backward kernels of norms, and of router logits, whose workgroups compute the gradients of the rows of a block and the
// block's sums of the gradients of parameters. Rows have a multiple of 4 elements, and an invocation has the same ones of
// them, COLUMNS groups of 4, in all rows of the block that it computes: every ROWS_PER_WORKGROUP-th. Include address.glsl
// first, and declare a push block p with the addresses dy (unless WITHOUT_DY is defined) and base and the uints rows (of an
// item), rows_per_block, blocks (of an item) and all_blocks (of all items).
#ifndef COLT5_NORM_BACKWARD
#define COLT5_NORM_BACKWARD
#include "pack16.glsl"
#include "row_norm.glsl"

layout(constant_id = 2) const uint CHANNELS = 4; // elements in a row
layout(constant_id = 8) const bool ADD_DX = false; // add base to dx
const uint GROUPS = CHANNELS / 4, COLUMNS = (GROUPS + INVOCATIONS_PER_ROW - 1) / INVOCATIONS_PER_ROW;

shared vec4 row_sums[INVOCATIONS_PER_ROW * ROWS_PER_WORKGROUP];

// group_of returns the number of the invocation's group c of 4 elements, which may be past the end of the row.
uint group_of(uint c) { return c * INVOCATIONS_PER_ROW + gl_LocalInvocationID.x; }

#ifndef WITHOUT_DY
layout(constant_id = 9) const uint DY_DTYPE = DTYPE_F32; // of dy

// load_dy reads a group of a row of dy, counted over the items.
vec4 load_dy(uint row, uint group) {
	if (DY_DTYPE == DTYPE_F32) return F32x4(at(p.dy, row, 4 * CHANNELS)).v[group];
	uvec2 words = U32x2(at(p.dy, row, 2 * CHANNELS)).v[group];
	return vec4(unpack16(DY_DTYPE, words.x), unpack16(DY_DTYPE, words.y));
}
#endif

// store_dx writes the gradient of a group of a row of x.
void store_dx(uvec2 dx, uint row, uint group, vec4 gradient) {
	if (ADD_DX) gradient += F32x4(at(p.base, row, 4 * CHANNELS)).v[group];
	F32x4(at(dx, row, 4 * CHANNELS)).v[group] = gradient;
}

// store_block adds the sums of the invocations that have group c, in order, and writes the block's sum. All invocations
// call it.
void store_block(uvec2 y, uint block, uint c, vec4 sum) {
	uint own = gl_LocalInvocationID.y * INVOCATIONS_PER_ROW + gl_LocalInvocationID.x;
	barrier(); // all invocations have read the previous sums
	row_sums[own] = sum;
	barrier();
	if (gl_LocalInvocationID.y != 0 || group_of(c) >= GROUPS) return;
	for (uint row = 1; row < ROWS_PER_WORKGROUP; row++) sum += row_sums[row * INVOCATIONS_PER_ROW + gl_LocalInvocationID.x];
	F32x4(at(y, block, 4 * CHANNELS)).v[group_of(c)] = sum;
}

#endif
