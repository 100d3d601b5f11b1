package pipelines

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// LinearBackward is the gradient of the weight of a linear layer, for each item of a batch. The gradient of its input
// is the Linear of dy with the transposed weight, which Permute makes; that of its bias is ColumnSum of dy.
//
//	dy [Batch, Rows, Out] in    x [Batch, Rows, In] in    dw [Batch, Out, In] f32 out; with the config's Add in and out
//	dw[b, o, i] (+)= sum of dy[b, r, o] * x[b, r, i] over r
//
// x are the rows that were multiplied: gathered and normalised rows where the layer does that. More than 1,024 rows, of
// large weights 4,096, are divided into parts of equal length, at most 16 of them, whose sums are added by ColumnSum. The
// order of summation depends on Rows, In and Out alone.
//
// With SumItems, dw [Out, In] is the sum over up to 8 items, added as TreeSum does.
//
// With Precision F16 or BF16 the product runs on cooperative matrices: dy and x are 16-bit operands, sums are float32. DY16
// and X16 make them 16-bit tensors too. All tiles sum in the same order.
//
// Shaders: shaders/src/linear_backward.comp, linear_backward_matrix.comp, linear_backward_cpu.comp. CPU reference: internal/ref.LinearBackward.
type LinearBackward struct {
	config    LinearBackwardConfig
	kernels   kernelCache
	parts     *ColumnSum     // adds the parts, with SumItems also the items
	items     *TreeSum       // with SumItems: adds items of one part
	matrix    vk.MatrixShape // of the cooperative matrix; zero for F32
	gpuKernel bool           // with F32: do not use the kernel for CPU drivers
	tile      int            // index in linearBackwardTiles; -1: selected by size
	maxFlops  float64        // of one dispatch, unless that has fewer tiles than minTiles
	minTiles  uint64
}

// LinearBackwardConfig is fixed when the kernel is compiled.
type LinearBackwardConfig struct {
	In, Out int  // elements of a row of x and dy; In*Out is below 2^30
	Add     bool // add to dw

	SumItems bool // dw [Out, In] is the sum over the items, MaxSumItems of them at most; without Add

	Precision DType // F32, F16 or BF16: of the operands
	X16, DY16 bool  // x, dy have elements of the 16-bit Precision instead of float32; In, or Out, is a multiple of 8 then
}

// LinearBackwardArgs names the memory and the sizes of one product.
type LinearBackwardArgs struct {
	DY      vk.Range // [Batch, Rows, Out]
	X       vk.Range // [Batch, Rows, In]
	DW      vk.Range // [Batch, Out, In]; with SumItems [Out, In]
	Scratch vk.Range // of LinearBackwardScratch bytes; absent if that is 0
	Batch   int      // 0: 1
	Rows    int      // of an item
}

type linearBackwardPush struct{ rows, rowsPerPart, parts, first, tiles uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(linearBackwardPush{})-20]

const (
	linearBackwardPartRows  = 1024 // fewest rows of a part, unless there are fewer
	linearBackwardMaxParts  = 16
	linearBackwardLongRows  = 4096 // most rows of a part that is longer than it must be
	linearBackwardPartTiles = 128  // tiles of an item that fill a large GPU: about as many as an H200 has SMs
	linearBackwardPartTile  = 128  // elements on both sides of such a tile
)

// linearBackwardParts is the division of the rows of an item into parts, for a weight of in x out elements. Parts are longer
// where an item's tiles still fill a large GPU: their sums are written and read once more.
func linearBackwardParts(rows, in, out int) (rowsPerPart, parts uint64) {
	rowsPerPart = max(linearBackwardPartRows, ceilDiv(uint64(rows), linearBackwardMaxParts))
	tiles := ceilDiv(uint64(in), linearBackwardPartTile) * ceilDiv(uint64(out), linearBackwardPartTile)
	for 2*rowsPerPart <= linearBackwardLongRows && fillsLargeGPU(tiles*ceilDiv(uint64(rows), 2*rowsPerPart)) {
		rowsPerPart *= 2
	}
	return rowsPerPart, ceilDiv(uint64(rows), rowsPerPart)
}

// fillsLargeGPU reports whether an item's tiles keep a large GPU busy: there is one for each SM, and the last
// round leaves at most an eighth of all rounds idle.
func fillsLargeGPU(tiles uint64) bool {
	rounds := ceilDiv(tiles, linearBackwardPartTiles)
	return tiles >= linearBackwardPartTiles && rounds*linearBackwardPartTiles*7 <= tiles*8
}

// LinearBackwardScratch is the size of the scratch memory in bytes: the sums of parts of the rows, with SumItems also of one part.
func LinearBackwardScratch(c LinearBackwardConfig, batch, rows int) uint64 {
	if batch < 0 || rows < 1 || c.In < 1 || c.Out < 1 {
		return 0
	}
	_, parts := linearBackwardParts(rows, c.In, c.Out)
	if parts == 1 && !c.SumItems {
		return 0
	}
	return 4 * uint64(max(batch, 1)) * parts * uint64(c.In) * uint64(c.Out)
}

// NewLinearBackward checks the config. Record compiles kernels when it first needs them.
func NewLinearBackward(dev *vk.Device, c LinearBackwardConfig) (*LinearBackward, error) {
	const op = "LinearBackward"
	if c.In < 1 || c.Out < 1 || c.In > maxRowLength/c.Out {
		return nil, fmt.Errorf("pipelines: %s: In is %d and Out %d, want at least 1, and a product of at most %d",
			op, c.In, c.Out, maxRowLength)
	}
	if err := c.checkOperands(op); err != nil {
		return nil, err
	}
	if c.Add && c.SumItems {
		return nil, fmt.Errorf("pipelines: %s: Add and SumItems are set, want one of them", op)
	}
	matrix, err := c.Precision.matrixShape(dev.Caps())
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	parts, err := NewColumnSum(dev, ColumnSumConfig{C: c.In * c.Out, Add: c.Add, SumItems: c.SumItems})
	if err != nil {
		return nil, err
	}
	var items *TreeSum
	if c.SumItems {
		if items, err = NewTreeSum(dev, TreeSumConfig{}); err != nil {
			return nil, err
		}
	}
	return &LinearBackward{
		config: c, kernels: kernelCache{dev: dev}, parts: parts, items: items, matrix: matrix, tile: -1, maxFlops: maxLinearFlops, minTiles: minLinearTiles,
	}, nil
}

// checkOperands checks the precision and the widths of 16-bit tensors.
func (c LinearBackwardConfig) checkOperands(op string) error {
	if err := c.Precision.checkPrecision(op); err != nil {
		return err
	}
	switch {
	case (c.X16 || c.DY16) && c.Precision == F32:
		return fmt.Errorf("pipelines: %s: X16 is %t and DY16 %t, want neither with Precision f32", op, c.X16, c.DY16)
	case c.X16 && c.In%8 != 0:
		return fmt.Errorf("pipelines: %s: In is %d, want a multiple of 8 with X16", op, c.In)
	case c.DY16 && c.Out%8 != 0:
		return fmt.Errorf("pipelines: %s: Out is %d, want a multiple of 8 with DY16", op, c.Out)
	}
	return nil
}

// x and dy are the element types of the tensors.
func (c LinearBackwardConfig) x() DType {
	if c.X16 {
		return c.Precision
	}
	return F32
}

func (c LinearBackwardConfig) dy() DType {
	if c.DY16 {
		return c.Precision
	}
	return F32
}

// Record appends the product to a command list: one dispatch, or several if it is very large, and with several parts or
// SumItems another one.
func (l *LinearBackward) Record(list *vk.CommandList, a LinearBackwardArgs) error {
	if a.Batch == 0 {
		a.Batch = 1
	}
	if err := l.check(a); err != nil {
		return err
	}
	rowsPerPart, parts := linearBackwardParts(a.Rows, l.config.In, l.config.Out)
	if parts == 1 && !l.config.SumItems {
		return l.multiply(list, a, a.DW, rowsPerPart, parts, l.config.Add)
	}
	if err := l.multiply(list, a, a.Scratch, rowsPerPart, parts, false); err != nil {
		return err
	}
	if parts == 1 {
		return l.items.Record(list, TreeSumArgs{X: a.Scratch, Y: a.DW, Items: a.Batch, C: l.config.In * l.config.Out})
	}
	return l.parts.Record(list, ColumnSumArgs{X: a.Scratch, Y: a.DW, Batch: a.Batch, Rows: int(parts)})
}

func (l *LinearBackward) check(a LinearBackwardArgs) error {
	const op = "LinearBackward"
	batch, rows, in, out := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"In", l.config.In}, dim{"Out", l.config.Out}
	if err := firstError(checkPositive(op, batch, rows, dim{"Batch*Rows", a.Batch * a.Rows}), checkSumItems(op, l.config.SumItems, batch)); err != nil {
		return err
	}
	// Rows of dw, counted over all parts, fit 32 bits.
	if a.Batch > math.MaxInt32/linearBackwardMaxParts/l.config.Out {
		return fmt.Errorf("pipelines: %s: Batch is %d with Out %d, want Batch*Out of at most %d",
			op, a.Batch, l.config.Out, math.MaxInt32/linearBackwardMaxParts)
	}
	rowsPerPart, _ := linearBackwardParts(a.Rows, l.config.In, l.config.Out)
	dw := []dim{batch, out, in}
	if l.config.SumItems {
		dw = dw[1:]
	}
	return firstError(
		checkIterations(l.kernels.dev.Caps(), op, fmt.Sprintf("a sum of %d rows", a.Rows), int(min(rowsPerPart, uint64(a.Rows)))),
		checkTensor(op, "dy", a.DY, l.config.dy().rowAlign(l.config.Out), l.config.dy().element(), batch, rows, out),
		checkTensor(op, "x", a.X, l.config.x().rowAlign(l.config.In), l.config.x().element(), batch, rows, in),
		checkTensor(op, "dw", a.DW, rowAlign(l.config.In), f32, dw...),
		checkScratch(op, a.Scratch, LinearBackwardScratch(l.config, a.Batch, a.Rows), "LinearBackwardScratch"),
		checkAlign(op, "scratch", a.Scratch, rowAlign(l.config.In)),
	)
}

// multiply computes the products of all parts. dw has a matrix for each.
func (l *LinearBackward) multiply(list *vk.CommandList, a LinearBackwardArgs, dw vk.Range, rowsPerPart, parts uint64, add bool) error {
	const op = "LinearBackward"
	v, err := l.variant(a, add)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	in, out := uint64(l.config.In), uint64(l.config.Out)
	tiles := ceilDiv(out, v.rows) * ceilDiv(in, v.cols) * parts * uint64(a.Batch)
	if tiles > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: %d items of %d by %d elements make %d tiles, want %d at most",
			op, a.Batch, out, in, tiles, math.MaxInt32)
	}
	kernel, err := l.kernels.kernel(v.kernelVariant)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	flops := 2 * float64(a.Batch*a.Rows) * float64(in) * float64(out)
	bytes := float64(a.DY.Size()+a.X.Size()) + accesses(add)*float64(dw.Size())
	tileFlops := 2 * float64(v.rows*v.cols) * float64(min(rowsPerPart, uint64(a.Rows)))
	step := evenShare(tiles, max(uint64(l.maxFlops/tileFlops), l.minTiles))
	for first := uint64(0); first < tiles; first += step {
		n := min(step, tiles-first)
		groups, err := workgroups(list.Device().Caps(), op, n)
		if err != nil {
			return err
		}
		share := float64(n) / float64(tiles)
		err = list.Dispatch(vk.Dispatch{
			Kernel: kernel,
			Groups: groups,
			Args:   []vk.Access{vk.Read(a.DY), vk.Read(a.X), writeAccess(dw, add)},
			Push:   vk.Scalars(&linearBackwardPush{uint32(a.Rows), uint32(rowsPerPart), uint32(parts), uint32(first), uint32(first + n)}),
			Flops:  share * flops, Bytes: share * bytes, IndependentOfPrevious: first > 0,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close frees the kernels. It may be called again, and on nil.
func (l *LinearBackward) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.kernels.close(), l.parts.Close(), l.items.Close())
}
