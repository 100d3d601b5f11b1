package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// AdamW is a step of the optimiser AdamW over flat tensors: one parameter, or many with their paddings.
//
//	p, m, v [N] f32 in and out    g [N] f32 in    state [16] in: of OptimizerState
//
//	g' = g * factor         m' = beta1 * m + (1 - beta1) * g'    v' = beta2 * v + (1 - beta2) * g'^2
//	p' = p * (1 - rate * decay) - rate * (m' / (1 - beta1^t)) / (sqrt(v' / (1 - beta2^t)) + eps)
//
// factor, rate and t are the state's. The decay applies to the first Decayed elements only. Where the state says so,
// the step is skipped: nothing is written. A g' beyond +-1e18 counts as that, so that v stays finite.
//
// Shader: shaders/src/adamw.comp. CPU reference: internal/ref.AdamW. Source: arXiv 1711.05101.
type AdamW struct {
	config AdamWConfig
	kernel *vk.Kernel
}

// AdamWConfig has the settings of the optimiser.
type AdamWConfig struct {
	Beta1, Beta2 float64 // at least 0, below 1
	Eps          float64 // above 0
	Decay        float64 // times the learning rate; 0: none
}

// AdamWArgs names the memory and the size of one dispatch.
type AdamWArgs struct {
	P, G, M, V vk.Range // [N]
	State      vk.Range // OptimizerStateBytes
	N          int
	Decayed    int // elements that decay, from the start: a multiple of 4, or N
}

type adamWPush struct { // after five addresses
	quads, rest, decayed                 uint32
	restOfBeta1, restOfBeta2, eps, decay float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(adamWPush{})-28]

// NewAdamW compiles the kernel.
func NewAdamW(dev *vk.Device, c AdamWConfig) (*AdamW, error) {
	const op = "AdamW"
	for _, b := range []struct {
		name     string
		v, limit float64
	}{{"Beta1", c.Beta1, 1}, {"Beta2", c.Beta2, 1}, {"Decay", c.Decay, math.MaxFloat32}} {
		if !(b.v >= 0 && b.v < b.limit) {
			return nil, fmt.Errorf("pipelines: %s: %s is %v, want at least 0 and less than %v", op, b.name, b.v, b.limit)
		}
	}
	const smallest = 0x1p-126 // a smaller float may be flushed to 0
	if !(c.Eps >= smallest && c.Eps <= math.MaxFloat32) {
		return nil, fmt.Errorf("pipelines: %s: Eps is %v, want %v to %v", op, c.Eps, smallest, math.MaxFloat32)
	}
	k, err := newKernel(dev, "adamw", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &AdamW{c, k}, nil
}

// Record appends one dispatch to a command list.
func (w *AdamW) Record(list *vk.CommandList, a AdamWArgs) error {
	const op, threads = "AdamW", 256
	if err := checkFlat(op, a.N); err != nil {
		return err
	}
	n := dim{"N", a.N}
	if err := firstError(
		checkTensor(op, "p", a.P, vec4Align, f32, n), checkTensor(op, "g", a.G, vec4Align, f32, n),
		checkTensor(op, "m", a.M, vec4Align, f32, n), checkTensor(op, "v", a.V, vec4Align, f32, n),
		checkRange(op, "state", a.State, vec4Align, OptimizerStateBytes, "OptimizerStateBytes"),
	); err != nil {
		return err
	}
	if a.Decayed < 0 || a.Decayed > a.N || a.Decayed%4 != 0 && a.Decayed != a.N {
		return fmt.Errorf("pipelines: %s: Decayed is %d, want a multiple of 4 up to N, %d, or N", op, a.Decayed, a.N)
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(ceilDiv(uint64(a.N), 4), threads))
	if err != nil {
		return err
	}
	c := w.config
	return list.Dispatch(vk.Dispatch{
		Kernel: w.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.ReadWrite(a.P), vk.Read(a.G), vk.ReadWrite(a.M), vk.ReadWrite(a.V), vk.Read(a.State)},
		Push: vk.Scalars(&adamWPush{
			uint32(a.N / 4), uint32(a.N % 4), uint32(ceilDiv(uint64(a.Decayed), 4)),
			float32(1 - c.Beta1), float32(1 - c.Beta2), float32(c.Eps), float32(c.Decay),
		}),
		Flops: 15 * float64(a.N),
		Bytes: 28 * float64(a.N),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (w *AdamW) Close() error {
	if w == nil {
		return nil
	}
	return w.kernel.Close()
}
