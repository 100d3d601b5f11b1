// Extensions and types for kernels on cooperative matrices with 16-bit operands: F16, or BF16 where that macro is
// defined. Include it before all other includes. The including file declares the shape of a product, MATRIX_M x
// MATRIX_K times MATRIX_K x MATRIX_N.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_vote : require
#ifdef BF16
#extension GL_EXT_bfloat16 : require
#define OPERAND_DTYPE DTYPE_BF16
#define OPERAND bfloat16_t
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define OPERAND_DTYPE DTYPE_F16
#define OPERAND float16_t
#endif

#define ACCUMULATOR coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define ACCUMULATOR16 coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define OPERAND_A coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define OPERAND_B coopmat<OPERAND, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>
