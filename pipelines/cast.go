package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Cast rounds rows of floats to 16 bits, as products want their weights: to nearest, ties to even; too large is infinity.
//
//	x [Rows, C] f32 in    y [Rows, Columns(C)] out in the precision, zeros behind the first C of a row
//
// Shader: shaders/cast.comp. Reference: internal/ref.Cast.
type Cast struct {
	config  CastConfig
	kernels kernelCache
}

// CastConfig is baked into the kernel.
type CastConfig struct {
	C         int   // numbers of a row of x
	Precision DType // F16 or BF16
}

// CastArgs is one dispatch.
type CastArgs struct {
	X, Y vk.Range
	Rows int
}

type castPush struct{ rows uint32 }

const (
	_ = uint(4 - unsafe.Sizeof(castPush{}))
	_ = uint(unsafe.Sizeof(castPush{}) - 4)
)

// NewCast makes a cast for a device. Its kernel is compiled when it is first recorded.
func NewCast(dev *vk.Device, c CastConfig) (*Cast, error) {
	if err := firstError(checkRowLength("Cast", c.C), c.Precision.checkPrecision("Cast")); err != nil {
		return nil, err
	}
	if c.Precision == F32 {
		return nil, fmt.Errorf("pipelines: Cast: Precision is F32, want F16 or BF16")
	}
	return &Cast{config: c, kernels: kernelCache{dev: dev}}, nil
}

func (c *Cast) columns() int { return c.config.Precision.Columns(c.config.C) }

func (c *Cast) kernel() (*vk.Kernel, error) {
	return c.kernels.get("cast", "cast", false, map[uint32]uint32{0: uint32(c.config.C), 1: uint32(c.columns()), 2: uint32(c.config.Precision)})
}

// Record adds a dispatch to a tape.
func (c *Cast) Record(t *vk.CommandList, a CastArgs) error {
	const op, words = "Cast", 1024 // of a workgroup
	if err := checkPositive(op, dim{"Rows", a.Rows}); err != nil {
		return err
	}
	p, rows, columns := c.config.Precision, dim{"Rows", a.Rows}, c.columns()
	if err := firstError(
		checkTensor(op, "x", a.X, wordAlign, f32, rows, dim{"C", c.config.C}),
		checkTensor(op, "y", a.Y, vec4Align, p.element(), rows, dim{"Columns(C)", columns}),
	); err != nil {
		return err
	}
	groups, err := vk.Grid(t.Device().Caps(), uint64(a.Rows)*ceilDiv(uint64(columns/2), words))
	if err != nil {
		return fmt.Errorf("pipelines: Cast: %w", err)
	}
	kernel, err := c.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: Cast: %w", err)
	}
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel, Groups: groups, Args: []vk.Access{vk.Read(a.X), vk.Write(a.Y)}, Push: vk.Scalars(&castPush{uint32(a.Rows)}),
		Bytes: float64(a.X.Size() + a.Y.Size()),
	})
}

// Close frees the kernel.
func (c *Cast) Close() error {
	if c == nil {
		return nil
	}
	return c.kernels.close()
}
