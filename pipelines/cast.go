package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Cast converts rows of float32 to the 16-bit weights of a product. It rounds to nearest, ties to even; values that are
// too large become infinite.
//
//	x [Rows, C] f32 in    y [Rows, Columns(C)] out in the Precision, zeros after the first C elements of a row
//
// Shader: shaders/src/cast.comp. CPU reference: internal/ref.Cast.
type Cast struct {
	config  CastConfig
	kernels kernelCache
}

// CastConfig is fixed when the kernel is compiled.
type CastConfig struct {
	C         int   // elements of a row of x
	Precision DType // F16 or BF16
}

// CastArgs is one dispatch.
type CastArgs struct {
	X, Y vk.Range
	Rows int
}

type castPush struct{ rows uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(castPush{})-4]

// NewCast makes a cast for a device. Its kernel is compiled when it is first recorded.
func NewCast(dev *vk.Device, c CastConfig) (*Cast, error) {
	const op = "Cast"
	if err := firstError(checkRowLength(op, c.C), c.Precision.checkPrecision(op)); err != nil {
		return nil, err
	}
	if c.Precision == F32 {
		return nil, fmt.Errorf("pipelines: %s: Precision is f32, want f16 or bf16", op)
	}
	return &Cast{config: c, kernels: kernelCache{dev: dev}}, nil
}

func (c *Cast) columns() int { return c.config.Precision.Columns(c.config.C) }

func (c *Cast) kernel() (*vk.Kernel, error) {
	return c.kernels.get("cast", "cast", false, map[uint32]uint32{
		shaders.CastXColumns: uint32(c.config.C), shaders.CastYColumns: uint32(c.columns()), shaders.CastYDType: uint32(c.config.Precision),
	})
}

// Record appends a dispatch to a command list.
func (c *Cast) Record(list *vk.CommandList, a CastArgs) error {
	const op, pairsPerGroup = "Cast", 1024 // pairs of elements, one per 32-bit word
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
	groups, err := workgroups(list.Device().Caps(), op, uint64(a.Rows)*ceilDiv(uint64(columns/2), pairsPerGroup))
	if err != nil {
		return err
	}
	kernel, err := c.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return list.Dispatch(vk.Dispatch{
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
