package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// LayerNormBackward is the gradient of [LayerNorm]: that of the rows, and those of weight and bias for each item of a
// batch.
//
//	x [Items, Rows, C] f32 in    weight [C] f32 in    dy [Items, Rows, C] f32, or with the config's DY of 16 bits, in
//	dx [Items, Rows, C] f32 out; with the config's Add in and out    base the same, in, optional
//	dweight, dbias [Items, C] f32 out; with AddParameters in and out
//	dx[b, r]   (+)= (g - mean(g) - n * mean(g * n)) / sqrt(var + 1e-5)    with g = weight * dy[b, r]
//	dweight[b] (+)= sum of dy[b, r] * n over r    dbias[b] (+)= sum of dy[b, r] over r
//
// With base, dx is its sum with the gradient. With SumItems, dweight and dbias [C] are the sums over up to 8 items, added as
// TreeSum does. n is (x[b, r] - mean) / sqrt(var + 1e-5) with the biased variance; means are over a row. As in LayerNorm, the length
// of a row, less its mean, is below 1.8e19. The order of summation depends on C and Rows alone. Ranges start at
// multiples of 4 bytes, rows of a multiple of 4 elements at multiples of 16.
//
// Shader: shaders/src/layernorm_backward.comp. CPU reference: internal/ref.LayerNormBackward.
type LayerNormBackward struct {
	config LayerNormBackwardConfig
	normBackward
}

// LayerNormBackwardConfig is fixed when the kernel is compiled.
type LayerNormBackwardConfig struct {
	C             int  // elements of a row
	Add           bool // add to dx
	AddParameters bool // add to dweight and dbias

	SumItems bool // dweight and dbias [C] are the sums over the items, MaxSumItems of them at most; FusedNormBackward(C) is true then

	DY DType // of dy: F32, F16 or BF16; with 16 bits FusedNormBackward(C) is true
}

// LayerNormBackwardArgs names the memory and the sizes. Outputs overlap no other range.
type LayerNormBackwardArgs struct {
	X              vk.Range // [Items, Rows, C]
	Weight         vk.Range // [C]
	DY             vk.Range // [Items, Rows, C]
	DX             vk.Range // [Items, Rows, C]
	Base           vk.Range // [Items, Rows, C] with the config's Add, if FusedNormBackward(C): dx is added to it; absent: DX itself
	DWeight, DBias vk.Range // [Items, C]; with SumItems [C]
	Scratch        vk.Range // of LayerNormBackwardScratch bytes
	Items          int      // batch items; 0: 1
	Rows           int      // of an item
}

// After eight addresses; the sums have columnSumPush.
type (
	layerNormBackwardPush struct{ rows uint32 }
	layerNormFusedPush    struct {
		rows   uint32
		blocks normBlocksPush
	}
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(layerNormBackwardPush{})-4]
	_ = [1]struct{}{}[unsafe.Sizeof(layerNormFusedPush{})-16]
)

// LayerNormBackwardScratch is the size of the scratch memory in bytes: the sums of blocks of rows, and three statistics of
// each row unless FusedNormBackward(c) is true.
func LayerNormBackwardScratch(items, rows, c int) uint64 {
	if items < 0 || rows < 1 || c < 1 {
		return 0
	}
	if FusedNormBackward(c) {
		return normBackwardScratch(items, rows, c, 2)
	}
	return 12*uint64(max(items, 1))*uint64(rows) + 2*ColumnSumScratch(items, rows, c)
}

// NewLayerNormBackward checks the config. Record compiles kernels when it first needs them.
func NewLayerNormBackward(dev *vk.Device, c LayerNormBackwardConfig) (*LayerNormBackward, error) {
	n := &LayerNormBackward{config: c}
	if err := n.init(dev, "LayerNormBackward", c.C, c.DY, 4, c.AddParameters, c.SumItems); err != nil { // three passes for the sums, one to write dx
		return nil, err
	}
	return n, nil
}

// Record appends two dispatches to a command list, or up to five with many rows.
func (n *LayerNormBackward) Record(list *vk.CommandList, a LayerNormBackwardArgs) error {
	const op = "LayerNormBackward"
	if a.Items == 0 {
		a.Items = 1
	}
	if err := n.check(a); err != nil {
		return err
	}
	if FusedNormBackward(n.config.C) {
		return n.recordFused(list, a)
	}
	caps, rows, sums := list.Device().Caps(), uint64(a.Items)*uint64(a.Rows), newColumnSumPush(a.Items, a.Rows)
	groups, err := workgroups(caps, op, ceilDiv(rows, uint64(n.rowsPerGroup)))
	if err != nil {
		return err
	}
	sumGroups, err := sums.groups(caps, op, n.config.C)
	if err != nil {
		return err
	}
	rowKernel, err := n.rowKernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	add := n.config.AddParameters && sums.blocks == 1
	sumKernel, err := n.sumKernel(add)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	norms, dweight, dbias := a.Scratch.Slice(0, 12*rows), a.DWeight, a.DBias
	if sums.blocks > 1 {
		size := ColumnSumScratch(a.Items, a.Rows, n.config.C)
		dweight, dbias = a.Scratch.Slice(12*rows, size), a.Scratch.Slice(12*rows+size, size)
	}
	elements := float64(rows) * float64(n.config.C)
	err = list.Dispatch(vk.Dispatch{
		Kernel: rowKernel, Groups: groups,
		Args:  []vk.Access{vk.Read(a.X), vk.Read(a.Weight), vk.Read(a.DY), writeAccess(a.DX, n.config.Add), {}, {}, vk.Write(norms), {}},
		Push:  vk.Scalars(&layerNormBackwardPush{uint32(rows)}),
		Flops: 18 * elements, Bytes: 8*elements + accesses(n.config.Add)*4*elements + float64(a.Weight.Size()+norms.Size()),
	})
	if err != nil {
		return err
	}
	err = list.Dispatch(vk.Dispatch{
		Kernel: sumKernel, Groups: sumGroups,
		Args:  []vk.Access{vk.Read(a.X), {}, vk.Read(a.DY), {}, writeAccess(dweight, add), writeAccess(dbias, add), vk.Read(norms), {}},
		Push:  vk.Scalars(&sums),
		Flops: 6 * elements, Bytes: 8*elements + float64(norms.Size()) + 2*accesses(add)*float64(dweight.Size()),
	})
	if err != nil || sums.blocks == 1 {
		return err
	}
	return firstError(
		n.blocks.Record(list, ColumnSumArgs{X: dweight, Y: a.DWeight, Batch: a.Items, Rows: int(sums.blocks)}),
		n.blocks.Record(list, ColumnSumArgs{X: dbias, Y: a.DBias, Batch: a.Items, Rows: int(sums.blocks)}),
	)
}

// recordFused appends the fused kernel, and the sums of its blocks.
func (n *LayerNormBackward) recordFused(list *vk.CommandList, a LayerNormBackwardArgs) error {
	const op = "LayerNormBackward"
	push := layerNormFusedPush{uint32(a.Rows), newNormBlocksPush(a.Items, a.Rows, n.config.C)}
	groups, err := workgroups(list.Device().Caps(), op, uint64(push.blocks.allBlocks))
	if err != nil {
		return err
	}
	kernel, err := n.fusedKernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	size := a.Scratch.Size() / 2
	weightScratch, biasScratch := a.Scratch.Slice(0, size), a.Scratch.Slice(size, size)
	weightSums, biasSums := push.blocks.sums(weightScratch, n.config.C), push.blocks.sums(biasScratch, n.config.C)
	elements := float64(a.Items) * float64(a.Rows) * float64(n.config.C)
	dx, base := dxAccess(a.DX, a.Base, n.config.Add)
	err = list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Push: vk.Scalars(&push),
		Args:  []vk.Access{vk.Read(a.X), vk.Read(a.Weight), vk.Read(a.DY), dx, vk.Write(weightSums), vk.Write(biasSums), {}, base},
		Flops: 24 * elements, Bytes: 4*elements + float64(a.DY.Size()) + accesses(n.config.Add)*4*elements + float64(a.Weight.Size()+2*weightSums.Size()),
	})
	if err != nil {
		return err
	}
	return firstError(
		n.addBlocks(list, push.blocks, weightScratch, a.DWeight, a.Items, n.config.C),
		n.addBlocks(list, push.blocks, biasScratch, a.DBias, a.Items, n.config.C),
	)
}

func (n *LayerNormBackward) check(a LayerNormBackwardArgs) error {
	const op = "LayerNormBackward"
	items, rows, c := dim{"Items", a.Items}, dim{"Rows", a.Rows}, dim{"C", n.config.C}
	align := rowAlign(c.n)
	if err := firstError(checkPositive(op, items, rows, dim{"Items*Rows", a.Items * a.Rows}), checkSumItems(op, n.config.SumItems, items)); err != nil {
		return err
	}
	return firstError(
		checkTensor(op, "x", a.X, align, f32, items, rows, c),
		checkTensor(op, "weight", a.Weight, align, f32, c),
		checkTensor(op, "dy", a.DY, n.config.DY.rowAlign(c.n), n.config.DY.element(), items, rows, c),
		checkTensor(op, "dx", a.DX, align, f32, items, rows, c),
		checkNormBase(op, a.Base, n.config.Add, c.n, []dim{items, rows, c}),
		checkTensor(op, "dweight", a.DWeight, wordAlign, f32, parameterShape(n.config.SumItems, items, c)...),
		checkTensor(op, "dbias", a.DBias, wordAlign, f32, parameterShape(n.config.SumItems, items, c)...),
		checkScratch(op, a.Scratch, LayerNormBackwardScratch(a.Items, a.Rows, n.config.C), "LayerNormBackwardScratch"),
	)
}

// fusedKernel returns the kernel of all gradients.
func (n *LayerNormBackward) fusedKernel() (*vk.Kernel, error) {
	return n.kernels.get("layernorm_backward_fused", "layernorm_backward_fused", false, fusedNormSpec(n.config.C, n.config.Add, n.config.DY))
}

// rowKernel returns the kernel of dx.
func (n *LayerNormBackward) rowKernel() (*vk.Kernel, error) {
	return n.kernels.get("layernorm_backward", "layernorm_backward", false, map[uint32]uint32{
		shaders.RowNormInvocationsPerRow:  n.invocationsPerRow,
		shaders.RowNormRowsPerWorkgroup:   n.rowsPerGroup,
		shaders.LayerNormBackwardChannels: uint32(n.config.C),
		shaders.LayerNormBackwardAddDx:    specBool(n.config.Add),
	})
}

// sumKernel returns the kernel of dweight and dbias, for one block of rows or several.
func (n *LayerNormBackward) sumKernel(add bool) (*vk.Kernel, error) {
	return n.kernels.get("layernorm_backward_parameters", "layernorm_backward_parameters", false, map[uint32]uint32{
		shaders.ColumnSumChannels: uint32(n.config.C), shaders.ColumnSumAddSum: specBool(add),
	})
}

// Close frees the kernels. It may be called again, and on nil.
func (n *LayerNormBackward) Close() error {
	if n == nil {
		return nil
	}
	return n.close()
}
