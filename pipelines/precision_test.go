package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
)

// The error names what a device lacks for matrices of 16 bits.
func TestPrecisionSupported(t *testing.T) {
	shapes := func(component uint32) []vk.MatrixShape {
		return []vk.MatrixShape{{M: 16, N: 16, K: 16, A: component, B: component, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}}
	}
	for p, component := range map[DType]uint32{F16: vk.ComponentF16, BF16: vk.ComponentBF16} {
		all := vk.Caps{
			CooperativeMatrix: true, MemoryModel: true, FullSubgroups: true, SubgroupSizeControl: true, SubgroupMin: 16, SubgroupMax: 32,
			Float16: p == F16, BFloat16: p == BF16, MatrixShapes: shapes(component),
		}
		assert.NoError(t, p.Supported(all))
		fixed := all
		fixed.SubgroupSizeControl, fixed.SubgroupMin = false, 32
		assert.NoError(t, p.Supported(fixed), "the only size needs no control")
		for want, change := range map[string]func(*vk.Caps){
			"VK_KHR_cooperative_matrix": func(c *vk.Caps) { c.CooperativeMatrix = false },
			"vulkanMemoryModel":         func(c *vk.Caps) { c.MemoryModel = false },
			"computeFullSubgroups":      func(c *vk.Caps) { c.FullSubgroups = false },
			"subgroupSizeControl":       func(c *vk.Caps) { c.SubgroupSizeControl = false },
			map[DType]string{F16: "shaderFloat16", BF16: "VK_KHR_shader_bfloat16"}[p]: func(c *vk.Caps) { c.Float16, c.BFloat16 = false, false },
			"a cooperative matrix of " + p.String():                                   func(c *vk.Caps) { c.MatrixShapes[0].C = component },
		} {
			less := all
			less.MatrixShapes = shapes(component)
			change(&less)
			err := p.Supported(less)
			assert.ErrorIs(t, err, vk.ErrUnsupported)
			assert.ErrorContains(t, err, want)
		}
		assert.NoError(t, F32.Supported(vk.Caps{}))
	}
}
