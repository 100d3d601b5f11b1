package pipelines

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// linearVariant is a kernel of the room: a workgroup computes a tile of y of so many rows and columns.
type linearVariant struct {
	kernel     string
	rows, cols uint64

	// Of cooperative matrices: inputs of a step, and subgroups side by side.
	step, down, across uint32
	dense              bool   // only for rows of 16 bits that follow each other
	many               uint64 // workgroups: with fewer, the next tile is faster on a large GPU
	short              bool   // a short program, for compilers that take long
}

// linearTiles are those for float32. All give the same bits.
var linearTiles = []linearVariant{
	{kernel: "linear", rows: 128, cols: 128},
	{kernel: "linear_64", rows: 64, cols: 64},
	{kernel: "linear_cpu", rows: 64, cols: 8},
}

// linearMatrixTiles are those for 16 bits. All give the same bits. Long steps hide the way from memory better, but in the largest tile those of 64
// leave registers only for rows of 16 bits that follow each other.
var linearMatrixTiles = []linearVariant{
	{"linear_matrix", 128, 128, 64, 2, 2, true, 4 * linearMany, false},
	{"linear_matrix", 128, 128, 32, 2, 2, false, 4 * linearMany, false},
	{"linear_matrix", 64, 64, 64, 2, 2, false, 2 * linearMany, false},
	{"linear_matrix", 32, 64, 128, 2, 2, false, linearMany, false},
	{"linear_matrix", 32, 16, 256, 2, 1, false, 0, false}, // for few rows: short of work, all that counts is how much is on its way
	{"linear_matrix", 16, 16, 32, 1, 1, false, 0, true},   // for CPU drivers: they unroll everything, and compile large tiles for minutes
}

// linearMany is about the number of processors of a large GPU, 132. With fewer workgroups small tiles spread better, and where they are of
// cooperative matrices, with fewer than several times as many: their steps are short, and a processor has time for the others while one waits.
const linearMany = 128

// linearSize is what the choice of a tile depends on.
type linearSize struct {
	slots    uint64
	dense    bool // slot s reads row s of x
	straight bool // slot s writes row s of y
}

// tiles are the variants of the config.
func (l *Linear) tiles() []linearVariant {
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
		return linearMatrixTile(caps, l.matrix, s, out, l.config.X16)
	case caps.CPU:
		return 2
	}
	return linearTile(s.slots, out)
}

// linearTile chooses a float32 tile on a GPU for a product of rows by out: the small one where the large ones are too few, or would hang over
// the edge by more than an eighth.
func linearTile(rows, out uint64) int {
	large, small := ceilDiv(rows, 128)*ceilDiv(out, 128), ceilDiv(rows, 64)*ceilDiv(out, 64)
	if large < linearMany || large*4*8 > small*9 {
		return 1
	}
	return 0
}

// linearMatrixTile chooses a tile of cooperative matrices: the largest that fits the device and makes many workgroups, else the smallest.
func linearMatrixTile(caps vk.Caps, m vk.MatrixShape, s linearSize, out uint64, x16 bool) int {
	cpu := len(linearMatrixTiles) - 1
	if caps.CPU {
		return cpu
	}
	best := cpu
	for i, v := range linearMatrixTiles[:cpu] {
		whole := s.slots * out * 9 / 8 // what hangs over the edge is an eighth at most
		n := ceilDiv(s.slots, v.rows) * ceilDiv(out, v.cols)
		if !v.fits(caps, m) || v.dense && !(s.dense && x16) {
			continue
		}
		if n >= v.many && (n*v.rows*v.cols <= whole || v.rows < 128) {
			return i
		}
		best = i
	}
	return best
}

// fits says whether a device has the shared memory of a tile and can cut it into its cooperative matrices.
func (v linearVariant) fits(caps vk.Caps, m vk.MatrixShape) bool {
	invocations := v.down * v.across * caps.SubgroupSize
	fits := uint64(v.shared(m)) <= uint64(caps.SharedBytes) && invocations <= caps.MaxWorkgroupInvocations && invocations >= v.step/8
	return fits && uint32(v.rows)/v.down%m.M == 0 && uint32(v.cols)/v.across%m.N == 0 && v.step%m.K == 0
}

// shared is the shared memory of a tile of cooperative matrices, in bytes.
func (v linearVariant) shared(m vk.MatrixShape) uint32 {
	rows := uint32(v.rows+v.cols) * (v.step/8 + 1)
	strips := v.down * v.across * m.M * (uint32(v.cols)/v.across/4 + 1)
	return 16*max(rows, strips) + 4*uint32(v.rows)
}

// linearFew is the tile for few rows, and linearPart the inputs of a part that are worth a workgroup of their own: four steps of it.
const (
	linearFew  = 4
	linearPart = 1024
)

// LinearSplit is the Split of a product of few rows by a matrix [out, in]: 0, unless tiles for few rows would leave much of a large GPU idle and the
// inputs make parts of 1,024 or more. Then it is as many parts as give such a GPU two workgroups a processor.
//
// Split is the order of a sum, which must not depend on what else is computed. So rows is how many there are by a module's configuration alone, an
// item's, whatever the batch; 0 where it leaves that open. A large batch pays for the parts with traffic to and from the scratch memory. The device
// has no say either: the order is the same on all.
func LinearSplit(p DType, rows, in, out int) int {
	if p == F32 || rows < 1 || in < 2*linearPart {
		return 0
	}
	few := linearMatrixTiles[linearFew]
	n := int(ceilDiv(uint64(rows), few.rows) * ceilDiv(uint64(out), few.cols))
	if n >= linearMany {
		return 0
	}
	return min(2*linearMany/n, in/linearPart, linearMostParts)
}

// sumKernel is the kernel that adds the parts of a split product.
func (l *Linear) sumKernel(s linearSize) (*vk.Kernel, error) {
	c := l.config
	spec := c.spec()
	delete(spec, 0)
	delete(spec, 5) // the norm was on the way in
	spec[12], spec[25], spec[26], spec[27] = specBool(c.Y16), specBool(s.straight), uint32(c.Split), uint32(c.Precision)
	name := "linear_sum"
	if !s.straight {
		name += " scattered"
	}
	return l.kernels.get(name, "linear_sum", false, spec)
}

// spec are the constants of all kernels of the room.
func (c LinearConfig) spec() map[uint32]uint32 {
	spec := map[uint32]uint32{0: uint32(c.In), 1: uint32(c.Out)}
	for i, on := range []bool{c.Bias, c.GELU, c.Gather, c.Norm, c.Score, c.Valid, c.Residual, c.Scatter, c.SkipBias} {
		spec[uint32(2+i)] = specBool(on)
	}
	return spec
}

// kernel is the kernel of a variant.
func (l *Linear) kernel(v linearVariant, s linearSize) (*vk.Kernel, error) {
	c := l.config
	if c.Split > 1 { // what comes on the way out comes with the sum of the parts
		c.Bias, c.GELU, c.Score, c.Residual, c.SkipBias, c.Y16 = false, false, false, false, false, false
	}
	spec := c.spec()
	if c.Precision == F32 {
		return l.kernels.get(v.kernel, v.kernel, false, spec)
	}
	lanes := l.kernels.dev.Caps().SubgroupSize
	plain := c.Y16 && c.Out%8 == 0 && !(c.Bias || c.GELU || c.Gather || c.Score || c.Valid || c.Residual || c.Scatter)
	m := l.matrix
	for i, word := range []uint32{specBool(c.X16), specBool(c.Y16), specBool(s.dense), m.M, m.N, m.K, lanes, uint32(v.rows), uint32(v.cols), v.step, v.down, v.across,
		v.down * v.across * lanes, specBool(plain), specBool(s.straight), uint32(max(c.Split, 1)), 0, specBool(s.slots%v.rows == 0)} {
		spec[uint32(11+i)] = word
	}
	delete(spec, 27) // of the sum of parts
	spec[29] = specBool(v.short)
	variant := v.kernel + "_" + c.Precision.String()
	name := fmt.Sprintf("%s %dx%dx%d", variant, v.rows, v.cols, v.step)
	if s.slots%v.rows != 0 {
		name += " edged"
	}
	if !s.dense {
		name += " gathered"
	}
	if !s.straight {
		name += " scattered"
	}
	return l.kernels.with(name, variant, spec, vk.KernelConfig{SubgroupSize: lanes, FullSubgroups: true})
}
