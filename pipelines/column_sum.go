package pipelines

import (
	"fmt"
	"math"
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
// With the config's SumItems, y [C] is the sum over up to 8 items, which are added as TreeSum adds them: it has the bits of
// ColumnSum and TreeSum.
//
// More than 256 rows are added in blocks of equal length, at most 256 of them, and a second dispatch adds the sums of
// the blocks; sums of items may take a third one. The order of summation depends on Rows alone, also of groups of 4 columns where ranges are aligned; a row that is left out counts as 0. Ranges start at
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

	SumItems bool // y is the sum over the items of a batch, MaxSumItems of them at most

	X DType // of x: F32, F16 or BF16, for which C is even
}

// ColumnSumArgs names the memory and the sizes.
type ColumnSumArgs struct {
	X       vk.Range // [Batch, Rows, C]
	Skip    vk.Range // [Batch, Rows] not 0: the row is left out, whatever it holds; absent: no row is
	Y       vk.Range // [Batch, C]; with SumItems [C]
	Scratch vk.Range // of ColumnSumScratch bytes, with SumItems of ColumnSumItemsScratch bytes; absent if that is 0
	Batch   int      // 0: 1
	Rows    int      // of an item
}

// After three addresses.
type (
	columnSumPush    struct{ rows, rowsPerBlock, blocks, allBlocks uint32 }
	columnSumFewPush struct{ rows, items, outputs uint32 }
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(columnSumPush{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(columnSumFewPush{})-12]
)

// MaxSumItems is the most items that a ColumnSum with SumItems adds, and so the most of other kernels with such a config.
const MaxSumItems = 8

const (
	columnSumColumns   = 32  // SUM_COLUMNS of shaders/src/include/column_sum.glsl: columns of a workgroup
	columnSumRows      = 8   // SUM_ROWS of it: rows that a workgroup adds at a time
	columnSumBlockRows = 256 // fewest rows of a block, unless there are fewer
	columnSumMaxBlocks = 256

	columnSumFewThreads = 64 // THREADS of the shader with FEW_ROWS
	columnSumItemsRows  = 64 // most rows of an item with SumItems, which an invocation adds one after another
	// A column of up to 16 rows is the work of one invocation if there are many columns: of a workgroup of 8 x 32 invocations
	// few would have a row.
	columnSumFewRows    = 16
	columnSumFewColumns = 16384
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

// ColumnSumItemsScratch is ColumnSumScratch with SumItems.
func ColumnSumItemsScratch(batch, rows, c int) uint64 {
	bytes := ColumnSumScratch(batch, rows, c)
	if batch < 0 || rows < 1 || c < 1 || columnSumRowsLeft(rows) <= columnSumItemsRows {
		return bytes
	}
	return bytes + 4*uint64(max(batch, 1))*uint64(c)
}

// columnSumRowsLeft is the rows of an item that the last dispatch adds: those of x, or the sums of blocks.
func columnSumRowsLeft(rows int) uint64 {
	if _, blocks := columnSumBlocks(rows); blocks > 1 {
		return blocks
	}
	return uint64(rows)
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

// Record appends one dispatch, two or three to a command list.
func (s *ColumnSum) Record(list *vk.CommandList, a ColumnSumArgs) error {
	if a.Batch == 0 {
		a.Batch = 1
	}
	if err := s.check(a); err != nil {
		return err
	}
	dtype := s.config.X
	if push := newColumnSumPush(a.Batch, a.Rows); push.blocks > 1 {
		sums := a.Scratch.Slice(0, ColumnSumScratch(a.Batch, a.Rows, s.config.C))
		if err := s.dispatch(list, dtype, a.X, a.Skip, sums, push, false); err != nil {
			return err
		}
		dtype, a.X, a.Skip, a.Rows = F32, sums, vk.Range{}, int(push.blocks)
	}
	if !s.config.SumItems {
		if a.Rows <= columnSumFewRows && uint64(a.Batch)*uint64(s.config.C) >= columnSumFewColumns {
			return s.dispatchFew(list, dtype, a, a.Batch)
		}
		return s.dispatch(list, dtype, a.X, a.Skip, a.Y, newColumnSumPush(a.Batch, a.Rows), s.config.Add)
	}
	if a.Rows > columnSumItemsRows {
		size := 4 * uint64(a.Batch) * uint64(s.config.C)
		sums := a.Scratch.Slice(a.Scratch.Size()-size, size)
		if err := s.dispatch(list, dtype, a.X, a.Skip, sums, newColumnSumPush(a.Batch, a.Rows), false); err != nil {
			return err
		}
		dtype, a.X, a.Skip, a.Rows = F32, sums, vk.Range{}, 1
	}
	return s.dispatchFew(list, dtype, a, 1)
}

func (s *ColumnSum) check(a ColumnSumArgs) error {
	const op = "ColumnSum"
	batch, rows, c := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"C", s.config.C}
	scratch, name, y := ColumnSumScratch(a.Batch, a.Rows, s.config.C), "ColumnSumScratch", []dim{batch, c}
	if s.config.SumItems {
		scratch, name, y = ColumnSumItemsScratch(a.Batch, a.Rows, s.config.C), "ColumnSumItemsScratch", y[1:]
	}
	if err := firstError(
		checkPositive(op, batch, rows, dim{"Batch*Rows", a.Batch * a.Rows}), checkSumItems(op, s.config.SumItems, batch),
		checkTensor(op, "x", a.X, wordAlign, s.config.X.element(), batch, rows, c), checkOptional(op, "skip", a.Skip, wordAlign, u32, batch, rows),
	); err != nil {
		return err
	}
	return firstError(checkTensor(op, "y", a.Y, wordAlign, f32, y...), checkScratch(op, a.Scratch, scratch, name))
}

// checkSumItems checks the number of items of a kernel whose config may have SumItems.
func checkSumItems(op string, sumItems bool, items dim) error {
	if sumItems && items.n > MaxSumItems {
		return fmt.Errorf("pipelines: %s: %s is %d, want at most %d with SumItems", op, items.name, items.n, MaxSumItems)
	}
	return nil
}

// vec4 reports whether columns are added in groups of 4, and returns the number of columns or groups. The order is the same.
func (s *ColumnSum) vec4(dtype DType, x, y vk.Range) (vec4 bool, columns int) {
	if s.config.C%4 == 0 && x.Offset()%(4*uint64(dtype.Size())) == 0 && y.Offset()%vec4Align == 0 {
		return true, s.config.C / 4
	}
	return false, s.config.C
}

// dispatch adds the rows of blocks. y has a row for each block.
func (s *ColumnSum) dispatch(list *vk.CommandList, dtype DType, x, skip, y vk.Range, push columnSumPush, add bool) error {
	const op = "ColumnSum"
	vec4, columns := s.vec4(dtype, x, y)
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

// dispatchFew adds all rows of a.Batch / outputs items to a row of y, in the order of dispatch and TreeSum.
func (s *ColumnSum) dispatchFew(list *vk.CommandList, dtype DType, a ColumnSumArgs, outputs int) error {
	const op = "ColumnSum"
	vec4, columns := s.vec4(dtype, a.X, a.Y)
	invocations := uint64(outputs) * uint64(columns)
	if invocations > math.MaxUint32-columnSumFewThreads {
		return fmt.Errorf("pipelines: %s: %d items of %d elements, want %d elements at most", op, outputs, s.config.C, math.MaxUint32-columnSumFewThreads)
	}
	groups, err := workgroups(s.kernels.dev.Caps(), op, ceilDiv(invocations, columnSumFewThreads))
	if err != nil {
		return err
	}
	kernel, err := s.fewKernel(dtype, a.Rows, s.config.Add, vec4)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Args: []vk.Access{vk.Read(a.X), writeAccess(a.Y, s.config.Add), vk.Read(a.Skip)},
		Push:  vk.Scalars(&columnSumFewPush{uint32(a.Rows), uint32(a.Batch / outputs), uint32(outputs)}),
		Flops: float64(a.X.Size() / uint64(dtype.Size())), Bytes: float64(a.X.Size()+a.Skip.Size()) + accesses(s.config.Add)*float64(a.Y.Size()),
	})
}

func (s *ColumnSum) fewKernel(x DType, rows int, add, vec4 bool) (*vk.Kernel, error) {
	name, columns := "column_sum_few", s.config.C
	if vec4 {
		name, columns = "column_sum_few_vec4", columns/4
	}
	return s.kernels.get(name, name, false, map[uint32]uint32{
		shaders.ColumnSumChannels: uint32(columns), shaders.ColumnSumAddSum: specBool(add), shaders.ColumnSumXDType: uint32(x),
		shaders.ColumnSumRows: uint32(rows),
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
