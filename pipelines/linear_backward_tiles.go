package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

const (
	backwardMatrixKernel    = "linear_backward_matrix"
	backwardLowKernel       = "linear_backward_matrix_lowreg"
	cpuBackwardTile         = 3 // index in linearBackwardTiles of the tile for CPU drivers
	backwardFloatTile       = 64
	backwardCPUTileOut      = 8
	minLargeBackwardProduct = largeGPU // workgroups of the largest tile, below which a smaller one is faster on a large GPU
)

// linearBackwardTiles are the tiles for 16-bit operands: outputs x inputs x rows of a loop iteration. All give the same
// bits. A workgroup has 1,024 rows or more, unless there are fewer, so that one workgroup per SM is enough.
var linearBackwardTiles = []linearTile{
	{backwardMatrixKernel, 128, 128, 64, 2, 2, true, minLargeBackwardProduct, false},
	{backwardMatrixKernel, 128, 128, 32, 2, 2, false, minLargeBackwardProduct, false},
	{backwardMatrixKernel, 64, 64, 64, 2, 2, false, 0, false},
	{backwardMatrixKernel, 16, 16, 32, 1, 1, false, 0, true}, // CPU drivers unroll all loops

	// For devices with few registers. Nobody has timed them.
	{backwardLowKernel, 128, 128, 32, 4, 4, false, largeGPU, false},
	{backwardLowKernel, 64, 64, 32, 4, 4, false, largeGPU / 2, false},
	{backwardLowKernel, 32, 32, 16, 2, 2, false, 0, false},
}

// backwardShared is the shared memory of a tile in bytes: its operands, or the results that leave through it.
func (t linearTile) backwardShared(m vk.MatrixShape) uint32 {
	operands := t.inputs * (uint32(t.rows+t.cols)/8 + 2)
	results := t.subgroupsM * t.subgroupsN * m.M * (uint32(t.cols)/t.subgroupsN/4 + 1)
	return 16 * max(operands, results)
}

// suitsBackward reports whether a tile may be selected: the device can run it, and holds it in registers.
func (t linearTile) suitsBackward(l deviceLimits, m vk.MatrixShape, c LinearBackwardConfig) bool {
	both16 := c.X16 && c.DY16
	if !t.fitsWith(l, m, t.backwardShared(m)) || t.dense && !both16 || t.lowRegisters() != l.lowRegisters() {
		return false
	}
	share := t.shareOfSums(l)
	return !t.lowRegisters() || share <= 0.25 || both16 && share <= 0.5
}

// defaultBackwardTile selects a tile: the largest that suits the device and makes enough workgroups, else the smallest that
// suits it.
func defaultBackwardTile(l deviceLimits, m vk.MatrixShape, c LinearBackwardConfig, a LinearBackwardArgs) int {
	best := cpuBackwardTile
	if l.CPU {
		return best
	}
	_, parts := linearBackwardParts(a.Rows, c.In, c.Out)
	in, out := uint64(c.In), uint64(c.Out)
	for i, t := range linearBackwardTiles {
		if i == cpuBackwardTile || !t.suitsBackward(l, m, c) {
			continue
		}
		tiles := ceilDiv(out, t.rows) * ceilDiv(in, t.cols)
		n := tiles * parts * uint64(a.Batch)
		if n >= t.minWorkgroups && (tiles*t.rows*t.cols <= in*out*9/8 || max(t.rows, t.cols) < 128) {
			return i
		}
		best = i
	}
	return best
}

// backwardVariant is a kernel of the product, whose workgroups compute rows x cols elements of dw.
type backwardVariant struct {
	kernelVariant
	rows, cols uint64
}

// variant returns the kernel of a product.
func (l *LinearBackward) variant(a LinearBackwardArgs, add bool) (backwardVariant, error) {
	spec := map[uint32]uint32{
		shaders.LinearBackwardIn:  uint32(l.config.In),
		shaders.LinearBackwardOut: uint32(l.config.Out),
		shaders.LinearBackwardAdd: specBool(add),
	}
	switch {
	case l.config.Precision != F32:
		tile := l.tile
		if tile < 0 {
			tile = defaultBackwardTile(limitsOf(l.kernels.dev), l.matrix, l.config, a)
		}
		return l.withoutSpills(tile, a, add)
	case limitsOf(l.kernels.dev).CPU && !l.gpuKernel:
		return backwardVariant{kernelVariant{"linear_backward_cpu", "linear_backward_cpu", spec, 0, false}, backwardCPUTileOut, backwardFloatTile}, nil
	}
	return backwardVariant{kernelVariant{"linear_backward", "linear_backward", spec, 0, false}, backwardFloatTile, backwardFloatTile}, nil
}

// withoutSpills returns the kernel of a selected tile, or of a smaller one if the driver's compiler spills registers for the
// tile. A tile whose sums take more than a quarter of few registers is decided against where the driver reports no spills.
func (l *LinearBackward) withoutSpills(tile int, a LinearBackwardArgs, add bool) (backwardVariant, error) {
	t, limits := linearBackwardTiles[tile], limitsOf(l.kernels.dev)
	candidates := []linearTile{t}
	if l.tile < 0 && !limits.CPU {
		for _, smaller := range linearBackwardTiles[tile+1:] {
			if smaller.rows < t.rows && smaller.suitsBackward(limits, l.matrix, l.config) {
				candidates = append(candidates, smaller)
			}
		}
	}
	preset := 0
	if t.lowRegisters() && t.shareOfSums(limits) > 0.25 {
		preset = len(candidates) - 1
	}
	variants := make([]kernelVariant, len(candidates))
	for i, c := range candidates {
		variants[i] = l.matrixVariant(c, a, add)
	}
	i, err := l.kernels.choose(variants, preset)
	if err != nil {
		return backwardVariant{}, err
	}
	return backwardVariant{variants[i], candidates[i].rows, candidates[i].cols}, nil
}

// matrixVariant returns what the kernel of a tile of cooperative matrices is compiled from.
func (l *LinearBackward) matrixVariant(t linearTile, a LinearBackwardArgs, add bool) kernelVariant {
	c, m, subgroup := l.config, l.matrix, t.subgroupSize(limitsOf(l.kernels.dev))
	rowsPerPart, parts := linearBackwardParts(a.Rows, c.In, c.Out)
	full := uint64(a.Rows)%uint64(t.inputs) == 0 && (parts == 1 || rowsPerPart%uint64(t.inputs) == 0)
	variant := t.kernel + "_" + c.Precision.String()
	name := fmt.Sprintf("%s %dx%dx%d", variant, t.rows, t.cols, t.inputs)
	if !full {
		name += " partial"
	}
	return kernelVariant{name, variant, map[uint32]uint32{
		shaders.LinearBackwardIn:                 uint32(c.In),
		shaders.LinearBackwardOut:                uint32(c.Out),
		shaders.LinearBackwardAdd:                specBool(add),
		shaders.LinearBackwardMatrixX16:          specBool(c.X16),
		shaders.LinearBackwardMatrixDy16:         specBool(c.DY16),
		shaders.LinearBackwardMatrixM:            m.M,
		shaders.LinearBackwardMatrixN:            m.N,
		shaders.LinearBackwardMatrixK:            m.K,
		shaders.LinearBackwardMatrixSubgroupSize: subgroup,
		shaders.LinearBackwardMatrixTileM:        uint32(t.rows),
		shaders.LinearBackwardMatrixTileN:        uint32(t.cols),
		shaders.LinearBackwardMatrixTileK:        t.inputs,
		shaders.LinearBackwardMatrixSubgroupsM:   t.subgroupsM,
		shaders.LinearBackwardMatrixSubgroupsN:   t.subgroupsN,
		shaders.LinearBackwardMatrixThreads:      t.subgroupsM * t.subgroupsN * subgroup,
		shaders.LinearBackwardMatrixFullTiles:    specBool(full),
		shaders.LinearBackwardMatrixFastCompile:  specBool(t.fastCompile),
	}, subgroup, true}
}
