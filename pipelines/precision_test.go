package pipelines

import (
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// round rounds to the precision.
func (p DType) round(f float32) float32 {
	switch p {
	case F16:
		return half.FromF16(half.ToF16(f))
	case BF16:
		return half.FromBF16(half.ToBF16(f))
	}
	return f
}

// encode returns the elements of a tensor in the precision: []float32 or []uint16.
func encode(p DType, x []float32) any {
	if p == F32 {
		return x
	}
	list := make([]uint16, len(x))
	for i, f := range x {
		if list[i] = half.ToF16(f); p == BF16 {
			list[i] = half.ToBF16(f)
		}
	}
	return list
}

// decode returns the elements of a tensor in the precision as float32.
func decode(p DType, gpu *gputest.Harness, name string) []float32 {
	if p == F32 {
		return gpu.Float32(name)
	}
	words := gpu.Uint16(name)
	list := make([]float32, len(words))
	for i, w := range words {
		if list[i] = half.FromF16(w); p == BF16 {
			list[i] = half.FromBF16(w)
		}
	}
	return list
}

// encodeWeights returns the elements of w [*, in] with the padding of the precision.
func (p DType) encodeWeights(w []float32, in int) any {
	columns := p.Columns(in)
	padded := make([]float32, len(w)/in*columns)
	for i, f := range w {
		padded[i/in*columns+i%in] = f
	}
	return encode(p, padded)
}

// roundAll rounds each element to the precision.
func (p DType) roundAll(x []float32) []float32 {
	list := make([]float32, len(x))
	for i, f := range x {
		list[i] = p.round(f)
	}
	return list
}

// The error names what a device lacks for products of 16-bit matrices.
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
		assert.NoError(t, p.Supported(fixed), "a device with one subgroup size needs no control of it")
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

// Norms round their results to the 16-bit precision of Y.
func TestNorms16Bit(t *testing.T) {
	const rows, c = 37, 68
	x, gamma, bias := normal(4, rows*c), normal(5, c), normal(6, c)
	for _, p := range []DType{F16, BF16} {
		gpu := gputest.New(t)
		layer, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c, Y: p})
		require.NoError(t, err)
		defer layer.Close()
		rms, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c, Y: p})
		require.NoError(t, err)
		defer rms.Close()
		xr, g, b := gpu.In("x", x), gpu.In("gamma", gamma), gpu.In("bias", bias)
		layered, scaled := gpu.Out("layered", 2*rows*c), gpu.Out("scaled", 2*rows*c)
		gpu.Run(func(t *vk.CommandList) error {
			return firstError(
				layer.Record(t, LayerNormArgs{X: xr, Weight: g, Bias: b, Y: layered, Rows: rows}),
				rms.Record(t, RMSNormArgs{X: xr, Gamma: g, Y: scaled, Rows: rows}))
		})
		for name, want := range map[string][]float64{"layered": ref.LayerNorm(ref.LayerNormArgs{X: x, Weight: gamma, Bias: bias, Rows: rows, C: c}), "scaled": ref.RMSNorm(x, gamma, rows, c)} {
			naive := make([]float32, len(want))
			for i, v := range want {
				naive[i] = p.round(float32(v))
			}
			assert.NoError(t, ref.MaxErr(decode(p, gpu, name), want).Within(ref.Bound(naive, want, 1e-6)), "%v %s", p, name)
		}
	}
	dev := gputest.Device(t)
	_, err := NewLayerNorm(dev, LayerNormConfig{C: 6, Y: F16})
	assert.ErrorContains(t, err, "C is 6, want a multiple of 4 with Y f16")
	_, err = NewRMSNorm(dev, RMSNormConfig{C: 8, Y: 7})
	assert.ErrorContains(t, err, "want f32, f16 or bf16")
}

// Every kernel with cooperative matrices multiplies matrices of the selected shape only. NewKernel compares the shape with
// those of the device.
func TestMatrixProducts(t *testing.T) {
	names, err := shaders.Names()
	require.NoError(t, err)
	checked := 0
	for _, name := range names {
		m, n, k := uint32(shaders.LinearMatrixM), uint32(shaders.LinearMatrixN), uint32(shaders.LinearMatrixK)
		if strings.Contains(name, "attention") {
			m, n, k = shaders.Attention16MatrixM, shaders.Attention16MatrixN, shaders.Attention16MatrixK
		}
		component, f16 := uint32(vk.ComponentBF16), strings.HasSuffix(name, "_f16")
		if f16 {
			component = vk.ComponentF16
		}
		if !strings.Contains(name, "linear_matrix") && !strings.Contains(name, "attention") || !f16 && !strings.HasSuffix(name, "_bf16") {
			continue
		}
		code, err := shaders.SPV(name)
		require.NoError(t, err)
		module, err := spirv.Reflect(code, spirv.Spec{m: 8, n: 16, k: 32})
		require.NoError(t, err, name)
		want := spirv.MatrixProduct{M: 8, N: 16, K: 32, A: component, B: component, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}
		assert.Equal(t, []spirv.MatrixProduct{want}, module.MatrixProducts, name)
		checked++
	}
	assert.GreaterOrEqual(t, checked, 8)
}
