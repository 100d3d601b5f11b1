package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// ColumnSum is the sum over the rows of a matrix: the gradient of a bias, and the last pass over partial sums of other
// gradients.
//
//	x [Rows, C] f32 in    y [C] f32 out; with the config's Add in and out
//	y[i] (+)= sum of x[r, i] over r
//
// More than 256 rows are added in blocks of equal length, at most 256 of them, and a second dispatch adds the sums of the
// blocks. The order of summation depends on Rows alone. Ranges start at multiples of 4 bytes.
//
// Shader: shaders/column_sum.comp. CPU reference: internal/ref.ColumnSum.
type ColumnSum struct {
	config  ColumnSumConfig
	kernels kernelCache
}

// ColumnSumConfig is fixed when the kernel is compiled.
type ColumnSumConfig struct {
	C   int  // elements of a row
	Add bool // add to y
}

// ColumnSumArgs names the memory and the sizes.
type ColumnSumArgs struct {
	X       vk.Range // [Rows, C]
	Y       vk.Range // [C]
	Scratch vk.Range // of ColumnSumScratch bytes; absent if that is 0
	Rows    int
}

type columnSumPush struct{ rows, rowsPerBlock, blocks uint32 } // after two addresses

var _ = [1]struct{}{}[unsafe.Sizeof(columnSumPush{})-12]

const (
	columnSumColumns   = 32  // COLUMNS of the shader: columns of a workgroup
	columnSumRows      = 8   // ROWS of the shader: rows that a workgroup adds at a time
	columnSumBlockRows = 256 // fewest rows of a block, unless there are fewer
	columnSumMaxBlocks = 256
)

// columnSumBlocks is the division of rows into blocks.
func columnSumBlocks(rows int) (rowsPerBlock, blocks uint64) {
	rowsPerBlock = max(columnSumBlockRows, ceilDiv(uint64(rows), columnSumMaxBlocks))
	return rowsPerBlock, ceilDiv(uint64(rows), rowsPerBlock)
}

// ColumnSumScratch is the size of the scratch memory in bytes: the sums of blocks of rows.
func ColumnSumScratch(rows, c int) uint64 {
	if rows < 1 || c < 1 {
		return 0
	}
	_, blocks := columnSumBlocks(rows)
	if blocks == 1 {
		return 0
	}
	return 4 * blocks * uint64(c)
}

// NewColumnSum checks the config. Record compiles kernels when it first needs them.
func NewColumnSum(dev *vk.Device, c ColumnSumConfig) (*ColumnSum, error) {
	if err := checkRowLength("ColumnSum", c.C); err != nil {
		return nil, err
	}
	return &ColumnSum{config: c, kernels: kernelCache{dev: dev}}, nil
}

// Record appends one dispatch, or two, to a command list.
func (s *ColumnSum) Record(list *vk.CommandList, a ColumnSumArgs) error {
	const op = "ColumnSum"
	rows, c := dim{"Rows", a.Rows}, dim{"C", s.config.C}
	if err := firstError(
		checkPositive(op, rows), checkTensor(op, "x", a.X, wordAlign, f32, rows, c), checkTensor(op, "y", a.Y, wordAlign, f32, c),
	); err != nil {
		return err
	}
	scratch := ColumnSumScratch(a.Rows, s.config.C)
	if scratch > 0 || !a.Scratch.IsZero() {
		if err := checkRange(op, "scratch", a.Scratch, wordAlign, scratch, "ColumnSumScratch"); err != nil {
			return err
		}
	}
	rowsPerBlock, blocks := columnSumBlocks(a.Rows)
	if err := checkIterations(s.kernels.dev.Caps(), op, fmt.Sprintf("a sum of %d rows", a.Rows), int(rowsPerBlock/columnSumRows)); err != nil {
		return err
	}
	if blocks == 1 {
		return s.dispatch(list, a.X, a.Y, columnSumPush{uint32(a.Rows), uint32(rowsPerBlock), 1}, s.config.Add)
	}
	return firstError(
		s.dispatch(list, a.X, a.Scratch, columnSumPush{uint32(a.Rows), uint32(rowsPerBlock), uint32(blocks)}, false),
		s.dispatch(list, a.Scratch, a.Y, columnSumPush{uint32(blocks), columnSumMaxBlocks, 1}, s.config.Add),
	)
}

func (s *ColumnSum) dispatch(list *vk.CommandList, x, y vk.Range, push columnSumPush, add bool) error {
	groups, err := workgroups(s.kernels.dev.Caps(), "ColumnSum", uint64(push.blocks)*ceilDiv(uint64(s.config.C), columnSumColumns))
	if err != nil {
		return err
	}
	kernel, err := s.kernel(add)
	if err != nil {
		return fmt.Errorf("pipelines: ColumnSum: %w", err)
	}
	d := vk.Dispatch{
		Kernel: kernel, Groups: groups, Args: []vk.Access{vk.Read(x), vk.Write(y)}, Push: vk.Scalars(&push),
		Flops: float64(x.Size() / 4), Bytes: float64(x.Size() + y.Size()),
	}
	if add {
		d.Args[1] = vk.ReadWrite(y)
		d.Bytes += float64(y.Size())
	}
	return list.Dispatch(d)
}

func (s *ColumnSum) kernel(add bool) (*vk.Kernel, error) {
	return s.kernels.get("column_sum", "column_sum", false, map[uint32]uint32{
		shaders.ColumnSumChannels: uint32(s.config.C), shaders.ColumnSumAdd: specBool(add),
	})
}

// Close frees the kernels. It may be called again, and on nil.
func (s *ColumnSum) Close() error {
	if s == nil {
		return nil
	}
	return s.kernels.close()
}
