package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// LayerNorm shifts and scales rows to mean 0 and variance 1, then by weight and bias; and adds a table to them, such as positions.
//
//	x [Rows, C] f32 in    weight [C] f32 in    bias [C] f32 in    add [Period, C] f32 in, with Add
//	y [Rows, C] out, f32, may be x then, or in the config's precision
//	y[r] = (x[r] - mean) / sqrt(var + 1e-5) * weight + bias (+ add[r % Period])    var is the biased variance
//
// The mean comes first, then the squares of what is left, so that rows with a large mean stay accurate. Where C is a multiple of 4
// ranges start at multiples of 16 bytes, otherwise at multiples of 4.
//
// Shader: shaders/layernorm.comp. Reference: internal/ref.LayerNorm. Source: arXiv 1607.06450.
type LayerNorm struct {
	config       LayerNormConfig
	rowsPerGroup uint64 // of a workgroup
	kernel       *vk.Kernel
}

// LayerNormConfig is what is baked into the kernel.
type LayerNormConfig struct {
	C   int   // floats of a row
	Add bool  // add rows of a table behind the norm
	Y   DType // of y; with 16 bits C is a multiple of 4
}

// LayerNormArgs is one dispatch. It reads all ranges but Y, which it writes whole.
type LayerNormArgs struct {
	X            vk.Range // [Rows, C]
	Weight, Bias vk.Range // [C]
	Add          vk.Range // [Period, C]; absent without the config's Add
	Y            vk.Range // [Rows, C]; may be the same range as X
	Rows         int
	Period       int // rows of Add; 0 without the config's Add
}

type layerNormPush struct{ rows, period uint32 }

const (
	_ = uint(8 - unsafe.Sizeof(layerNormPush{}))
	_ = uint(unsafe.Sizeof(layerNormPush{}) - 8)
)

// NewLayerNorm compiles the kernel for a device.
func NewLayerNorm(dev *vk.Device, c LayerNormConfig) (*LayerNorm, error) {
	if err := checkRowLength("LayerNorm", c.C); err != nil {
		return nil, err
	}
	if err := c.Y.checkNormed("LayerNorm", c.C); err != nil {
		return nil, err
	}
	name, cols := rowVariant("layernorm", c.C)
	lanes, rows := normLanes(c.C, 64)
	if err := checkIterations(dev.Caps(), "LayerNorm", fmt.Sprintf("a row of %d floats", c.C), int(3*(cols/lanes+1))); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, name, map[uint32]uint32{0: lanes, 1: rows, 2: cols, 3: specBool(c.Add), 4: uint32(c.Y)})
	if err != nil {
		return nil, fmt.Errorf("pipelines: LayerNorm: %w", err)
	}
	return &LayerNorm{config: c, rowsPerGroup: uint64(rows), kernel: k}, nil
}

// Record adds the dispatch to a tape.
func (n *LayerNorm) Record(t *vk.CommandList, a LayerNormArgs) error {
	const op = "LayerNorm"
	if err := n.check(a); err != nil {
		return err
	}
	groups, err := workgroups(t.Device().Caps(), op, (uint64(a.Rows)+n.rowsPerGroup-1)/n.rowsPerGroup)
	if err != nil {
		return err
	}
	return t.Dispatch(vk.Dispatch{
		Kernel: n.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Weight), vk.Read(a.Bias), vk.Read(a.Add), vk.Write(a.Y)},
		Push:   vk.Scalars(&layerNormPush{uint32(a.Rows), uint32(a.Period)}),
		Flops:  8 * float64(a.Rows) * float64(n.config.C),
		Bytes:  float64(a.X.Size() + a.Y.Size() + a.Weight.Size() + a.Bias.Size() + a.Add.Size()),
	})
}

func (n *LayerNorm) check(a LayerNormArgs) error {
	const op = "LayerNorm"
	rows, c, period := dim{"Rows", a.Rows}, dim{"C", n.config.C}, dim{"Period", a.Period}
	if err := checkPositive(op, rows); err != nil {
		return err
	}
	align := rowAlign(c.n)
	if err := firstError(
		checkTensor(op, "x", a.X, align, f32, rows, c),
		checkTensor(op, "weight", a.Weight, align, f32, c),
		checkTensor(op, "bias", a.Bias, align, f32, c),
		checkTensor(op, "y", a.Y, n.config.Y.rowAlign(c.n), n.config.Y.element(), rows, c),
	); err != nil {
		return err
	}
	if !n.config.Add {
		if !a.Add.IsZero() || a.Period != 0 {
			return fmt.Errorf("pipelines: %s: add has %d bytes and Period is %d, want neither: the config's Add is off", op, a.Add.Size(), a.Period)
		}
		return nil
	}
	if err := checkPositive(op, period); err != nil {
		return err
	}
	return checkTensor(op, "add", a.Add, align, f32, period, c)
}

// Close frees the kernel.
func (n *LayerNorm) Close() error {
	if n == nil {
		return nil
	}
	return n.kernel.Close()
}
