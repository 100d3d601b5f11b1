package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// GELUBackward is the gradient of the exact GELU, x * Phi(x) with the normal distribution function Phi, and optionally
// the GELU itself, which the gradient of the weights of a following product needs.
//
//	x [N] in    dy [N] in    dx [N] out    y [N] out, optional    all of them f32, or with the config's DType of 16 bits
//	dx[i] = dy[i] * (Phi(x[i]) + x[i] * phi(x[i]))    y[i] = x[i] * Phi(x[i])    phi is the density
//
// Shader: shaders/src/gelu_backward.comp. CPU reference: internal/ref.GELUBackward. Source: arXiv 1606.08415.
type GELUBackward struct {
	config GELUBackwardConfig
	kernel *vk.Kernel
	most   int // maxGELUBackward, except in tests
}

// GELUBackwardConfig is fixed when the kernel is compiled. All sizes share one kernel.
type GELUBackwardConfig struct {
	DType DType // of all tensors: F32, F16 or BF16, for which N is a multiple of 4
}

// GELUBackwardArgs names the memory and the size of one dispatch. Dx may be X or Dy, and Y the other of them; ranges
// share no memory otherwise.
type GELUBackwardArgs struct {
	X, Dy vk.Range // [N]
	Dx    vk.Range // [N]
	Y     vk.Range // [N]; absent: not wanted
	N     int
}

type geluBackwardPush struct{ quads, rest uint32 } // after four addresses

var _ = [1]struct{}{}[unsafe.Sizeof(geluBackwardPush{})-8]

// NewGELUBackward compiles the kernel.
func NewGELUBackward(dev *vk.Device, c GELUBackwardConfig) (*GELUBackward, error) {
	if err := c.DType.checkPrecision("GELUBackward"); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, "gelu_backward", map[uint32]uint32{shaders.GELUBackwardDType: uint32(c.DType)})
	if err != nil {
		return nil, fmt.Errorf("pipelines: GELUBackward: %w", err)
	}
	return &GELUBackward{c, k, maxGELUBackward}, nil
}

// maxGELUBackward is the most elements of a dispatch, with 1.5 GB of traffic.
const maxGELUBackward = 92 << 20

// Record appends one dispatch for each maxGELUBackward elements to a command list.
func (g *GELUBackward) Record(list *vk.CommandList, a GELUBackwardArgs) error {
	const op, threads = "GELUBackward", 256
	n := dim{"N", a.N}
	if a.N < 1 || uint64(a.N) > 1<<34 { // quads are counted in 32 bits
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, a.N, uint64(1)<<34)
	}
	if g.config.DType != F32 && a.N%4 != 0 {
		return fmt.Errorf("pipelines: %s: N is %d, want a multiple of 4 with %v", op, a.N, g.config.DType)
	}
	e := g.config.DType.element()
	if err := firstError(
		checkTensor(op, "x", a.X, vec4Align, e, n), checkTensor(op, "dy", a.Dy, vec4Align, e, n),
		checkTensor(op, "dx", a.Dx, vec4Align, e, n), checkOptional(op, "y", a.Y, vec4Align, e, n),
	); err != nil {
		return err
	}
	if a.Dx == a.Y {
		return fmt.Errorf("pipelines: %s: dx and y are the same range, want different ranges", op)
	}
	for from := 0; from < a.N; from += g.most {
		n := min(a.N-from, g.most)
		part := func(r vk.Range) vk.Range { return elementsOf(r, g.config.DType, from, n) }
		groups, err := workgroups(list.Device().Caps(), op, ceilDiv(ceilDiv(uint64(n), 4), threads))
		if err != nil {
			return err
		}
		y := part(a.Y)
		if err := list.Dispatch(vk.Dispatch{
			Kernel: g.kernel,
			Groups: groups,
			Args:   []vk.Access{vk.Read(part(a.X)), vk.Read(part(a.Dy)), vk.Write(part(a.Dx)), vk.Write(y)},
			Push:   vk.Scalars(&geluBackwardPush{uint32(n / 4), uint32(n % 4)}),
			Flops:  30 * float64(n), // about: a polynomial and two exponentials
			Bytes:  float64(3*g.config.DType.Size()*n) + float64(y.Size()),

			IndependentOfPrevious: from > 0,
		}); err != nil {
			return err
		}
	}
	return nil
}

// elementsOf is n elements of a range, which may be absent, from one on.
func elementsOf(r vk.Range, d DType, from, n int) vk.Range {
	if r.IsZero() {
		return r
	}
	return r.Slice(uint64(d.Size()*from), uint64(d.Size()*n))
}

// Close frees the kernel. It may be called again, and on nil.
func (g *GELUBackward) Close() error {
	if g == nil {
		return nil
	}
	return g.kernel.Close()
}
