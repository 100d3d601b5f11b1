#version 460
// Peak throughput of cooperative matrix products whose operands stay in registers.
//
//	c_i = i + PAIRS * (a * b1 + a * b2), i = 0 .. CHAINS - 1    y = c_0 - c_1 + c_2 - ... + c_(CHAINS - 1)
//	x: a [MATRIX_M, MATRIX_K], b1 and b2 [MATRIX_K, MATRIX_N]: integers so small that every sum is exact
//	y [groups * SUBGROUPS, MATRIX_M, MATRIX_N]
//
// A workgroup has SUBGROUPS subgroups. Each computes CHAINS independent sums, and writes its y once at the end. The
// sums start at different values, so that no compiler can merge them. CHAINS is odd: in y all sums but one cancel,
// which keeps y small.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#ifdef BF16
#extension GL_EXT_bfloat16 : require
#endif
#ifdef F16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#ifdef INT8
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#endif
#include "include/address.glsl"

// Macros: OPERAND and SUM are the types of operands and sums; a word of x holds X_PACKED elements, a word of y
// Y_PACKED. F16, BF16 and INT8 enable the extensions of float16, bfloat16 and 8-bit integer types.

layout(constant_id = 0) const uint MATRIX_M = 16; // shape of a matrix product: M x K times K x N
layout(constant_id = 1) const uint MATRIX_N = 16;
layout(constant_id = 2) const uint MATRIX_K = 16;
layout(constant_id = 3) const uint SUBGROUP_SIZE = 32; // invocations of a subgroup
layout(constant_id = 4) const uint THREADS = 128; // invocations of a workgroup: SUBGROUPS * SUBGROUP_SIZE
layout(local_size_x_id = 4) in;

const uint SUBGROUPS = 4, CHAINS = 7; // as in pipelines/peak.go
const uint PAIRS = 1024 / MATRIX_K;         // float16 represents integers up to 2048

layout(push_constant, std430) uniform Push {
	uvec2 x, y;
	uint groups;
} p;

void main() {
	uint group = workgroup_index();
	if (group >= p.groups) return;
	const uint A_ROW_WORDS = MATRIX_K / X_PACKED, B_ROW_WORDS = MATRIX_N / X_PACKED, Y_ROW_WORDS = MATRIX_N / Y_PACKED;
	coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> a;
	coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> b1, b2;
	coopMatLoad(a, U32(p.x).v, 0, A_ROW_WORDS, gl_CooperativeMatrixLayoutRowMajor);
	coopMatLoad(b1, U32(p.x).v, MATRIX_M * A_ROW_WORDS, B_ROW_WORDS, gl_CooperativeMatrixLayoutRowMajor);
	coopMatLoad(b2, U32(p.x).v, MATRIX_M * A_ROW_WORDS + MATRIX_K * B_ROW_WORDS, B_ROW_WORDS, gl_CooperativeMatrixLayoutRowMajor);
	coopmat<SUM, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> c[CHAINS];
	[[unroll]] for (uint i = 0; i < CHAINS; i++) c[i] = coopmat<SUM, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(SUM(i));
#ifdef LOW_REGISTERS
	// If all values of a sum come from products, Intel's compiler keeps it in one place; see linear_matrix.comp.
	[[unroll]] for (uint i = 0; i < CHAINS; i++)
		c[i] = coopMatMulAdd(coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>(0),
			coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>(0), c[i]);
#endif
	for (uint n = 0; n < PAIRS; n++) {
		[[unroll]] for (uint i = 0; i < CHAINS; i++) c[i] = coopMatMulAdd(a, b1, c[i]);
		[[unroll]] for (uint i = 0; i < CHAINS; i++) c[i] = coopMatMulAdd(a, b2, c[i]);
	}
	[[unroll]] for (uint i = 1; i < CHAINS; i += 2) c[0] = c[0] - c[i] + c[i + 1];
	coopMatStore(c[0], U32(at(p.y, group * SUBGROUPS + gl_SubgroupID, 4 * MATRIX_M * Y_ROW_WORDS)).v, 0, Y_ROW_WORDS, gl_CooperativeMatrixLayoutRowMajor);
}
