package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// Columns is the row length of the weights of a product with n inputs: n with F32; else n rounded up to a multiple of
// 8, with zeros after the first n.
func (p DType) Columns(n int) int {
	if p == F32 {
		return n
	}
	return (n + 7) / 8 * 8
}

// rowAlign is the alignment of a tensor of this precision with rows of c elements: 16 bytes if rows are a multiple of
// 16 bytes.
func (p DType) rowAlign(c int) uint64 {
	if p != F32 {
		c /= 2
	}
	return rowAlign(c)
}

// checkPrecision checks the precision of a config.
func (p DType) checkPrecision(op string) error {
	if p > BF16 {
		return fmt.Errorf("pipelines: %s: Precision is %v, want f32, f16 or bf16", op, p)
	}
	return nil
}

// checkNormed checks that a norm can write rows of c elements in the precision: 16-bit elements are written four at a
// time.
func (p DType) checkNormed(op string, c int) error {
	if p != F32 && c%4 != 0 {
		return fmt.Errorf("pipelines: %s: C is %d, want a multiple of 4 with Y %v", op, c, p)
	}
	return p.checkPrecision(op)
}

// Supported reports whether a device can multiply matrices of this precision: F32 always, the others with cooperative
// matrices of subgroup scope that accumulate in float32. The error, a vk.ErrUnsupported, names what is missing.
func (p DType) Supported(caps vk.Caps) error {
	_, err := p.matrixShape(caps)
	return err
}

// matrixShape selects the largest cooperative matrix with 8 or 16 rows and columns. It is zero for F32.
func (p DType) matrixShape(caps vk.Caps) (vk.MatrixShape, error) {
	var best vk.MatrixShape
	if p == F32 {
		return best, nil
	}
	missing := ""
	component := uint32(vk.ComponentF16)
	switch {
	case !caps.CooperativeMatrix:
		missing = "VK_KHR_cooperative_matrix"
	case !caps.MemoryModel:
		missing = "vulkanMemoryModel"
	case !caps.FullSubgroups:
		missing = "computeFullSubgroups"
	case !caps.SubgroupSizeControl && caps.SubgroupMin != caps.SubgroupMax:
		missing = "subgroupSizeControl"
	case p == F16 && !caps.Float16:
		missing = "shaderFloat16"
	case p == BF16 && !caps.BFloat16:
		missing = "VK_KHR_shader_bfloat16 with cooperative matrices"
	}
	if p == BF16 {
		component = vk.ComponentBF16
	}
	if missing == "" {
		for _, s := range caps.MatrixShapes {
			fits := s.Scope == vk.ScopeSubgroup && s.A == component && s.B == component && s.C == vk.ComponentF32 && s.Result == vk.ComponentF32 && s.Saturating == 0
			if fits && (s.M == 8 || s.M == 16) && (s.N == 8 || s.N == 16) && (s.K == 8 || s.K == 16) && s.M*s.N*s.K > best.M*best.N*best.K {
				best = s
			}
		}
		if best.M == 0 {
			missing = fmt.Sprintf("a cooperative matrix of %v that accumulates in float32 and has 8 or 16 rows and columns", p)
		}
	}
	if missing != "" {
		return best, fmt.Errorf("%w: precision %v needs %s", vk.ErrUnsupported, p, missing)
	}
	return best, nil
}
