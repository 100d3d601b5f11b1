package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file has what the fused backward kernels of norms share: shaders/src/include/norm_backward.glsl.

// FusedNormBackward reports whether RMSNormBackward and LayerNormBackward compute all gradients of rows of c elements in one
// pass. Only then may dy have 16 bits, and the sum of dx begin elsewhere than in dx.
func FusedNormBackward(c int) bool { return c%4 == 0 && c >= 4 && c <= 4096 }

// normBackward is what RMSNormBackward and LayerNormBackward share.
type normBackward struct {
	invocationsPerRow uint32
	rowsPerGroup      uint32
	kernels           kernelCache
	blocks            *ColumnSum // adds the sums of blocks of rows, with sumItems also those of the items
	sumItems          bool
}

// init checks what both configs have. passes is how often the kernel that is not fused reads or writes a row.
func (n *normBackward) init(dev *vk.Device, op string, c int, dy DType, passes int, addParameters, sumItems bool) error {
	if err := firstError(checkRowLength(op, c), checkNormBackward(op, c, dy)); err != nil {
		return err
	}
	if sumItems && !FusedNormBackward(c) {
		return fmt.Errorf("pipelines: %s: C is %d with SumItems, want a multiple of 4, at most 4096", op, c)
	}
	n.sumItems = sumItems
	n.invocationsPerRow, n.rowsPerGroup = normInvocationsPerRow(c, 64)
	iterations := passes * (c/int(n.invocationsPerRow) + 1)
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("a row of %d floats", c), iterations); err != nil {
		return err
	}
	n.kernels.dev = dev
	var err error
	n.blocks, err = NewColumnSum(dev, ColumnSumConfig{C: c, Add: addParameters, SumItems: sumItems})
	return err
}

func (n *normBackward) close() error { return errors.Join(n.kernels.close(), n.blocks.Close()) }

const normBackwardMaxBlocks = 1024 // of an item: the rows are divided into so many blocks at most

// normBackwardBlocks is the division of the rows of an item into blocks, which depends on the row length because a workgroup
// computes several short rows at a time.
func normBackwardBlocks(rows, c int) (rowsPerBlock, blocks uint64) {
	_, atATime := fusedNormInvocations(c)
	each := max(ceilDiv(uint64(rows), normBackwardMaxBlocks), 1)
	rowsPerBlock = ceilDiv(each, uint64(atATime)) * uint64(atATime)
	return rowsPerBlock, ceilDiv(uint64(rows), rowsPerBlock)
}

// fusedNormInvocations returns how many invocations share a row, with 8 elements each where 256 suffice, and how many rows a
// workgroup computes at a time.
func fusedNormInvocations(c int) (perRow, rows uint32) {
	perRow = 4
	for perRow < normInvocations && 8*int(perRow) < c {
		perRow *= 2
	}
	return perRow, normInvocations / perRow
}

// normBackwardScratch is the scratch memory of a fused kernel with the sums of so many parameters.
func normBackwardScratch(items, rows, c, parameters int) uint64 {
	_, blocks := normBackwardBlocks(rows, c)
	items = max(items, 1)
	return uint64(parameters) * (4*uint64(items)*blocks*uint64(c) + ColumnSumItemsScratch(items, int(blocks), c))
}

// checkNormBackward checks the parts of a config that only fused kernels have.
func checkNormBackward(op string, c int, dy DType) error {
	if err := dy.checkPrecision(op); err != nil {
		return err
	}
	if dy != F32 && !FusedNormBackward(c) {
		return fmt.Errorf("pipelines: %s: C is %d with DY %v, want a multiple of 4, at most 4096", op, c, dy)
	}
	return nil
}

// checkNormBase checks where the sum of dx begins.
func checkNormBase(op string, base vk.Range, add bool, c int, shape []dim) error {
	if base.IsZero() {
		return nil
	}
	if !add || !FusedNormBackward(c) {
		return fmt.Errorf("pipelines: %s: base has %d bytes, want none without Add, or with C %d, which is no multiple of 4 or above 4096", op, base.Size(), c)
	}
	return checkTensor(op, "base", base, rowAlign(c), f32, shape...)
}

type normBlocksPush struct{ rowsPerBlock, blocks, allBlocks uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(normBlocksPush{})-12]

func newNormBlocksPush(items, rows, c int) normBlocksPush {
	rowsPerBlock, blocks := normBackwardBlocks(rows, c)
	return normBlocksPush{uint32(rowsPerBlock), uint32(blocks), uint32(uint64(items) * blocks)}
}

// addBlocks records the sums over the blocks of each item. scratch has the sums of the blocks, and then the memory for adding
// them.
func (n *normBackward) addBlocks(list *vk.CommandList, p normBlocksPush, scratch, y vk.Range, items, c int) error {
	a := ColumnSumArgs{X: p.sums(scratch, c), Y: y, Batch: items, Rows: int(p.blocks)}
	bytes := ColumnSumScratch(items, a.Rows, c)
	if n.sumItems {
		bytes = ColumnSumItemsScratch(items, a.Rows, c)
	}
	if bytes > 0 {
		a.Scratch = scratch.Slice(a.X.Size(), bytes)
	}
	return n.blocks.Record(list, a)
}

// sums is the sums of the blocks in the scratch memory of a parameter of c elements.
func (p normBlocksPush) sums(scratch vk.Range, c int) vk.Range {
	return scratch.Slice(0, 4*uint64(p.allBlocks)*uint64(c))
}

// parameterShape is the shape of the gradient of a parameter.
func parameterShape(sumItems bool, items, c dim) []dim {
	if sumItems {
		return []dim{c}
	}
	return []dim{items, c}
}

// fusedNormSpec is the specialisation constants of a fused kernel.
func fusedNormSpec(c int, add bool, dy DType) map[uint32]uint32 {
	perRow, rows := fusedNormInvocations(c)
	return map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: perRow,
		shaders.RowNormRowsPerWorkgroup:  rows,
		shaders.NormBackwardChannels:     uint32(c),
		shaders.NormBackwardAddDx:        specBool(add),
		shaders.NormBackwardDyDType:      uint32(dy),
	}
}

// dxAccess is the accesses of dx, and of base where it is another range.
func dxAccess(dx, base vk.Range, add bool) (dxArg, baseArg vk.Access) {
	switch {
	case !add:
		return vk.Write(dx), vk.Access{}
	case base.IsZero() || base == dx:
		return writeAccess(dx, true), vk.Read(dx)
	}
	return vk.Write(dx), vk.Read(base)
}
