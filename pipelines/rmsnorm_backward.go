package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RMSNormBackward is the gradient of [RMSNorm]: that of the rows, and that of gamma for each item of a batch.
//
//	x [Items, Rows, C] f32 in    gamma [C] f32 in    dy [Items, Rows, C] f32, or with the config's DY of 16 bits, in
//	dx [Items, Rows, C] f32 out; with the config's Add in and out    base the same, in, optional    dgamma [Items, C] f32 out; with AddGamma in and out
//	dx[b, r]  (+)= (g - u * (u . g)) * sqrt(C) / |x[b, r]|    with u = x[b, r] / |x[b, r]| and g = gamma * dy[b, r]
//	dgamma[b] (+)= sum of dy[b, r] * u * sqrt(C) over r
//
// With base, dx is its sum with the gradient. With SumItems, dgamma [C] is the sum over up to 8 items, added as TreeSum does. A length of at most 1e-12 is a constant 1e-12: then the term u * (u . g) is 0.
//
// With the config's Gather, dy are the gradients of gathered rows, as in RMSNorm, and dx is added to:
//
//	x, dx [Items, InRows, C]    gather [Items, Lists, Rows] i32 in    valid [Items, Lists, Rows] u32 in, optional
//
// Row r of dy belongs to row gather[r] of that item. Nothing is added where valid is 0 or gather names no row. No two
// other slots of a list may name the same row: the result of such a race is undefined.
//
// Rows have any length, but for what exceeds float32: gradients of rows longer than 1e38 may be 0. The order of
// summation depends on C and Rows alone. Ranges start at multiples of 4 bytes, rows of a multiple of 4 elements at
// multiples of 16.
//
// Shader: shaders/src/rmsnorm_backward.comp. CPU reference: internal/ref.RMSNormBackward.
type RMSNormBackward struct {
	config RMSNormBackwardConfig
	normBackward
}

// RMSNormBackwardConfig is fixed when the kernel is compiled.
type RMSNormBackwardConfig struct {
	C        int  // elements of a row
	Gather   bool // the rows were gathered; with it dx is always added to
	Add      bool // add to dx
	AddGamma bool // add to dgamma

	SumItems bool // dgamma [C] is the sum over the items, MaxSumItems of them at most; FusedNormBackward(C) is true then

	DY DType // of dy: F32, F16 or BF16; with 16 bits FusedNormBackward(C) is true
}

// RMSNormBackwardArgs names the memory and the sizes. Outputs overlap no other range.
type RMSNormBackwardArgs struct {
	X       vk.Range // [Items, Rows, C], with Gather [Items, InRows, C]
	Gamma   vk.Range // [C]
	DY      vk.Range // [Items, Rows, C]
	DX      vk.Range // the shape of X
	Base    vk.Range // with the config's Add, if FusedNormBackward(C): the shape of X, to which dx is added; absent: DX itself
	DGamma  vk.Range // [Items, C]; with SumItems [C]
	Scratch vk.Range // of RMSNormBackwardScratch bytes
	Items   int      // batch items; 0: 1
	Rows    int      // of each item of dy

	Gather vk.Range // with the config's Gather: [Items, Lists, Rows]
	Valid  vk.Range // with Gather: [Items, Lists, Rows] 0: an empty slot; absent: all slots are valid
	InRows int      // with Gather: rows of x per item; else 0
	Lists  int      // with Gather: lists per item; 0: 1
	List   int      // with Gather: the list to use, 0 to Lists-1
}

// The pushes of the kernels follow nine addresses.
type (
	rmsNormFusedPush struct {
		rows, inRows, lists, list uint32
		blocks                    normBlocksPush
	}
	rmsNormBackwardPush   struct{ rows, inRows, lists, list, allRows uint32 }
	rmsNormParametersPush struct{ rows, inRows, lists, list, rowsPerBlock, blocks, allBlocks uint32 }
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(rmsNormBackwardPush{})-20]
	_ = [1]struct{}{}[unsafe.Sizeof(rmsNormParametersPush{})-28]
	_ = [1]struct{}{}[unsafe.Sizeof(rmsNormFusedPush{})-28]
)

// RMSNormBackwardScratch is the size of the scratch memory in bytes: the sums of blocks of rows, and two factors of each
// row unless FusedNormBackward(c) is true.
func RMSNormBackwardScratch(items, rows, c int) uint64 {
	if items < 0 || rows < 1 || c < 1 {
		return 0
	}
	if FusedNormBackward(c) {
		return normBackwardScratch(items, rows, c, 1)
	}
	return 8*uint64(max(items, 1))*uint64(rows) + ColumnSumScratch(items, rows, c)
}

// NewRMSNormBackward checks the config. Record compiles kernels when it first needs them.
func NewRMSNormBackward(dev *vk.Device, c RMSNormBackwardConfig) (*RMSNormBackward, error) {
	c.Add = c.Add || c.Gather
	n := &RMSNormBackward{config: c}
	if err := n.init(dev, "RMSNormBackward", c.C, c.DY, 3, c.AddGamma, c.SumItems); err != nil { // two passes for the sums, one to write dx
		return nil, err
	}
	return n, nil
}

// Record appends two dispatches to a command list, or three with many rows.
func (n *RMSNormBackward) Record(list *vk.CommandList, a RMSNormBackwardArgs) error {
	const op = "RMSNormBackward"
	if a.Items == 0 {
		a.Items = 1
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	if err := n.check(a); err != nil {
		return err
	}
	if !n.config.Gather {
		a.InRows = a.Rows
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
	add := n.config.AddGamma && sums.blocks == 1
	sumKernel, err := n.sumKernel(add)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	factors, sum := a.Scratch.Slice(0, 8*rows), a.DGamma
	if sums.blocks > 1 {
		sum = a.Scratch.Slice(8*rows, a.Scratch.Size()-8*rows)
	}
	elements, lists := float64(rows)*float64(n.config.C), (a.Gather.Size()+a.Valid.Size())/uint64(a.Lists)
	args := []vk.Access{vk.Read(a.X), vk.Read(a.Gamma), vk.Read(a.DY), writeAccess(a.DX, n.config.Add), {}, vk.Write(factors),
		vk.Read(a.Gather), vk.Read(a.Valid), {}}
	err = list.Dispatch(vk.Dispatch{
		Kernel: rowKernel, Groups: groups, Args: args,
		Push:  vk.Scalars(&rmsNormBackwardPush{uint32(a.Rows), uint32(a.InRows), uint32(a.Lists), uint32(a.List), uint32(rows)}),
		Flops: 10 * elements, Bytes: 8*elements + accesses(n.config.Add)*4*elements + float64(a.Gamma.Size()+factors.Size()+lists),
	})
	if err != nil {
		return err
	}
	args = []vk.Access{vk.Read(a.X), {}, vk.Read(a.DY), {}, writeAccess(sum, add), vk.Read(factors), vk.Read(a.Gather), vk.Read(a.Valid), {}}
	err = list.Dispatch(vk.Dispatch{
		Kernel: sumKernel, Groups: sumGroups, Args: args,
		Push: vk.Scalars(&rmsNormParametersPush{uint32(a.Rows), uint32(a.InRows), uint32(a.Lists), uint32(a.List),
			sums.rowsPerBlock, sums.blocks, sums.allBlocks}),
		Flops: 3 * elements, Bytes: 8*elements + float64(factors.Size()+lists) + accesses(add)*float64(sum.Size()),
	})
	if err != nil || sums.blocks == 1 {
		return err
	}
	return n.blocks.Record(list, ColumnSumArgs{X: sum, Y: a.DGamma, Batch: a.Items, Rows: int(sums.blocks)})
}

// recordFused appends the fused kernel, and the sum of its blocks.
func (n *RMSNormBackward) recordFused(list *vk.CommandList, a RMSNormBackwardArgs) error {
	const op = "RMSNormBackward"
	push := rmsNormFusedPush{uint32(a.Rows), uint32(a.InRows), uint32(a.Lists), uint32(a.List), newNormBlocksPush(a.Items, a.Rows, n.config.C)}
	groups, err := workgroups(list.Device().Caps(), op, uint64(push.blocks.allBlocks))
	if err != nil {
		return err
	}
	kernel, err := n.fusedKernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	sums := push.blocks.sums(a.Scratch, n.config.C)
	elements := float64(a.Items) * float64(a.Rows) * float64(n.config.C)
	dx, base := dxAccess(a.DX, a.Base, n.config.Add)
	err = list.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Push: vk.Scalars(&push),
		Args:  []vk.Access{vk.Read(a.X), vk.Read(a.Gamma), vk.Read(a.DY), dx, vk.Write(sums), {}, vk.Read(a.Gather), vk.Read(a.Valid), base},
		Flops: 12 * elements, Bytes: 4*elements + float64(a.DY.Size()) + accesses(n.config.Add)*4*elements +
			float64(a.Gamma.Size()+sums.Size()+(a.Gather.Size()+a.Valid.Size())/uint64(a.Lists)),
	})
	if err != nil {
		return err
	}
	return n.addBlocks(list, push.blocks, a.Scratch, a.DGamma, a.Items, n.config.C)
}

func (n *RMSNormBackward) check(a RMSNormBackwardArgs) error {
	const op = "RMSNormBackward"
	c, rows, inRows := dim{"C", n.config.C}, dim{"Rows", a.Rows}, dim{"InRows", a.InRows}
	items, lists := dim{"Items", a.Items}, dim{"Lists", a.Lists}
	products := []dim{{"Items*Rows", a.Items * a.Rows}, {"Items*Lists*Rows", a.Items * a.Rows * a.Lists}}
	if err := firstError(checkPositive(op, rows, items, lists), checkPositive(op, products...), checkSumItems(op, n.config.SumItems, items)); err != nil {
		return err
	}
	gather := n.config.Gather
	switch {
	case !gather && (a.InRows != 0 || a.Lists != 1 || a.List != 0 || !a.Gather.IsZero() || !a.Valid.IsZero()):
		return fmt.Errorf("pipelines: %s: InRows, Lists, List, gather or valid is set, want none: the config's Gather is off", op)
	case a.List < 0 || a.List >= a.Lists:
		return fmt.Errorf("pipelines: %s: List is %d, want 0 to %d", op, a.List, a.Lists-1)
	}
	x := []dim{items, rows, c}
	if gather {
		x[1] = inRows
		if err := firstError(
			checkPositive(op, inRows, dim{"Items*InRows", a.Items * a.InRows}),
			checkTensor(op, "gather", a.Gather, wordAlign, i32, items, lists, rows),
			checkOptional(op, "valid", a.Valid, wordAlign, u32, items, lists, rows),
		); err != nil {
			return err
		}
	}
	return firstError(
		checkTensor(op, "x", a.X, rowAlign(c.n), f32, x...),
		checkTensor(op, "gamma", a.Gamma, rowAlign(c.n), f32, c),
		checkTensor(op, "dy", a.DY, n.config.DY.rowAlign(c.n), n.config.DY.element(), items, rows, c),
		checkTensor(op, "dx", a.DX, rowAlign(c.n), f32, x...),
		checkNormBase(op, a.Base, n.config.Add, c.n, x),
		checkTensor(op, "dgamma", a.DGamma, wordAlign, f32, parameterShape(n.config.SumItems, items, c)...),
		checkScratch(op, a.Scratch, RMSNormBackwardScratch(a.Items, a.Rows, n.config.C), "RMSNormBackwardScratch"),
	)
}

// fusedKernel returns the kernel of dx and dgamma.
func (n *RMSNormBackward) fusedKernel() (*vk.Kernel, error) {
	spec := fusedNormSpec(n.config.C, n.config.Add, n.config.DY)
	spec[shaders.RMSNormBackwardGather] = specBool(n.config.Gather)
	return n.kernels.get("rmsnorm_backward_fused", "rmsnorm_backward_fused", false, spec)
}

// rowKernel returns the kernel of dx.
func (n *RMSNormBackward) rowKernel() (*vk.Kernel, error) {
	return n.kernels.get("rmsnorm_backward", "rmsnorm_backward", false, map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: n.invocationsPerRow,
		shaders.RowNormRowsPerWorkgroup:  n.rowsPerGroup,
		shaders.RMSNormBackwardChannels:  uint32(n.config.C),
		shaders.RMSNormBackwardGather:    specBool(n.config.Gather),
		shaders.RMSNormBackwardAddDx:     specBool(n.config.Add),
	})
}

// sumKernel returns the kernel of dgamma, for one block of rows or several.
func (n *RMSNormBackward) sumKernel(add bool) (*vk.Kernel, error) {
	return n.kernels.get("rmsnorm_backward_parameters", "rmsnorm_backward_parameters", false, map[uint32]uint32{
		shaders.ColumnSumChannels:     uint32(n.config.C),
		shaders.RMSNormBackwardGather: specBool(n.config.Gather),
		shaders.ColumnSumAddSum:       specBool(add),
	})
}

// Close frees the kernels. It may be called again, and on nil.
func (n *RMSNormBackward) Close() error {
	if n == nil {
		return nil
	}
	return n.close()
}
