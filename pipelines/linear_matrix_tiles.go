package pipelines

import (
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

const (
	lowRegisterKernel = "linear_matrix_lowreg"

	fewRowsTile    = 4    // index in linearMatrixTiles of the tile for few rows
	cpuMatrixTile  = 5    // index of the tile for CPU drivers
	minSplitInputs = 1024 // of a part that is worth a workgroup of its own: four iterations of the tile for few rows

	// prefetchRegisters is what a subgroup needs for the tiles that prefetch, in 32-bit words: they are tuned for an H200, on
	// which the largest tile takes 254 registers of 255. Intel's subgroups have 1,024 (Xe-HPG) or 2,048 words (Xe2).
	prefetchRegisters = 255 * 32
)

// linearMatrixTiles are the tiles for 16-bit operands. All give the same bits. More inputs per iteration hide more
// memory latency, but in the largest tile 64 inputs leave enough registers only for contiguous 16-bit rows. With so many it is
// faster than smaller tiles already where there is one for each SM: see docs/tuning.md.
var linearMatrixTiles = []linearTile{
	{"linear_matrix", 128, 128, 64, 2, 2, true, largeGPU, false},
	{"linear_matrix", 128, 128, 32, 2, 2, false, 4 * largeGPU, false},
	{"linear_matrix", 64, 64, 64, 2, 2, false, 2 * largeGPU, false},
	{"linear_matrix", 32, 64, 128, 2, 2, false, largeGPU, false},
	{"linear_matrix", 32, 16, 256, 2, 1, false, 0, false}, // for few rows: limited by latency, so the most bytes in flight win
	{"linear_matrix", 16, 16, 32, 1, 1, false, 0, true},   // CPU drivers unroll all loops: large tiles compile for minutes

	// For devices with few registers. 16 subgroups share the loads of a tile; nothing is prefetched. Nobody has timed them.
	{lowRegisterKernel, 128, 128, 32, 4, 4, false, largeGPU, false},
	{lowRegisterKernel, 64, 128, 32, 4, 4, false, largeGPU, false},
	{lowRegisterKernel, 64, 64, 32, 4, 4, false, largeGPU / 2, false},
	{lowRegisterKernel, 32, 32, 16, 2, 2, false, 0, false},
}

// defaultMatrixTile selects a tile of cooperative matrices: the largest that suits the device and makes enough
// workgroups, else the smallest that suits it.
func defaultMatrixTile(l deviceLimits, m vk.MatrixShape, s linearSize, out uint64, x16 bool) int {
	best := cpuMatrixTile
	for i, t := range linearMatrixTiles {
		maxArea := s.rows * out * 9 / 8 // tiles extend past the edges of y by an eighth at most
		n := ceilDiv(s.rows, t.rows) * ceilDiv(out, t.cols)
		if i == cpuMatrixTile || l.CPU || !t.suits(l, m, s, x16) {
			continue
		}
		if n >= t.minWorkgroups && (n*t.rows*t.cols <= maxArea || max(t.rows, t.cols) < 128) {
			return i
		}
		best = i
	}
	return best
}

// lowRegisters reports whether a device has too few registers for the tiles that prefetch.
func (l deviceLimits) lowRegisters() bool {
	return !l.CPU && l.registers.at(l.SubgroupSize)*l.SubgroupSize < prefetchRegisters
}

// lowRegisters reports whether a tile is one for devices with few registers.
func (t linearTile) lowRegisters() bool {
	return t.kernel == lowRegisterKernel || t.kernel == backwardLowKernel
}

// suits reports whether a tile of cooperative matrices may be selected for a product: the device can run it, and holds it
// in registers.
func (t linearTile) suits(l deviceLimits, m vk.MatrixShape, s linearSize, x16 bool) bool {
	if !t.fitsWith(l, m, t.shared(m, s.transposedW)) || t.dense && !(s.denseIn && x16) || t.lowRegisters() != l.lowRegisters() {
		return false
	}
	if !t.lowRegisters() {
		return true
	}
	// The sums take half of the registers at most. float32 rows of x, with a norm, need more registers on their way to shared
	// memory: with them it is a quarter.
	return t.shareOfSums(l) <= 0.25 || x16 && t.shareOfSums(l) <= 0.5
}

// shareOfSums is the part of a subgroup's registers that a tile's sums take.
func (t linearTile) shareOfSums(l deviceLimits) float64 {
	size := t.subgroupSize(l)
	return float64(t.rows*t.cols) / float64(t.subgroupsM*t.subgroupsN) / float64(l.registers.at(size)*size)
}

// withoutSpills returns a selected tile, or a smaller one if the driver's compiler spills registers for the tile. On devices
// with few registers that is decided where the sums take more than a quarter of them: on bmg, a tile then takes 255 of
// 256. On others it is decided for the largest tile, whose sums Mesa 26 keeps in memory on NVIDIA's Turing.
func (l *Linear) withoutSpills(t linearTile, s linearSize) (linearTile, error) {
	limits, preset := limitsOf(l.kernels.dev), 0
	if l.config.Precision == F32 || limits.CPU || l.tile >= 0 || l.measuredTile(s) >= 0 {
		return t, nil
	}
	smaller := func(next linearTile) bool { return next.rows < 128 && next.suits(limits, l.matrix, s, l.config.X16) }
	switch {
	case t.lowRegisters() && t.shareOfSums(limits) > 0.25:
		preset, smaller = 1, func(next linearTile) bool { return next.suits(limits, l.matrix, s, false) }
	case t.lowRegisters() || t.rows < 128:
		return t, nil
	}
	next := slices.IndexFunc(linearMatrixTiles, smaller)
	if next < 0 {
		return t, nil
	}
	candidates := []linearTile{t, linearMatrixTiles[next]}
	i, err := l.kernels.choose([]kernelVariant{l.matrixVariant(candidates[0], s), l.matrixVariant(candidates[1], s)}, preset)
	return candidates[i], err
}

// subgroupSize is the subgroup size of a tile of cooperative matrices. Where registers are few, they are those of a
// hardware thread, and addresses of a smaller subgroup take fewer of them.
func (t linearTile) subgroupSize(l deviceLimits) uint32 {
	if t.lowRegisters() {
		return l.SubgroupMin
	}
	return l.SubgroupSize
}

// fits reports whether a device can run a tile of cooperative matrices, for products with w and with its transpose.
func (t linearTile) fits(l deviceLimits, m vk.MatrixShape) bool {
	return t.fitsWith(l, m, max(t.shared(m, false), t.shared(m, true)))
}

// fitsWith reports whether a device has so many bytes of shared memory and the workgroup size for a tile of cooperative
// matrices, and whether its matrices divide the tile.
func (t linearTile) fitsWith(l deviceLimits, m vk.MatrixShape, shared uint32) bool {
	invocations := t.subgroupsM * t.subgroupsN * t.subgroupSize(l)
	fits := shared <= l.MaxSharedBytes && invocations <= l.MaxWorkgroupInvocations && invocations >= t.inputs/8
	if l.SubgroupSizeControl && t.subgroupsM*t.subgroupsN > l.MaxWorkgroupSubgroups {
		return false
	}
	return fits && uint32(t.rows)/t.subgroupsM%m.M == 0 && uint32(t.cols)/t.subgroupsN%m.N == 0 && t.inputs%m.K == 0
}

// shared is the shared memory of a tile of cooperative matrices, in bytes: its operands, or the results that leave
// through it.
func (t linearTile) shared(m vk.MatrixShape, transposedW bool) uint32 {
	operands := uint32(t.rows+t.cols) * (t.inputs/8 + 1)
	if transposedW {
		operands = uint32(t.rows)*(t.inputs/8+1) + t.inputs*(uint32(t.cols)/8+1)
	}
	results := t.subgroupsM * t.subgroupsN * m.M * (uint32(t.cols)/t.subgroupsN/4 + 1)
	return 16*max(operands, results) + 4*uint32(t.rows)
}

// LinearSplit returns the Split of a product of few rows by a matrix [out, in]. It is 0, unless the tiles for few rows
// leave much of a large GPU idle and the parts have 1,024 inputs or more. Then there are enough parts for two
// workgroups per SM of such a GPU.
//
// Split is the order of a sum, which must not depend on what else is computed. So rows is the number that a module's
// configuration fixes: the rows of one item, whatever the batch, and 0 where the configuration leaves it open. With a
// large batch, the parts only cost scratch traffic. Split does not depend on the device either: the order is the same on
// all.
func LinearSplit(p DType, rows, in, out int) int {
	if p == F32 || rows < 1 || in < 2*minSplitInputs {
		return 0
	}
	t := linearMatrixTiles[fewRowsTile]
	n := int(ceilDiv(uint64(rows), t.rows) * ceilDiv(uint64(out), t.cols))
	if n >= largeGPU {
		return 0
	}
	return min(2*largeGPU/n, in/minSplitInputs, maxLinearSplit)
}
