package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// RMSNorm scales rows to length sqrt(C), then by gamma; and writes the factors of the rows for kernels that normalise on their way.
//
//	x [Rows, C] f32 in    gamma [C] f32 in    y [Rows, C] f32 out, or in the config's precision    factors [Rows] f32 out
//	gather [Items, Lists, Rows] i32 in    filled [Items, Lists, Rows] u32 in, optional
//	y[r, i] = x[r, i] * factors[r] * gamma[i]    factors[r] = sqrt(C) / max(|x[r]|, 1e-12)
//
// With Gather x is [Items, InRows, C], y [Items, Rows, C], and row r of an item's y that of row gather[r] of its x; zeros where there is
// no such row, or where its filled word is 0. Of several lists, those of a router's routes, one is taken.
//
// Shader: shaders/rmsnorm.comp. Reference: internal/ref.RMSNorm. Source: arXiv 1910.07467.
type RMSNorm struct {
	config       RMSNormConfig
	lanes        uint32 // that share a row
	rowsPerGroup uint32 // of a workgroup
	kernels      kernelCache
}

// RMSNormConfig is baked into the kernel.
type RMSNormConfig struct {
	C int   // model dim, >= 1
	Y DType // of y; with 16 bits C is a multiple of 4

	Gather bool // with Y, without Factors
}

// RMSNormArgs names memory and sizes of one dispatch. Y or Factors may be absent, not both; without Y there is no Gamma.
type RMSNormArgs struct {
	X, Gamma, Y, Factors vk.Range
	Rows                 int // of y, of an item

	// With the config's Gather.
	Gather, Valid vk.Range
	Items         int // 0: 1
	InRows        int // rows of x of an item
	Lists, List   int // of gather and filled: how many an item (0: 1), and which is taken
}

type rmsNormPush struct{ rows, perList, inRows, lists, list uint32 }

var _ [20 - unsafe.Sizeof(rmsNormPush{})]byte
var _ [unsafe.Sizeof(rmsNormPush{}) - 20]byte

// NewRMSNorm makes a norm for a device. Its kernel is compiled when it is first recorded.
func NewRMSNorm(dev *vk.Device, c RMSNormConfig) (*RMSNorm, error) {
	if err := checkRowLength("RMSNorm", c.C); err != nil {
		return nil, err
	}
	if err := c.Y.checkNormed("RMSNorm", c.C); err != nil {
		return nil, err
	}
	const invocations = 256
	lanes := uint32(4)
	for lanes < 64 && 8*int(lanes) < c.C {
		lanes *= 2
	}
	around := 2 * (c.C/int(lanes) + 1)
	if c.C%4 == 0 {
		around /= 4
	}
	if err := checkIterations(dev.Caps(), "RMSNorm", fmt.Sprintf("a row of %d floats", c.C), around); err != nil {
		return nil, err
	}
	return &RMSNorm{config: c, lanes: lanes, rowsPerGroup: invocations / lanes, kernels: kernelCache{dev: dev}}, nil
}

func (n *RMSNorm) kernel() (*vk.Kernel, error) {
	c := n.config
	return n.kernels.get("rmsnorm", "rmsnorm", false, map[uint32]uint32{
		0: n.lanes, 1: n.rowsPerGroup, 2: uint32(c.C), 3: specBool(c.C%4 == 0), 4: uint32(c.Y), 5: specBool(c.Gather)})
}

// Record adds a dispatch to a tape.
func (n *RMSNorm) Record(t *vk.CommandList, a RMSNormArgs) error {
	if a.Items == 0 {
		a.Items = 1
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	if err := n.check(a); err != nil {
		return err
	}
	c, all := n.config, uint64(a.Items)*uint64(a.Rows)
	groups, err := workgroups(t.Device().Caps(), "RMSNorm", ceilDiv(all, uint64(n.rowsPerGroup)))
	if err != nil {
		return err
	}
	kernel, err := n.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: RMSNorm: %w", err)
	}
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Gamma), vk.Write(a.Y), vk.Write(a.Factors), vk.Read(a.Gather), vk.Read(a.Valid)},
		Push:   vk.Scalars(&rmsNormPush{uint32(all), uint32(a.Rows), uint32(a.InRows), uint32(a.Lists), uint32(a.List)}),
		Flops:  4 * float64(all) * float64(c.C),
		Bytes:  4*float64(all)*float64(c.C) + float64(a.Y.Size()+a.Factors.Size()+a.Gamma.Size()+(a.Gather.Size()+a.Valid.Size())/uint64(a.Lists)),
	})
}

// check compares the arguments with the config and the sizes.
func (n *RMSNorm) check(a RMSNormArgs) error {
	const op = "RMSNorm"
	if err := firstError(checkPositive(op, dim{"Rows", a.Rows}, dim{"Items", a.Items}, dim{"Lists", a.Lists}),
		checkPositive(op, dim{"Items*Rows", a.Items * a.Rows})); err != nil {
		return err
	}
	if err := checkPositive(op, dim{"Items*Lists*Rows", a.Items * a.Rows * a.Lists}); err != nil { // of three factors that are not checked 64 bits overflow
		return err
	}
	c, y, rows, source := dim{"C", n.config.C}, n.config.Y, []dim{{"Rows", a.Rows}}, []dim{{"Rows", a.Rows}}
	switch {
	case a.Y.IsZero() && a.Factors.IsZero():
		return fmt.Errorf("pipelines: RMSNorm: y and factors are both missing, want one of them or both")
	case a.Y.IsZero() != a.Gamma.IsZero():
		return fmt.Errorf("pipelines: RMSNorm: gamma and y go together, want both or neither")
	case !n.config.Gather && (a.Items != 1 || a.InRows != 0 || a.Lists != 1 || a.List != 0 || !a.Gather.IsZero() || !a.Valid.IsZero()):
		return fmt.Errorf("pipelines: RMSNorm: Items, InRows, lists, gather or filled are given, want none: the config's Gather is off")
	case n.config.Gather && !a.Factors.IsZero():
		return fmt.Errorf("pipelines: RMSNorm: factors has %d bytes, want none with Gather", a.Factors.Size())
	case a.List < 0 || a.List >= a.Lists:
		return fmt.Errorf("pipelines: RMSNorm: List is %d, want 0 to %d", a.List, a.Lists-1)
	}
	if n.config.Gather {
		items, in, lists := dim{"Items", a.Items}, dim{"InRows", a.InRows}, dim{"Lists", a.Lists}
		if err := checkPositive(op, in, dim{"Items*InRows", a.Items * a.InRows}); err != nil {
			return err
		}
		rows, source = []dim{items, {"Rows", a.Rows}}, []dim{items, in}
		list := []dim{items, lists, {"Rows", a.Rows}}
		if err := firstError(checkTensor(op, "gather", a.Gather, wordAlign, i32, list...), checkOptional(op, "filled", a.Valid, wordAlign, u32, list...)); err != nil {
			return err
		}
	}
	return firstError(
		checkTensor(op, "x", a.X, rowAlign(c.n), f32, append(source, c)...),
		checkOptional(op, "gamma", a.Gamma, rowAlign(c.n), f32, c),
		checkOptional(op, "y", a.Y, y.rowAlign(c.n), y.element(), append(rows, c)...),
		checkOptional(op, "factors", a.Factors, wordAlign, f32, rows...),
	)
}

// Close frees the kernel.
func (n *RMSNorm) Close() error {
	if n == nil {
		return nil
	}
	return n.kernels.close()
}
