package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// AdamW is a step of the optimiser AdamW over parameters, each of which has memory of its own.
//
//	p [N] f32 in and out, of each parameter
//	g [E] f32 in    m, v [E] f32 in and out: of all parameters, one after another, each from a multiple of 4 elements on
//	state [16] in: of OptimizerState
//
//	g' = g * factor         m' = beta1 * m + (1 - beta1) * g'    v' = beta2 * v + (1 - beta2) * g'^2
//	p' = p * (1 - rate * decay) - rate * (m' / (1 - beta1^t)) / (sqrt(v' / (1 - beta2^t)) + eps)
//
// factor, rate and t are the state's. Only parameters with Decays have the decay. Where the state says so, the step is skipped:
// nothing is written. A g' beyond +-1e18 counts as that, so that v stays finite. What is between parameters stays as it is.
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

// AdamWParameter is a parameter of a step.
type AdamWParameter struct {
	P      vk.Range // [N], from a multiple of 16 bytes on
	N      int      // 1 to 2^31 - 1
	Decays bool
}

// AdamWArgs names the memory of one dispatch.
type AdamWArgs struct {
	Parameters []AdamWParameter
	Table      vk.Range // AdamWTable of Parameters: the caller has written it
	G, M, V    vk.Range // [E], AdamWElements
	State      vk.Range // OptimizerStateBytes
}

type adamWPush struct { // after five addresses
	workgroups                           uint32
	restOfBeta1, restOfBeta2, eps, decay float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(adamWPush{})-20]

const (
	adamWElements = 1024 // of a workgroup
	adamWRow      = 16   // bytes of the table for a workgroup
)

// AdamWElements is the number of elements of gradients and moments: each parameter takes a multiple of 4.
func AdamWElements(parameters []AdamWParameter) (n int) {
	for _, p := range parameters {
		n += (p.N + 3) / 4 * 4
	}
	return n
}

// AdamWTableBytes is the size of the table of parameters, whose P it does not use.
func AdamWTableBytes(parameters []AdamWParameter) (bytes uint64) {
	for _, p := range parameters {
		bytes += adamWRow * ceilDiv(uint64(p.N), adamWElements)
	}
	return bytes
}

// AdamWTable is the table of parameters that the kernel reads: for each 1024 elements of a parameter their address, the place of
// their moments in groups of 4 elements, and their count times 2, plus 1 if they decay.
func AdamWTable(parameters []AdamWParameter) []uint32 {
	words, first := make([]uint32, 0, AdamWTableBytes(parameters)/4), 0
	for _, p := range parameters {
		decays := specBool(p.Decays)
		for at := 0; at < p.N; at += adamWElements {
			address := p.P.Address() + 4*uint64(at)
			words = append(words, uint32(address), uint32(address>>32), uint32((first+at)/4), 2*uint32(min(p.N-at, adamWElements))+decays)
		}
		first += (p.N + 3) / 4 * 4
	}
	return words
}

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
	const op = "AdamW"
	if len(a.Parameters) == 0 {
		return fmt.Errorf("pipelines: %s: there are 0 parameters, want at least 1", op)
	}
	var indirect []vk.Access
	for i, p := range a.Parameters {
		if p.N < 1 || p.N > math.MaxInt32 {
			return fmt.Errorf("pipelines: %s: N of parameter %d is %d, want 1 to %d", op, i, p.N, math.MaxInt32)
		}
		if err := checkTensor(op, fmt.Sprintf("p of parameter %d", i), p.P, vec4Align, f32, dim{"N", p.N}); err != nil {
			return err
		}
		indirect = append(indirect, vk.ReadWrite(p.P))
	}
	n := AdamWElements(a.Parameters)
	if err := checkFlat(op, n); err != nil {
		return err
	}
	e, table := dim{"E", n}, AdamWTableBytes(a.Parameters)
	if err := firstError(
		checkRange(op, "table", a.Table, vec4Align, table, "AdamWTableBytes"), checkTensor(op, "g", a.G, vec4Align, f32, e),
		checkTensor(op, "m", a.M, vec4Align, f32, e), checkTensor(op, "v", a.V, vec4Align, f32, e),
		checkRange(op, "state", a.State, vec4Align, OptimizerStateBytes, "OptimizerStateBytes"),
	); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), op, table/adamWRow)
	if err != nil {
		return err
	}
	c := w.config
	return list.Dispatch(vk.Dispatch{
		Kernel:   w.kernel,
		Groups:   groups,
		Args:     []vk.Access{vk.Read(a.Table), vk.Read(a.G), vk.ReadWrite(a.M), vk.ReadWrite(a.V), vk.Read(a.State)},
		Indirect: indirect,
		Push: vk.Scalars(&adamWPush{
			uint32(table / adamWRow), float32(1 - c.Beta1), float32(1 - c.Beta2), float32(c.Eps), float32(c.Decay),
		}),
		Flops: 15 * float64(n),
		Bytes: 28*float64(n) + float64(table),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (w *AdamW) Close() error {
	if w == nil {
		return nil
	}
	return w.kernel.Close()
}
