// What kernels on cooperative matrices of 16 bits begin with, before anything else: F16, or BF16 where that is defined.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_vote : require
#ifdef BF16
#extension GL_EXT_bfloat16 : require
#define OPERAND_DTYPE DTYPE_BF16
#define HALF bfloat16_t
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define OPERAND_DTYPE DTYPE_F16
#define HALF float16_t
#endif
