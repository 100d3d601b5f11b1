package pipelines

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// LinearBackward is the gradient of the weight of a linear layer, for each item of a batch. The gradient of its input
// is the Linear of dy with the transposed weight, which Permute makes; that of its bias is ColumnSum of dy.
//
//	dy [Batch, Rows, Out] f32 in    x [Batch, Rows, In] f32 in    dw [Batch, Out, In] f32 out; with the config's Add in and out
//	dw[b, o, i] (+)= sum of dy[b, r, o] * x[b, r, i] over r
//
// x are the rows that were multiplied: gathered and normalised rows where the layer does that. More than 1,024 rows are
// divided into parts of equal length, at most 16 of them, whose sums are added by ColumnSum. The order of summation
// depends on Rows alone.
//
// Shaders: shaders/linear_backward.comp, linear_backward_cpu.comp. CPU reference: internal/ref.LinearBackward.
type LinearBackward struct {
	config    LinearBackwardConfig
	kernels   kernelCache
	parts     *ColumnSum // adds the parts
	gpuKernel bool       // do not use the kernel for CPU drivers
	maxFlops  float64    // of one dispatch, unless that has fewer tiles than minTiles
	minTiles  uint64
}

// LinearBackwardConfig is fixed when the kernel is compiled.
type LinearBackwardConfig struct {
	In, Out int  // elements of a row of x and dy; In*Out is below 2^30
	Add     bool // add to dw
}

// LinearBackwardArgs names the memory and the sizes of one product.
type LinearBackwardArgs struct {
	DY      vk.Range // [Batch, Rows, Out]
	X       vk.Range // [Batch, Rows, In]
	DW      vk.Range // [Batch, Out, In]
	Scratch vk.Range // of LinearBackwardScratch bytes; absent if that is 0
	Batch   int      // 0: 1
	Rows    int      // of an item
}

type linearBackwardPush struct{ rows, rowsPerPart, parts, first, tiles uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(linearBackwardPush{})-20]

const (
	linearBackwardPartRows = 1024 // fewest rows of a part, unless there are fewer
	linearBackwardMaxParts = 16
)

// linearBackwardParts is the division of the rows of an item into parts.
func linearBackwardParts(rows int) (rowsPerPart, parts uint64) {
	rowsPerPart = max(linearBackwardPartRows, ceilDiv(uint64(rows), linearBackwardMaxParts))
	return rowsPerPart, ceilDiv(uint64(rows), rowsPerPart)
}

// LinearBackwardScratch is the size of the scratch memory in bytes: the sums of parts of the rows.
func LinearBackwardScratch(batch, rows, in, out int) uint64 {
	if batch < 0 || rows < 1 || in < 1 || out < 1 {
		return 0
	}
	_, parts := linearBackwardParts(rows)
	if parts == 1 {
		return 0
	}
	return 4 * uint64(max(batch, 1)) * parts * uint64(in) * uint64(out)
}

// NewLinearBackward checks the config. Record compiles kernels when it first needs them.
func NewLinearBackward(dev *vk.Device, c LinearBackwardConfig) (*LinearBackward, error) {
	const op = "LinearBackward"
	if c.In < 1 || c.Out < 1 || c.In > maxRowLength/c.Out {
		return nil, fmt.Errorf("pipelines: %s: In is %d and Out %d, want at least 1, and a product of at most %d",
			op, c.In, c.Out, maxRowLength)
	}
	parts, err := NewColumnSum(dev, ColumnSumConfig{C: c.In * c.Out, Add: c.Add})
	if err != nil {
		return nil, err
	}
	return &LinearBackward{
		config: c, kernels: kernelCache{dev: dev}, parts: parts, maxFlops: maxLinearFlops, minTiles: minLinearTiles,
	}, nil
}

// Record appends the product to a command list: one dispatch, or several if it is very large, and with several parts
// another one.
func (l *LinearBackward) Record(list *vk.CommandList, a LinearBackwardArgs) error {
	if a.Batch == 0 {
		a.Batch = 1
	}
	if err := l.check(a); err != nil {
		return err
	}
	rowsPerPart, parts := linearBackwardParts(a.Rows)
	if parts == 1 {
		return l.multiply(list, a, a.DW, rowsPerPart, parts, l.config.Add)
	}
	return firstError(
		l.multiply(list, a, a.Scratch, rowsPerPart, parts, false),
		l.parts.Record(list, ColumnSumArgs{X: a.Scratch, Y: a.DW, Batch: a.Batch, Rows: int(parts)}),
	)
}

func (l *LinearBackward) check(a LinearBackwardArgs) error {
	const op = "LinearBackward"
	batch, rows, in, out := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"In", l.config.In}, dim{"Out", l.config.Out}
	if err := checkPositive(op, batch, rows, dim{"Batch*Rows", a.Batch * a.Rows}); err != nil {
		return err
	}
	// Rows of dw, counted over all parts, fit 32 bits.
	if a.Batch > math.MaxInt32/linearBackwardMaxParts/l.config.Out {
		return fmt.Errorf("pipelines: %s: Batch is %d with Out %d, want Batch*Out of at most %d",
			op, a.Batch, l.config.Out, math.MaxInt32/linearBackwardMaxParts)
	}
	rowsPerPart, _ := linearBackwardParts(a.Rows)
	return firstError(
		checkIterations(l.kernels.dev.Caps(), op, fmt.Sprintf("a sum of %d rows", a.Rows), int(min(rowsPerPart, uint64(a.Rows)))),
		checkTensor(op, "dy", a.DY, rowAlign(l.config.Out), f32, batch, rows, out),
		checkTensor(op, "x", a.X, rowAlign(l.config.In), f32, batch, rows, in),
		checkTensor(op, "dw", a.DW, rowAlign(l.config.In), f32, batch, out, in),
		checkScratch(op, a.Scratch, LinearBackwardScratch(a.Batch, a.Rows, l.config.In, l.config.Out), "LinearBackwardScratch"),
		checkAlign(op, "scratch", a.Scratch, rowAlign(l.config.In)),
	)
}

// multiply computes the products of all parts. dw has a matrix for each.
func (l *LinearBackward) multiply(list *vk.CommandList, a LinearBackwardArgs, dw vk.Range, rowsPerPart, parts uint64, add bool) error {
	const op = "LinearBackward"
	name, tileOut, tileIn := "linear_backward", uint64(64), uint64(64)
	if l.kernels.dev.Caps().CPU && !l.gpuKernel {
		name, tileOut, tileIn = "linear_backward_cpu", 8, 64
	}
	in, out := uint64(l.config.In), uint64(l.config.Out)
	tiles := ceilDiv(out, tileOut) * ceilDiv(in, tileIn) * parts * uint64(a.Batch)
	if tiles > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: %d items of %d by %d elements make %d tiles, want %d at most",
			op, a.Batch, out, in, tiles, math.MaxInt32)
	}
	kernel, err := l.kernel(name, add)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	flops := 2 * float64(a.Batch*a.Rows) * float64(in) * float64(out)
	bytes := float64(a.DY.Size()+a.X.Size()) + accesses(add)*float64(dw.Size())
	tileFlops := 2 * float64(tileOut*tileIn) * float64(min(rowsPerPart, uint64(a.Rows)))
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

func (l *LinearBackward) kernel(name string, add bool) (*vk.Kernel, error) {
	return l.kernels.get(name, name, false, map[uint32]uint32{
		shaders.LinearBackwardIn:  uint32(l.config.In),
		shaders.LinearBackwardOut: uint32(l.config.Out),
		shaders.LinearBackwardAdd: specBool(add),
	})
}

// Close frees the kernels. It may be called again, and on nil.
func (l *LinearBackward) Close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.kernels.close(), l.parts.Close())
}
