package vk

// Values of MatrixShape.A, B, C and Result: VkComponentTypeKHR.
const (
	ComponentF16  = 0
	ComponentF32  = 1
	ComponentS8   = 3
	ComponentS32  = 5
	ComponentU8   = 7
	ComponentU32  = 9
	ComponentBF16 = 1000141000
)

// ScopeSubgroup is the value of MatrixShape.Scope of a matrix that one subgroup holds: VK_SCOPE_SUBGROUP_KHR.
const ScopeSubgroup = 3
