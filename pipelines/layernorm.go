package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// LayerNorm normalises every row to mean 0 and variance 1, then applies weight and bias. With the config's Add it also
// adds a table to the result, such as position embeddings.
//
//	x [Rows, C] f32 in    weight [C] f32 in    bias [C] f32 in    add [Period, C] f32 in, with Add
//	y [Rows, C] f32, f16 or bf16 out; as f32 it may be x
//	y[r] = (x[r] - mean) / sqrt(var + 1e-5) * weight + bias (+ add[r % Period])    var is the biased variance
//
// The variance is computed from the differences to the mean, so that rows with a large mean stay accurate. The sum of
// their squares must not overflow: the length of a row, less its mean, is below 1.8e19. Ranges start
// at multiples of 16 bytes where C is a multiple of 4, else at multiples of 4.
//
// Shader: shaders/src/layernorm.comp. CPU reference: internal/ref.LayerNorm. Source: arXiv 1607.06450.
type LayerNorm struct {
	config       LayerNormConfig
	rowsPerGroup uint64
	kernel       *vk.Kernel
}

// LayerNormConfig is fixed when the kernel is compiled.
type LayerNormConfig struct {
	C   int   // elements of a row
	Add bool  // add rows of a table to the normalised rows
	Y   DType // element type of y: F32, or F16 or BF16 where C is a multiple of 4
}

// LayerNormArgs names the memory and the sizes of one dispatch. It writes all of Y.
type LayerNormArgs struct {
	X            vk.Range // [Rows, C]
	Weight, Bias vk.Range // [C]
	Add          vk.Range // [Period, C]; absent without the config's Add
	Y            vk.Range // [Rows, C]; may be X
	Rows         int
	Period       int // rows of Add; 0 without the config's Add
}

type layerNormPush struct{ rows, period uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(layerNormPush{})-8]

// NewLayerNorm compiles the kernel.
func NewLayerNorm(dev *vk.Device, c LayerNormConfig) (*LayerNorm, error) {
	const op = "LayerNorm"
	if err := firstError(checkRowLength(op, c.C), c.Y.checkNormed(op, c.C)); err != nil {
		return nil, err
	}
	name, cols := rowVariant("layernorm", c.C)
	invocationsPerRow, rows := normInvocationsPerRow(c.C, 64)
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("a row of %d floats", c.C), int(3*(cols/invocationsPerRow+1))); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, name, map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: invocationsPerRow,
		shaders.RowNormRowsPerWorkgroup:  rows,
		shaders.LayerNormColumns:         cols,
		shaders.LayerNormAdd:             specBool(c.Add),
		shaders.LayerNormYDType:          uint32(c.Y),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &LayerNorm{config: c, rowsPerGroup: uint64(rows), kernel: k}, nil
}

// Record appends one dispatch to a command list.
func (n *LayerNorm) Record(list *vk.CommandList, a LayerNormArgs) error {
	if err := n.check(a); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), "LayerNorm", ceilDiv(uint64(a.Rows), n.rowsPerGroup))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
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

// Close frees the kernel. It may be called again, and on nil.
func (n *LayerNorm) Close() error {
	if n == nil {
		return nil
	}
	return n.kernel.Close()
}
