package vk

import "fmt"

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

const scopeWorkgroup = 2

// String describes the product: "M 16 N 16 K 16: float16 x float16 + float32 -> float32, of a subgroup".
func (s MatrixShape) String() string {
	text := fmt.Sprintf("M %d N %d K %d: %s x %s + %s -> %s", s.M, s.N, s.K, component(s.A), component(s.B), component(s.C), component(s.Result))
	if s.Saturating != 0 {
		text += ", saturating"
	}
	switch s.Scope {
	case scopeWorkgroup:
		return text + ", of a workgroup"
	case ScopeSubgroup:
		return text + ", of a subgroup"
	}
	return text + fmt.Sprintf(", scope %d", s.Scope)
}

// component is the name of a VkComponentTypeKHR.
func component(t uint32) string {
	names := [...]string{"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
	switch {
	case t < uint32(len(names)):
		return names[t]
	case t == ComponentBF16:
		return "bfloat16"
	}
	return fmt.Sprintf("type %d", t)
}
