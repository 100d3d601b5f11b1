package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Dropout sets elements to 0 at random and scales the others by 1 / (1 - Rate). The same dispatch applied to the gradient
// of y gives that of x, so no mask is kept.
//
//	x [Count] f32 in    state [4] u32 in    y [Count] f32 out, may be x
//	y[i] = x[i] / (1 - Rate) if word(First + first item * Item + i) * 2^-32 >= Rate, else 0
//
// word(e) is word e%4 of Philox4x32-10 with the key (seed low, seed high) and the counter (step, Layer, e/4 low, e/4 high).
// It depends on neither the division of a tensor into dispatches nor the device. The state is seed low, seed high, step,
// first item, in memory, so that a recorded command list can be run for every step and micro-batch.
//
// Shader: shaders/src/dropout.comp. CPU reference: internal/ref.Dropout. Source: Salmon et al., Parallel Random Numbers: As
// Easy as 1, 2, 3 (2011).
type Dropout struct{ kernel *vk.Kernel }

// DropoutConfig has no fields: all sizes share one kernel.
type DropoutConfig struct{}

// DropoutArgs names the memory and the sizes of one dispatch. X and Y start at multiples of 16 bytes, or of 4 where First
// is not a multiple of 4.
type DropoutArgs struct {
	X, Y  vk.Range // [Count]; may be the same
	State vk.Range // [4] u32
	Count int      // 1 to 2^31-1
	First uint64   // number of the first element in the tensor of a step, at most 2^63
	Rate  float64  // probability that an element is dropped, at least 0, at most 1 - 2^-32
	Layer uint32   // different for every use in a step
	Item  uint64   // elements of an item, a multiple of 4 and at most 2^33; 0: the first item has no effect
}

type dropoutPush struct { // after three addresses
	block                       [2]uint32
	skip, end, layer, threshold uint32
	scale                       float32
	item                        uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(dropoutPush{})-32]

// NewDropout compiles the kernel.
func NewDropout(dev *vk.Device, _ DropoutConfig) (*Dropout, error) {
	k, err := newKernel(dev, "dropout", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: Dropout: %w", err)
	}
	return &Dropout{k}, nil
}

// Record appends one dispatch to a command list.
func (d *Dropout) Record(list *vk.CommandList, a DropoutArgs) error {
	const op, threads = "Dropout", 256
	count := dim{"Count", a.Count}
	if err := checkPositive(op, count); err != nil {
		return err
	}
	if !(a.Rate >= 0 && a.Rate <= 1-0x1p-32) {
		return fmt.Errorf("pipelines: %s: Rate is %v, want 0 to 1 - 2^-32", op, a.Rate)
	}
	if a.First > 1<<63 {
		return fmt.Errorf("pipelines: %s: First is %d, want at most 2^63", op, a.First)
	}
	if a.Item%4 != 0 || a.Item > 1<<33 {
		return fmt.Errorf("pipelines: %s: Item is %d, want a multiple of 4, at most 2^33", op, a.Item)
	}
	skip, align := uint32(a.First%4), uint64(vec4Align)
	if skip != 0 {
		align = wordAlign
	}
	if err := firstError(
		checkTensor(op, "x", a.X, align, f32, count), checkTensor(op, "y", a.Y, align, f32, count),
		checkTensor(op, "state", a.State, wordAlign, u32, dim{"Words", 4}),
	); err != nil {
		return err
	}
	end, block := skip+uint32(a.Count), a.First/4
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(ceilDiv(uint64(end), 4), threads))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: d.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y), vk.Read(a.State)},
		Push: vk.Scalars(&dropoutPush{
			block: [2]uint32{uint32(block), uint32(block >> 32)}, skip: skip, end: end, layer: a.Layer,
			threshold: uint32(math.Ceil(a.Rate * 0x1p32)), scale: float32(1 / (1 - a.Rate)), item: uint32(a.Item / 4),
		}),
		Flops: float64(a.Count),
		Bytes: 8 * float64(a.Count),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (d *Dropout) Close() error {
	if d == nil {
		return nil
	}
	return d.kernel.Close()
}
