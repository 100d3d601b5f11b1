// --target-env=vulkan1.3 -O0
#version 460
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
// Two products of cooperative matrices: one twice, of a specialised shape, with a value that a loop carries and a matrix
// type that no product has; and a saturating one of integers, in a function that is called once.
layout(local_size_x = 32) in;
layout(constant_id = 0) const uint M = 16;
layout(constant_id = 1) const uint HALF_K = 8;
const uint K = 2 * HALF_K;
shared uint[64] words;

void saturate() {
	coopmat<int8_t, gl_ScopeSubgroup, 16, 32, gl_MatrixUseA> a = coopmat<int8_t, gl_ScopeSubgroup, 16, 32, gl_MatrixUseA>(1);
	coopmat<int8_t, gl_ScopeSubgroup, 32, 16, gl_MatrixUseB> b = coopmat<int8_t, gl_ScopeSubgroup, 32, 16, gl_MatrixUseB>(1);
	coopmat<int, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> c = coopmat<int, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>(0);
	c = coopMatMulAdd(a, b, c, gl_MatrixOperandsSaturatingAccumulation);
	coopMatStore(c, words, 0, 4, gl_CooperativeMatrixLayoutRowMajor);
}

void main() {
	coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a = coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>(1);
	coopmat<float16_t, gl_ScopeSubgroup, K, 16, gl_MatrixUseB> b[2];
	b[0] = coopmat<float16_t, gl_ScopeSubgroup, K, 16, gl_MatrixUseB>(2);
	b[1] = b[0] + b[0];
	coopmat<float, gl_ScopeSubgroup, M, 16, gl_MatrixUseAccumulator> c = coopmat<float, gl_ScopeSubgroup, M, 16, gl_MatrixUseAccumulator>(0);
	for (uint i = 0; i < 4; i++) c = coopMatMulAdd(a, b[i & 1], c);
	c = coopMatMulAdd(-a, b[0], c);
	coopmat<float16_t, gl_ScopeSubgroup, M, 16, gl_MatrixUseAccumulator> narrow = coopmat<float16_t, gl_ScopeSubgroup, M, 16, gl_MatrixUseAccumulator>(c);
	coopMatStore(narrow, words, 0, 4, gl_CooperativeMatrixLayoutRowMajor);
	saturate();
}
