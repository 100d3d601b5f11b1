package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// GradientNorm is the Euclidean norm of the gradients of all parameters, for clipping, and whether one of them is
// infinite or NaN.
//
//	x [N] f32 in    norm [2] out: the norm, f32; overflow, u32
//	norm = sqrt(sum of x[i]^2)    overflow = 1 if an element is infinite or NaN, else 0
//
// Infinite elements and NaN count as 0 in the norm. Squares do not overflow; a norm above the largest float is
// infinite. The order of summation depends on N alone.
//
// Shader: shaders/src/gradient_norm.comp. CPU reference: internal/ref.GradientNorm.
type GradientNorm struct{ blocks, sum *vk.Kernel }

// GradientNormConfig has no fields: all sizes share the kernels.
type GradientNormConfig struct{}

// GradientNormArgs names the memory and the size.
type GradientNormArgs struct {
	X       vk.Range // [N]
	Norm    vk.Range // [2] words
	Scratch vk.Range // of GradientNormScratch bytes
	N       int
}

type gradientNormPush struct{ quads, rest uint32 } // after two addresses

type gradientNormSumPush struct{ blocks uint32 } // after two addresses

var (
	_ = [1]struct{}{}[unsafe.Sizeof(gradientNormPush{})-8]
	_ = [1]struct{}{}[unsafe.Sizeof(gradientNormSumPush{})-4]
)

const gradientNormBlock = 16384 // elements of a workgroup: 4 * QUADS_PER_BLOCK of the shader

// maxQuadElements is the size of the largest flat tensor of kernels that count groups of 4 elements in 32 bits.
const maxQuadElements = 1 << 34

// GradientNormScratch is the size of the scratch memory in bytes: the sums of blocks.
func GradientNormScratch(n int) uint64 {
	if n < 1 {
		return 0
	}
	return 16 * ceilDiv(uint64(n), gradientNormBlock)
}

// NewGradientNorm compiles the kernels.
func NewGradientNorm(dev *vk.Device, _ GradientNormConfig) (*GradientNorm, error) {
	blocks, err := newKernel(dev, "gradient_norm", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: GradientNorm: %w", err)
	}
	sum, err := newKernel(dev, "gradient_norm_sum", nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipelines: GradientNorm: %w", err), blocks.Close())
	}
	return &GradientNorm{blocks, sum}, nil
}

// Record appends two dispatches to a command list.
func (g *GradientNorm) Record(list *vk.CommandList, a GradientNormArgs) error {
	const op = "GradientNorm"
	if err := checkFlat(op, a.N); err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "x", a.X, vec4Align, f32, dim{"N", a.N}),
		checkTensor(op, "norm", a.Norm, wordAlign, u32, dim{"Words", 2}),
		checkRange(op, "scratch", a.Scratch, vec4Align, GradientNormScratch(a.N), "GradientNormScratch"),
	); err != nil {
		return err
	}
	blocks := ceilDiv(uint64(a.N), gradientNormBlock)
	groups, err := workgroups(list.Device().Caps(), op, blocks)
	if err != nil {
		return err
	}
	return firstError(
		list.Dispatch(vk.Dispatch{
			Kernel: g.blocks, Groups: groups,
			Args:  []vk.Access{vk.Read(a.X), vk.Write(a.Scratch)},
			Push:  vk.Scalars(&gradientNormPush{uint32(a.N / 4), uint32(a.N % 4)}),
			Flops: 2 * float64(a.N),
			Bytes: float64(a.X.Size() + a.Scratch.Size()),
		}),
		list.Dispatch(vk.Dispatch{
			Kernel: g.sum, Groups: [3]uint32{1, 1, 1},
			Args:  []vk.Access{vk.Read(a.Scratch), vk.Write(a.Norm)},
			Push:  vk.Scalars(&gradientNormSumPush{uint32(blocks)}),
			Flops: 2 * float64(blocks),
			Bytes: float64(a.Scratch.Size() + a.Norm.Size()),
		}),
	)
}

// checkFlat checks the size of a flat tensor that a kernel reads in groups of 4 elements.
func checkFlat(op string, n int) error {
	if n < 1 || uint64(n) > maxQuadElements {
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, n, uint64(maxQuadElements))
	}
	return nil
}

// Close frees the kernels. It may be called again, and on nil.
func (g *GradientNorm) Close() error {
	if g == nil {
		return nil
	}
	return errors.Join(g.blocks.Close(), g.sum.Close())
}
