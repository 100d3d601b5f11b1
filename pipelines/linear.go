package pipelines

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Linear multiplies rows by a matrix. A prologue (row gather, RMSNorm) and an epilogue (bias, GELU, score, residual,
// row scatter) are fused into the kernel.
//
//	x [Batch, InRows, In] in    w [Out, Columns(In)] in    y [Batch, OutRows, Out] out
//	bias [Out] f32 in    gamma [In] f32 in    residual [Batch, OutRows, Out] f32 in
//	gather [Batch, Lists, Rows] i32 in    score [Batch, Lists, Rows] f32 in    valid [Batch, Lists, Rows] u32 in
//	scatter [Batch, Rows] i32 in    skip bias [Batch, OutRows] u32 in
//	v[r, o]          = sum_i norm(x[gather[r]])[i] * w[o, i] + bias[o]
//	y[scatter[r], o] = gelu(v[r, o]) * score[r] + residual[scatter[r], o]
//
// Row r is skipped, and writes nothing, if its slot in the lists is empty: its valid word is 0, or its index in gather
// or scatter is out of range. A score of 0 skips it too. No two rows of a batch item that are not skipped may write the
// same row of y: the result would be a race. Rows of y that are not written keep their contents. With SkipBias the bias
// is added only to rows of y whose skip bias word is 0.
//
// With TransposedW, w[i, o] takes the place of w[o, i], and w is [In, Columns(Out)]: y is the gradient of the input of a
// product with w, and x that of its results.
//
// With Preactivation the product also writes v, in the shape and type of y, and with the bits that it has without GELU.
//
// With several lists, one per route of a router, a product uses one of them.
//
// With Precision F16 or BF16 the product runs on cooperative matrices: x, after the norm, and w are 16-bit operands,
// sums are float32. X16 and Y16 make x and y 16-bit tensors too.
//
// With Norm a row of x may have any length up to 1e38 with Precision F32, as long as its length times that of a row of w,
// multiplied by gamma, is below 3e38: sums are float32. With 16 bits its length is below 1.8e19.
//
// All tiles sum in the same order: the bits of a row of y depend on its own inputs and the config alone, not on other
// rows, Batch or the tile.
//
// Shaders: shaders/src/linear.comp, linear_matrix.comp, linear_cpu.comp, linear_sum.comp. CPU reference: internal/ref.Linear.
type Linear struct {
	config  LinearConfig
	kernels kernelCache
	matrix  vk.MatrixShape // of the cooperative matrix; zero for F32
	tile    int            // index in tiles(); -1: selected by size

	spirvHash func() uint32 // hashSPIRV, computed once

	maxFlops float64 // maxLinearFlops and minLinearTiles, except in tests
	minTiles uint64
}

// LinearConfig is fixed when the kernel is compiled. An operation that is false is left out, and its argument must be
// absent.
type LinearConfig struct {
	In, Out int // columns of x and of y

	Precision DType // F32, F16 or BF16: of the operands
	X16, Y16  bool  // x, y have elements of the 16-bit Precision instead of float32; In, or Out, is even then

	// With F16 and BF16: w is [In, Columns(Out)], the weight of the layer [Out, In] whose input gradient is computed.
	TransposedW bool

	// With F16 and BF16, for few rows of many inputs: split-K. The inputs are cut into so many parts, which are summed
	// concurrently and then added in order. 0 and 1: no split. Use the value of LinearSplit.
	Split int

	Bias bool
	GELU bool // exact, by erf

	// With GELU: the product also writes v, what GELU is applied to, which the gradient needs.
	Preactivation bool

	Gather   bool
	Norm     bool // RMSNorm of the source row, with gamma
	Score    bool
	Valid    bool
	Residual bool
	Scatter  bool
	SkipBias bool // with Bias

	Tile string // the tile size, one of LinearTiles.Names; "": selected by size
}

// LinearArgs is one product. It reads all ranges but Y, which it writes. Y overlaps no other range, but may be the same
// as Residual.
type LinearArgs struct {
	X, W     vk.Range
	Bias     vk.Range
	Gather   vk.Range // rows of x in the same batch item; absent: row r reads row r of x
	Gamma    vk.Range
	Score    vk.Range
	Valid    vk.Range // 0: an empty slot
	Residual vk.Range
	Scatter  vk.Range // rows of y and of residual in the same batch item; absent: row r writes row r of y
	SkipBias vk.Range // not 0: this row of y gets no bias
	Y        vk.Range
	Scratch  vk.Range // of LinearScratch bytes; absent without Split

	Preactivation vk.Range // of the shape and type of y; shares no memory with other ranges. It is written where y is

	Batch   int
	InRows  int // rows of x per item; 0: Rows
	Rows    int // computed rows per item: slots of a list with Gather or Scatter
	OutRows int // rows of y per item; 0: Rows
	Lists   int // lists of gather, score and valid per item; 0: 1. Scatter needs 1
	List    int // the list that this product uses
}

// x and y return the element types of the tensors.
func (c LinearConfig) x() DType {
	if c.X16 {
		return c.Precision
	}
	return F32
}

func (c LinearConfig) y() DType {
	if c.Y16 {
		return c.Precision
	}
	return F32
}

type linearPush struct{ totalRows, rows, inRows, outRows, lists, list, first, tiles uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(linearPush{})-32]

const (
	// maxLinearFlops bounds the work of one dispatch. Slow devices do 0.2 TFLOP/s, and some systems reset the device
	// after two seconds.
	maxLinearFlops = 5e10
	// minLinearTiles is the smallest dispatch that a product is divided into: the last workgroups of each dispatch
	// leave a GPU half idle.
	minLinearTiles = 512
	// maxLinearDenseIn is the longest row whose address is computed from the first row of a tile, in 32 bits. Longer
	// rows have their own 64-bit addresses.
	maxLinearDenseIn = 1<<24 - 1
	// maxLinearSplit is the largest Split.
	maxLinearSplit = 64
)

// NewLinear makes a product for a device. Its kernels are compiled when they are first recorded.
func NewLinear(dev *vk.Device, c LinearConfig) (*Linear, error) {
	const op = "Linear"
	if err := c.check(op); err != nil {
		return nil, err
	}
	l := &Linear{config: c, kernels: kernelCache{dev: dev}, maxFlops: maxLinearFlops, minTiles: minLinearTiles}
	l.spirvHash = sync.OnceValue(l.hashSPIRV)
	var err error
	if l.matrix, err = c.Precision.matrixShape(dev.Caps()); err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	if l.tile, err = l.configuredTile(); err != nil {
		return nil, err
	}
	iterations := c.In
	if c.Norm {
		iterations += 2 * c.In // where sums of squares overflow, in the kernel for CPU drivers
	}
	return l, checkIterations(dev.Caps(), op, fmt.Sprintf("In of %d", c.In), iterations)
}

// Record appends the product to a command list: one dispatch, or several if it is very large.
func (l *Linear) Record(list *vk.CommandList, a LinearArgs) error {
	const op = "Linear"
	if a.InRows == 0 {
		a.InRows = a.Rows
	}
	if a.OutRows == 0 {
		a.OutRows = a.Rows
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	if err := l.check(op, a); err != nil {
		return err
	}
	size := l.size(a)
	tile, err := l.withoutSpills(l.tiles()[l.selectTile(size)], size)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	if tile.dense && !(size.denseIn && l.config.X16) {
		return fmt.Errorf("pipelines: %s: x has float32 elements or gathered rows, want contiguous 16-bit rows with Tile %s", op, l.config.Tile)
	}
	split, out := uint64(max(l.config.Split, 1)), uint64(l.config.Out)
	tiles := ceilDiv(size.rows, tile.rows) * ceilDiv(out, tile.cols) * split
	if tiles > math.MaxInt32 { // workgroup ids fit 32 bits, also in a grid that has some more
		return fmt.Errorf("pipelines: %s: %d rows by %d columns make %d tiles, want %d at most", op, size.rows, out, tiles, math.MaxInt32)
	}
	k, err := l.kernel(tile, size)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	outputs := []vk.Access{vk.Write(a.Y)}
	if l.config.Preactivation {
		outputs = append(outputs, vk.Write(a.Preactivation))
	}
	push := linearPush{totalRows: uint32(size.rows), rows: uint32(a.Rows), inRows: uint32(a.InRows), outRows: uint32(a.OutRows),
		lists: uint32(a.Lists), list: uint32(a.List)}
	sumPush := push
	written, flops, bytes := outputs, 2*float64(size.rows)*float64(l.config.In)*float64(out), l.bytes(a)
	if split > 1 {
		written, bytes = []vk.Access{vk.Write(a.Scratch)}, bytes+2*float64(a.Scratch.Size())
	}
	tileFlops := 2 * float64(tile.rows*tile.cols) * float64(l.config.In)
	step := evenShare(tiles, max(uint64(l.maxFlops/tileFlops), l.minTiles))
	for first := uint64(0); first < tiles; first += step {
		n := min(step, tiles-first)
		share := float64(n) / float64(tiles)
		groups, err := workgroups(list.Device().Caps(), op, n)
		if err != nil {
			return err
		}
		push.first, push.tiles = uint32(first), uint32(first+n)
		err = list.Dispatch(vk.Dispatch{
			Kernel: k,
			Groups: groups,
			Args: append([]vk.Access{vk.Read(a.X), vk.Read(a.W), vk.Read(a.Bias), vk.Read(a.Gather), vk.Read(a.Gamma), vk.Read(a.Score),
				vk.Read(a.Valid), vk.Read(a.Residual), vk.Read(a.Scatter), vk.Read(a.SkipBias)}, written...),
			Push:                  vk.Scalars(&push),
			Flops:                 share * flops,
			Bytes:                 share * bytes,
			IndependentOfPrevious: first > 0,
		})
		if err != nil {
			return err
		}
	}
	if split == 1 {
		return nil
	}
	return l.recordSum(list, a, sumPush, size, outputs)
}

// recordSum adds the dispatch that adds the parts of a split product and applies the epilogue.
func (l *Linear) recordSum(list *vk.CommandList, a LinearArgs, push linearPush, s linearSize, outputs []vk.Access) error {
	const op = "Linear"
	k, err := l.sumKernel(s)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(s.rows*ceilDiv(uint64(l.config.Out), 4), 256))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{Kernel: k, Groups: groups, Push: vk.Scalars(&push), Args: append([]vk.Access{
		vk.Read(a.Scratch), vk.Read(vk.Range{}), vk.Read(a.Bias), vk.Read(a.Gather), vk.Read(vk.Range{}), vk.Read(a.Score),
		vk.Read(a.Valid), vk.Read(a.Residual), vk.Read(a.Scatter), vk.Read(a.SkipBias)}, outputs...)})
}

// LinearScratch is the scratch memory of a product, in bytes: a float32 y for each part of the split, 0 without Split.
// rows is Batch times Rows.
func LinearScratch(c LinearConfig, rows int) uint64 {
	if c.Split <= 1 {
		return 0
	}
	return 4 * uint64(c.Split) * uint64(rows) * uint64(c.Out)
}

// bytes is the minimum memory traffic of a product: the rows of x, y and residual, w, and the small arguments.
func (l *Linear) bytes(a LinearArgs) float64 {
	c, rows := l.config, a.Batch*a.Rows
	row := uint64(c.In*c.x().Size() + c.Out*c.y().Size())
	if c.Residual {
		row += uint64(4 * c.Out)
	}
	if c.Preactivation {
		row += uint64(c.Out * c.y().Size())
	}
	rest := (a.Gather.Size() + a.Score.Size() + a.Valid.Size()) / uint64(a.Lists)
	for _, r := range []vk.Range{a.W, a.Bias, a.Gamma, a.Scatter, a.SkipBias} {
		rest += r.Size()
	}
	return float64(rows)*float64(row) + float64(rest)
}

// Close frees the kernels.
func (l *Linear) Close() error {
	if l == nil {
		return nil
	}
	return l.kernels.close()
}
