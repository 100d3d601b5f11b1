package pipelines

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

// largeGPU is about the number of SMs of a large GPU (132). With fewer workgroups, smaller tiles balance the load
// better. Tiles of cooperative matrices need several workgroups per SM: their iterations are short, and an SM hides the
// latency of one workgroup with the work of others.
const largeGPU = 128

// linearSize is what the selection of a tile depends on.
type linearSize struct {
	rows     uint64
	denseIn  bool // computed row r reads row r of x
	denseOut bool // computed row r is row r of y

	transposedW bool
}

// size returns the size of a product.
func (l *Linear) size(a LinearArgs) linearSize {
	return linearSize{
		rows:     uint64(a.Batch) * uint64(a.Rows),
		denseIn:  !l.config.Gather && (a.Batch == 1 || a.InRows == a.Rows) && l.config.In <= maxLinearDenseIn,
		denseOut: !l.config.Scatter && (a.Batch == 1 || a.OutRows == a.Rows),

		transposedW: l.config.TransposedW,
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
	limits, out := limitsOf(l.kernels.dev), uint64(l.config.Out)
	if l.config.Precision != F32 {
		return defaultMatrixTile(limits, l.matrix, s, out, l.config.X16)
	}
	return defaultFloatTile(limits, s.rows, out)
}

// largeFloatRegisters is what an invocation needs for the tile of 128x128. NVIDIA's driver 580 uses 220. The compiler for
// Adreno, with 192, spills 37; those for Intel's and Apple's GPUs, with 128, up to 1,241 and 201.
const largeFloatRegisters = 220

// fitsFloat reports whether a device has the registers and the shared memory for a float32 tile.
func (t linearTile) fitsFloat(l deviceLimits) bool {
	if t.kernel == "linear_cpu" || l.CPU {
		return t.kernel == "linear_cpu" && l.CPU
	}
	return t.floatShared() <= l.MaxSharedBytes && (t.rows < 128 || l.registersIn(128) >= largeFloatRegisters)
}

// floatShared is the shared memory of a float32 tile on a GPU, in bytes: the operands of a loop iteration, which has 8
// inputs in the large tile and 32 in the small one, and the sums of squares. With 16 KiB a device has the large one only.
func (t linearTile) floatShared() uint32 {
	inputs := uint32(8)
	if t.rows < 128 {
		inputs = 32
	}
	return 4*inputs*uint32(t.rows+t.cols) + 4*uint32(t.rows)
}

// defaultFloatTile selects a float32 tile: on a GPU the small one, if it fits, where the device has too few registers for
// the large one, where there are too few large ones, or where these cover more than 9/8 of what the small ones cover.
func defaultFloatTile(l deviceLimits, rows, out uint64) int {
	if l.CPU {
		return 2
	}
	large, small := ceilDiv(rows, 128)*ceilDiv(out, 128), ceilDiv(rows, 64)*ceilDiv(out, 64)
	if linearTiles[1].floatShared() > l.MaxSharedBytes {
		return 0
	}
	if !linearTiles[0].fitsFloat(l) || large < largeGPU || large*4*8 > small*9 {
		return 1
	}
	return 0
}
