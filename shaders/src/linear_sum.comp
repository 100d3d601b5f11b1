#version 460
// Last pass of a linear layer with SPLIT_K > 1: adds the partial sums of linear_matrix.comp in order, and applies the
// epilogue.
//
//	x [SPLIT_K, total_rows, OUT] f32    y [B, OutRows, OUT] f32, or 16-bit with Y16    other arguments: see linear.comp
//
// An invocation computes 4 columns of a row. A workgroup has 256 invocations.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
layout(constant_id = 27) const uint DTYPE = 1; // 16-bit type of y where Y16: DTYPE_F16 or DTYPE_BF16
#define OPERAND_DTYPE DTYPE
#include "include/address.glsl"
#include "include/linear.glsl"

layout(local_size_x = 256) in;

void main() {
	const uint row_vec4 = (OUT + 3) / 4;
	uint n = (p.first + workgroup_index()) * 256 + gl_LocalInvocationIndex, row = n / row_vec4, col = n % row_vec4 * 4;
	if (row >= p.total_rows || !is_written(row)) return;
	vec4 sum = vec4(0);
	for (uint part = 0; part < SPLIT_K; part++) sum += load_out(at(p.x, part * p.total_rows + row, OUT * 4), col);
	write_columns(epilogue_of(row, 1), col, sum);
}
