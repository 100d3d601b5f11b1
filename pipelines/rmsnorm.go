package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// RMSNorm divides every row by its root mean square and multiplies it by gamma. It writes the normalised rows, or the
// factors of the rows, or both. The factors are for callers: no kernel of this package reads them. Linear computes its
// own.
//
//	x [Rows, C] f32 in    gamma [C] f32 in    y [Rows, C] f32, f16 or bf16 out    factors [Rows] f32 out
//	y[r, i]    = x[r, i] * factors[r] * gamma[i]
//	factors[r] = sqrt(C) / max(|x[r]|, 1e-12)
//
// With the config's Gather the rows are gathered, separately in each batch item, and there are no factors:
//
//	x [Items, InRows, C] f32 in    gather [Items, Lists, Rows] i32 in    valid [Items, Lists, Rows] u32 in, optional
//	y [Items, Rows, C] out
//	y[item, r] = RMSNorm of x[item, gather[item, List, r]]
//
// A row has any length with y in f32; its length is below 1.8e19 with 16 bits, so that its sum of squares is finite.
//
// A row of y is zero where valid is 0, and where gather names no row of x. A router with several routes has a list for
// each route; a dispatch uses one of them.
//
// Shader: shaders/src/rmsnorm.comp. CPU reference: internal/ref.RMSNorm. Source: arXiv 1910.07467.
type RMSNorm struct {
	config            RMSNormConfig
	invocationsPerRow uint32 // invocations that share a row
	rowsPerGroup      uint32
	kernels           kernelCache
}

// RMSNormConfig is fixed when the kernel is compiled.
type RMSNormConfig struct {
	C      int   // elements of a row, at least 1
	Y      DType // element type of y: F32, or F16 or BF16 where C is a multiple of 4
	Gather bool  // gather the rows of x
}

// RMSNormArgs names the memory and the sizes of one dispatch. Gamma and Y are both present or both absent; without them
// Factors is present.
type RMSNormArgs struct {
	X, Gamma, Y, Factors vk.Range
	Rows                 int // of y; with Gather, of each item of y

	Gather vk.Range // with the config's Gather: [Items, Lists, Rows]
	Valid  vk.Range // with Gather: [Items, Lists, Rows] 0: an empty slot; absent: all slots are valid
	Items  int      // with Gather: batch items; 0: 1
	InRows int      // with Gather: rows of x per item; else 0
	Lists  int      // with Gather: lists per item; 0: 1
	List   int      // with Gather: the list to use, 0 to Lists-1
}

// rmsNormPush follows the addresses in the push constants of the shader.
type rmsNormPush struct{ rows, perList, inRows, lists, list uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(rmsNormPush{})-20] // compiles only if the size is 20 bytes

// NewRMSNorm checks the config. Record compiles the kernel when it first needs it.
func NewRMSNorm(dev *vk.Device, c RMSNormConfig) (*RMSNorm, error) {
	const op = "RMSNorm"
	if err := firstError(checkRowLength(op, c.C), c.Y.checkNormed(op, c.C)); err != nil {
		return nil, err
	}
	invocationsPerRow, rows := normInvocationsPerRow(c.C, 64)
	iterations := 3 * (c.C/int(invocationsPerRow) + 1) // two passes for the sum of squares, one to write y
	if c.C%4 == 0 {
		iterations /= 4
	}
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("a row of %d floats", c.C), iterations); err != nil {
		return nil, err
	}
	return &RMSNorm{config: c, invocationsPerRow: invocationsPerRow, rowsPerGroup: rows, kernels: kernelCache{dev: dev}}, nil
}

// Record appends one dispatch to a command list.
func (n *RMSNorm) Record(list *vk.CommandList, a RMSNormArgs) error {
	const op = "RMSNorm"
	if a.Items == 0 {
		a.Items = 1
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	if err := n.check(a); err != nil {
		return err
	}
	rows := uint64(a.Items) * uint64(a.Rows)
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(rows, uint64(n.rowsPerGroup)))
	if err != nil {
		return err
	}
	kernel, err := n.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	elements := float64(rows) * float64(n.config.C)
	lists := a.Gather.Size() + a.Valid.Size() // of which the kernel reads one
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Gamma), vk.Write(a.Y), vk.Write(a.Factors), vk.Read(a.Gather), vk.Read(a.Valid)},
		Push: vk.Scalars(&rmsNormPush{
			rows: uint32(rows), perList: uint32(a.Rows), inRows: uint32(a.InRows), lists: uint32(a.Lists), list: uint32(a.List),
		}),
		Flops: 4 * elements,
		Bytes: 4*elements + float64(a.Y.Size()+a.Factors.Size()+a.Gamma.Size()+lists/uint64(a.Lists)),
	})
}

func (n *RMSNorm) kernel() (*vk.Kernel, error) {
	spv := "rmsnorm"
	if n.config.Y != F32 {
		spv = "rmsnorm_16bit"
	}
	return n.kernels.get(spv, spv, false, map[uint32]uint32{
		shaders.RMSNormInvocationsPerRow: n.invocationsPerRow,
		shaders.RMSNormRowsPerWorkgroup:  n.rowsPerGroup,
		shaders.RMSNormChannels:          uint32(n.config.C),
		shaders.RMSNormVec4:              specBool(n.config.C%4 == 0),
		shaders.RMSNormYDType:            uint32(n.config.Y),
		shaders.RMSNormGather:            specBool(n.config.Gather),
	})
}

// check compares the arguments with the config.
func (n *RMSNorm) check(a RMSNormArgs) error {
	const op = "RMSNorm"
	c, rows, inRows := dim{"C", n.config.C}, dim{"Rows", a.Rows}, dim{"InRows", a.InRows}
	items, lists := dim{"Items", a.Items}, dim{"Lists", a.Lists}
	if err := checkPositive(op, rows, items, lists, dim{"Items*Rows", a.Items * a.Rows}, dim{"Items*Lists*Rows", a.Items * a.Rows * a.Lists}); err != nil {
		return err
	}
	gather := n.config.Gather
	switch {
	case a.Y.IsZero() && a.Factors.IsZero():
		return fmt.Errorf("pipelines: %s: y and factors are both missing, want at least one of them", op)
	case a.Y.IsZero() != a.Gamma.IsZero():
		return fmt.Errorf("pipelines: %s: gamma has %d bytes and y %d, want both or neither", op, a.Gamma.Size(), a.Y.Size())
	case gather && !a.Factors.IsZero():
		return fmt.Errorf("pipelines: %s: factors has %d bytes, want none with Gather", op, a.Factors.Size())
	case !gather && (a.Items != 1 || a.InRows != 0 || a.Lists != 1 || a.List != 0 || !a.Gather.IsZero() || !a.Valid.IsZero()):
		return fmt.Errorf("pipelines: %s: Items, InRows, Lists, List, gather or valid is set, want none: the config's Gather is off", op)
	case a.List < 0 || a.List >= a.Lists:
		return fmt.Errorf("pipelines: %s: List is %d, want 0 to %d", op, a.List, a.Lists-1)
	}
	x, y := []dim{rows, c}, []dim{rows, c}
	if gather {
		x, y = []dim{items, inRows, c}, []dim{items, rows, c}
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
		checkOptional(op, "gamma", a.Gamma, rowAlign(c.n), f32, c),
		checkOptional(op, "y", a.Y, n.config.Y.rowAlign(c.n), n.config.Y.element(), y...),
		checkOptional(op, "factors", a.Factors, wordAlign, f32, rows),
	)
}

// Close frees the kernel. It may be called again, and on nil.
func (n *RMSNorm) Close() error {
	if n == nil {
		return nil
	}
	return n.kernels.close()
}
