package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// spec returns the specialisation constants of all kernels of the product.
func (c LinearConfig) spec() map[uint32]uint32 {
	return map[uint32]uint32{
		shaders.LinearIn:       uint32(c.In),
		shaders.LinearOut:      uint32(c.Out),
		shaders.LinearBias:     specBool(c.Bias),
		shaders.LinearGELU:     specBool(c.GELU),
		shaders.LinearGather:   specBool(c.Gather),
		shaders.LinearNorm:     specBool(c.Norm),
		shaders.LinearScore:    specBool(c.Score),
		shaders.LinearValid:    specBool(c.Valid),
		shaders.LinearResidual: specBool(c.Residual),
		shaders.LinearScatter:  specBool(c.Scatter),
		shaders.LinearSkipBias: specBool(c.SkipBias),
	}
}

// withOutputs is the SPIR-V variant of a kernel with the epilogue.
func (c LinearConfig) withOutputs(spv string) string {
	if c.Preactivation {
		return spv + "_preactivation"
	}
	return spv
}

// kernel returns the kernel of a tile.
func (l *Linear) kernel(t linearTile, s linearSize) (*vk.Kernel, error) {
	if l.config.Precision == F32 {
		spv := l.config.withOutputs(t.kernel)
		return l.kernels.get(spv, spv, false, l.config.spec())
	}
	return l.kernels.kernel(l.matrixVariant(t, s))
}

// matrixVariant returns what the kernel of a tile of cooperative matrices is compiled from.
func (l *Linear) matrixVariant(t linearTile, s linearSize) kernelVariant {
	c := l.config
	if c.Split > 1 { // the kernel that adds the parts has the epilogue
		c.Bias, c.GELU, c.Score, c.Residual, c.SkipBias, c.Y16, c.Preactivation = false, false, false, false, false, false, false
	}
	spec := c.spec()
	subgroup, m := t.subgroupSize(limitsOf(l.kernels.dev)), l.matrix
	noEpilogue := c.Y16 && c.Out%8 == 0 && !(c.Bias || c.GELU || c.Gather || c.Score || c.Valid || c.Residual || c.Scatter)
	for id, value := range map[uint32]uint32{
		shaders.LinearX16:                specBool(c.X16),
		shaders.LinearY16:                specBool(c.Y16),
		shaders.LinearDenseOutput:        specBool(s.denseOut),
		shaders.LinearSplitK:             uint32(max(c.Split, 1)),
		shaders.LinearMatrixDenseInput:   specBool(s.denseIn),
		shaders.LinearMatrixM:            m.M,
		shaders.LinearMatrixN:            m.N,
		shaders.LinearMatrixK:            m.K,
		shaders.LinearMatrixSubgroupSize: subgroup,
		shaders.LinearMatrixTileM:        uint32(t.rows),
		shaders.LinearMatrixTileN:        uint32(t.cols),
		shaders.LinearMatrixTileK:        t.inputs,
		shaders.LinearMatrixSubgroupsM:   t.subgroupsM,
		shaders.LinearMatrixSubgroupsN:   t.subgroupsN,
		shaders.LinearMatrixThreads:      t.subgroupsM * t.subgroupsN * subgroup,
		shaders.LinearMatrixNoEpilogue:   specBool(noEpilogue),
		shaders.LinearMatrixFullTiles:    specBool(s.rows%t.rows == 0),
		shaders.LinearMatrixFastCompile:  specBool(t.fastCompile),
		shaders.LinearMatrixTransposedW:  specBool(c.TransposedW),
	} {
		spec[id] = value
	}
	variant := c.withOutputs(t.kernel + "_" + c.Precision.String())
	name := fmt.Sprintf("%s %dx%dx%d", variant, t.rows, t.cols, t.inputs)
	if s.rows%t.rows != 0 {
		name += " partial"
	}
	if c.TransposedW {
		name += " transposed"
	}
	if !s.denseIn {
		name += " gathered"
	}
	if !s.denseOut {
		name += " scattered"
	}
	return kernelVariant{name, variant, spec, subgroup, true}
}

// sumKernel returns the kernel that adds the parts of a split product.
func (l *Linear) sumKernel(s linearSize) (*vk.Kernel, error) {
	c := l.config
	spec := c.spec()
	delete(spec, shaders.LinearIn)
	delete(spec, shaders.LinearNorm) // the parts have applied the prologue
	spec[shaders.LinearY16], spec[shaders.LinearDenseOutput] = specBool(c.Y16), specBool(s.denseOut)
	spec[shaders.LinearSplitK], spec[shaders.LinearSumDType] = uint32(c.Split), uint32(c.Precision)
	spv := c.withOutputs("linear_sum")
	name := spv
	if !s.denseOut {
		name += " scattered"
	}
	return l.kernels.get(name, spv, false, spec)
}
