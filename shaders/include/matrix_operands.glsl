// Extensions and the type of 16-bit operands for kernels on cooperative matrices: F16, or BF16 where that macro is defined.
// Include it before all other includes.
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
