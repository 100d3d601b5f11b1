#version 460
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
layout(local_size_x = 32) in;
shared float16_t tile[64];
void main() {
	coopmat<float16_t, gl_ScopeSubgroup, 8, 8, gl_MatrixUseA> a;
	coopMatLoad(a, tile, 0, 8, gl_CooperativeMatrixLayoutRowMajor);
	coopMatStore(a, tile, 0, 8, gl_CooperativeMatrixLayoutRowMajor);
}
