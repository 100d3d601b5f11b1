package pipelines

import "github.com/colt5-vulkan/colt5/vk"

// linearTile is a variant of the kernel: a workgroup computes a tile of y with so many rows and columns.
type linearTile struct {
	kernel     string
	rows, cols uint64

	// With cooperative matrices.
	inputs                 uint32 // of a loop iteration
	subgroupsM, subgroupsN uint32
	dense                  bool   // requires contiguous 16-bit rows of x
	minWorkgroups          uint64 // with fewer workgroups, the next tile is faster on a large GPU
	fastCompile            bool   // less unrolled code, for compilers that take long
}

// linearTiles are the tiles for float32. All give the same bits.
var linearTiles = []linearTile{
	{kernel: "linear", rows: 128, cols: 128},
	{kernel: "linear_64", rows: 64, cols: 64},
	{kernel: "linear_cpu", rows: 64, cols: 8},
}

// linearMatrixTiles are the tiles for 16-bit operands. All give the same bits. More inputs per iteration hide more
// memory latency, but in the largest tile 64 inputs leave enough registers only for contiguous 16-bit rows.
var linearMatrixTiles = []linearTile{
	{"linear_matrix", 128, 128, 64, 2, 2, true, 4 * largeGPU, false},
	{"linear_matrix", 128, 128, 32, 2, 2, false, 4 * largeGPU, false},
	{"linear_matrix", 64, 64, 64, 2, 2, false, 2 * largeGPU, false},
	{"linear_matrix", 32, 64, 128, 2, 2, false, largeGPU, false},
	{"linear_matrix", 32, 16, 256, 2, 1, false, 0, false}, // for few rows: limited by latency, so the most bytes in flight win
	{"linear_matrix", 16, 16, 32, 1, 1, false, 0, true},   // CPU drivers unroll all loops: large tiles compile for minutes
}

// largeGPU is about the number of SMs of a large GPU (132). With fewer workgroups, smaller tiles balance the load
// better. Tiles of cooperative matrices need several workgroups per SM: their iterations are short, and an SM hides the
// latency of one workgroup with the work of others.
const largeGPU = 128

// linearSize is what the selection of a tile depends on.
type linearSize struct {
	slots    uint64
	denseIn  bool // slot s reads row s of x
	denseOut bool // slot s writes row s of y
}

// size returns the size of a product.
func (l *Linear) size(a LinearArgs) linearSize {
	return linearSize{
		slots:    uint64(a.Batch) * uint64(a.Rows),
		denseIn:  !l.config.Gather && (a.Batch == 1 || a.InRows == a.Rows) && l.config.In <= maxLinearDenseIn,
		denseOut: !l.config.Scatter && (a.Batch == 1 || a.OutRows == a.Rows),
	}
}

// tiles returns the tiles of the config.
func (l *Linear) tiles() []linearTile {
	if l.config.Precision == F32 {
		return linearTiles
	}
	return linearMatrixTiles
}

// selectTile selects a tile: the configured one, the fastest measured on this device, or the default.
func (l *Linear) selectTile(s linearSize) int {
	if l.tile >= 0 {
		return l.tile
	}
	if i := l.measuredTile(s); i >= 0 {
		return i
	}
	return l.defaultTile(s)
}

// defaultTile selects a tile where none was measured.
func (l *Linear) defaultTile(s linearSize) int {
	caps, out := l.kernels.dev.Caps(), uint64(l.config.Out)
	switch {
	case l.config.Precision != F32:
		return defaultMatrixTile(caps, l.matrix, s, out, l.config.X16)
	case caps.CPU:
		return 2
	}
	return defaultFloatTile(s.slots, out)
}

// defaultFloatTile selects a float32 tile on a GPU: the small one if there are too few large ones, or if these cover
// more than 9/8 of what the small ones cover.
func defaultFloatTile(rows, out uint64) int {
	large, small := ceilDiv(rows, 128)*ceilDiv(out, 128), ceilDiv(rows, 64)*ceilDiv(out, 64)
	if large < largeGPU || large*4*8 > small*9 {
		return 1
	}
	return 0
}

// defaultMatrixTile selects a tile of cooperative matrices: the largest that fits the device and makes enough
// workgroups, else the smallest that fits.
func defaultMatrixTile(caps vk.Caps, m vk.MatrixShape, s linearSize, out uint64, x16 bool) int {
	cpu := len(linearMatrixTiles) - 1
	if caps.CPU {
		return cpu
	}
	best := cpu
	for i, t := range linearMatrixTiles[:cpu] {
		maxArea := s.slots * out * 9 / 8 // tiles extend past the edges of y by an eighth at most
		n := ceilDiv(s.slots, t.rows) * ceilDiv(out, t.cols)
		if !t.fits(caps, m) || t.dense && !(s.denseIn && x16) {
			continue
		}
		if n >= t.minWorkgroups && (n*t.rows*t.cols <= maxArea || t.rows < 128) {
			return i
		}
		best = i
	}
	return best
}

// fits reports whether a device has the shared memory and the workgroup size for a tile of cooperative matrices, and
// whether its matrices divide the tile.
func (t linearTile) fits(caps vk.Caps, m vk.MatrixShape) bool {
	invocations := t.subgroupsM * t.subgroupsN * caps.SubgroupSize
	fits := uint64(t.shared(m)) <= uint64(caps.MaxSharedBytes) && invocations <= caps.MaxWorkgroupInvocations && invocations >= t.inputs/8
	return fits && uint32(t.rows)/t.subgroupsM%m.M == 0 && uint32(t.cols)/t.subgroupsN%m.N == 0 && t.inputs%m.K == 0
}

// shared is the shared memory of a tile of cooperative matrices, in bytes: its operands, or the results that leave
// through it.
func (t linearTile) shared(m vk.MatrixShape) uint32 {
	operands := uint32(t.rows+t.cols) * (t.inputs/8 + 1)
	results := t.subgroupsM * t.subgroupsN * m.M * (uint32(t.cols)/t.subgroupsN/4 + 1)
	return 16*max(operands, results) + 4*uint32(t.rows)
}

const (
	fewRowsTile    = 4    // index in linearMatrixTiles of the tile for few rows
	minSplitInputs = 1024 // of a part that is worth a workgroup of its own: four iterations of that tile
)

// LinearSplit returns the Split of a product of few rows by a matrix [out, in]. It is 0, unless the tiles for few rows
// leave much of a large GPU idle and the parts have 1,024 inputs or more. Then there are enough parts for two
// workgroups per SM of such a GPU.
//
// Split is the order of a sum, which must not depend on what else is computed. So rows is the number that a module's
// configuration fixes: the rows of one item, whatever the batch, and 0 where the configuration leaves it open. A large
// batch pays for the parts with traffic to and from the scratch memory. Split does not depend on the device either: the
// order is the same on all.
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
