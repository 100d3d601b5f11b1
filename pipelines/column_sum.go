package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// ColumnSum is the sum over the rows of each item of a batch: the gradient of a bias, and the last pass over partial
// sums of other gradients.
//
//	x [Batch, Rows, C] f32, or with the config's X of 16 bits, in    skip [Batch, Rows] u32 in, optional    y [Batch, C] f32 out; with the config's Add in and out
//	y[b, i] (+)= sum of x[b, r, i] over the rows r with skip[b, r] = 0
//
// More than 256 rows are added in blocks of equal length, at most 256 of them, and a second dispatch adds the sums of
// the blocks. The order of summation depends on Rows alone, also of groups of 4 columns where ranges are aligned; a row that is left out counts as 0. Ranges start at
// multiples of 4 bytes.
//
// Shader: shaders/src/column_sum.comp. CPU reference: internal/ref.ColumnSum.
type ColumnSum struct {
	config  ColumnSumConfig
	kernels kernelCache
}

// ColumnSumConfig is fixed when the kernel is compiled.
type ColumnSumConfig struct {
	C   int  // elements of a row
	Add bool // add to y

	X DType // of x: F32, F16 or BF16, for which C is even
}

// ColumnSumArgs names the memory and the sizes.
type ColumnSumArgs struct {
	X       vk.Range // [Batch, Rows, C]
	Skip    vk.Range // [Batch, Rows] not 0: the row is left out, whatever it holds; absent: no row is
	Y       vk.Range // [Batch, C]
	Scratch vk.Range // of ColumnSumScratch bytes; absent if that is 0
	Batch   int      // 0: 1
	Rows    int      // of an item
}

type columnSumPush struct{ rows, rowsPerBlock, blocks, allBlocks uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(columnSumPush{})-16]

const (
	columnSumColumns   = 32  // SUM_COLUMNS of shaders/src/include/column_sum.glsl: columns of a workgroup
	columnSumRows      = 8   // SUM_ROWS of it: rows that a workgroup adds at a time
	columnSumBlockRows = 256 // fewest rows of a block, unless there are fewer
	columnSumMaxBlocks = 256
)

// columnSumBlocks is the division of the rows of an item into blocks, in all kernels with
// shaders/src/include/column_sum.glsl.
func columnSumBlocks(rows int) (rowsPerBlock, blocks uint64) {
	rowsPerBlock = max(columnSumBlockRows, ceilDiv(uint64(rows), columnSumMaxBlocks))
	return rowsPerBlock, ceilDiv(uint64(rows), rowsPerBlock)
}

// newColumnSumPush are the sizes of a dispatch over the rows of the items.
func newColumnSumPush(batch, rows int) columnSumPush {
	rowsPerBlock, blocks := columnSumBlocks(rows)
	return columnSumPush{uint32(rows), uint32(rowsPerBlock), uint32(blocks), uint32(uint64(batch) * blocks)}
}

// groups is the grid of a kernel that includes shaders/src/include/column_sum.glsl.
func (p columnSumPush) groups(caps vk.Caps, op string, c int) ([3]uint32, error) {
	if err := checkIterations(caps, op, fmt.Sprintf("a sum of %d rows", p.rows), int(p.rowsPerBlock/columnSumRows)); err != nil {
		return [3]uint32{}, err
	}
	return workgroups(caps, op, uint64(p.allBlocks)*ceilDiv(uint64(c), columnSumColumns))
}

// ColumnSumScratch is the size of the scratch memory in bytes: the sums of blocks of rows.
func ColumnSumScratch(batch, rows, c int) uint64 {
	if batch < 0 || rows < 1 || c < 1 {
		return 0
	}
	_, blocks := columnSumBlocks(rows)
	if blocks == 1 {
		return 0
	}
	return 4 * uint64(max(batch, 1)) * blocks * uint64(c)
}

// NewColumnSum checks the config. Record compiles kernels when it first needs them.
func NewColumnSum(dev *vk.Device, c ColumnSumConfig) (*ColumnSum, error) {
	if err := firstError(checkRowLength("ColumnSum", c.C), c.X.checkPrecision("ColumnSum")); err != nil {
		return nil, err
	}
	if c.X != F32 && c.C%2 != 0 {
		return nil, fmt.Errorf("pipelines: ColumnSum: C is %d, want an even number with X %v", c.C, c.X)
	}
	return &ColumnSum{config: c, kernels: kernelCache{dev: dev}}, nil
}

// Record appends one dispatch, or two, to a command list.
func (s *ColumnSum) Record(list *vk.CommandList, a ColumnSumArgs) error {
	const op = "ColumnSum"
	if a.Batch == 0 {
		a.Batch = 1
	}
	batch, rows, c := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"C", s.config.C}
	if err := firstError(
		checkPositive(op, batch, rows, dim{"Batch*Rows", a.Batch * a.Rows}), checkTensor(op, "x", a.X, wordAlign, s.config.X.element(), batch, rows, c),
		checkOptional(op, "skip", a.Skip, wordAlign, u32, batch, rows), checkTensor(op, "y", a.Y, wordAlign, f32, batch, c),
		checkScratch(op, a.Scratch, ColumnSumScratch(a.Batch, a.Rows, s.config.C), "ColumnSumScratch"),
	); err != nil {
		return err
	}
	push := newColumnSumPush(a.Batch, a.Rows)
	if push.blocks == 1 {
		return s.dispatch(list, s.config.X, a.X, a.Skip, a.Y, push, s.config.Add)
	}
	return firstError(
		s.dispatch(list, s.config.X, a.X, a.Skip, a.Scratch, push, false),
		s.dispatch(list, F32, a.Scratch, vk.Range{}, a.Y, newColumnSumPush(a.Batch, int(push.blocks)), s.config.Add),
	)
}

// dispatch adds the rows of blocks. y has a row for each block.
func (s *ColumnSum) dispatch(list *vk.CommandList, dtype DType, x, skip, y vk.Range, push columnSumPush, add bool) error {
	const op = "ColumnSum"
	// Columns in groups of 4 are added in the same order.
	vec4 := s.config.C%4 == 0 && x.Offset()%(4*uint64(dtype.Size())) == 0 && y.Offset()%vec4Align == 0
	columns := s.config.C
	if vec4 {
		columns /= 4
	}
	groups, err := push.groups(s.kernels.dev.Caps(), op, columns)
	if err != nil {
		return err
	}
	kernel, err := s.kernel(dtype, add, vec4)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Args: []vk.Access{vk.Read(x), writeAccess(y, add), vk.Read(skip)}, Push: vk.Scalars(&push),
		Flops: float64(x.Size() / uint64(dtype.Size())), Bytes: float64(x.Size()+skip.Size()) + accesses(add)*float64(y.Size()),
	})
}

func (s *ColumnSum) kernel(x DType, add, vec4 bool) (*vk.Kernel, error) {
	name, columns := "column_sum", s.config.C
	if vec4 {
		name, columns = "column_sum_vec4", columns/4
	}
	return s.kernels.get(name, name, false, map[uint32]uint32{
		shaders.ColumnSumChannels: uint32(columns), shaders.ColumnSumAddSum: specBool(add), shaders.ColumnSumXDType: uint32(x),
	})
}

// Close frees the kernels. It may be called again, and on nil.
func (s *ColumnSum) Close() error {
	if s == nil {
		return nil
	}
	return s.kernels.close()
}
