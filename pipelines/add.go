package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Add is the sum of two tensors.
//
//	a, b [N] f32 in    y [N] f32 out
//	y[i] = a[i] + b[i]
//
// Shader: shaders/src/add.comp. CPU reference: internal/ref.Add.
type Add struct{ kernel *vk.Kernel }

// AddConfig has no fields: all sums share one kernel.
type AddConfig struct{}

// AddArgs names the memory and the size of one dispatch.
type AddArgs struct {
	A, B vk.Range // [N]
	Y    vk.Range // [N]; may be A or B, but shares no memory with them otherwise
	N    int
}

type addPush struct{ quads, rest uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(addPush{})-8]

// NewAdd compiles the kernel.
func NewAdd(dev *vk.Device, _ AddConfig) (*Add, error) {
	k, err := newKernel(dev, "add", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: Add: %w", err)
	}
	return &Add{k}, nil
}

// Record appends one dispatch to a command list.
func (m *Add) Record(list *vk.CommandList, a AddArgs) error {
	const op, threads = "Add", 256
	n := dim{"N", a.N}
	if a.N < 1 || uint64(a.N) > 1<<34 { // quads are counted in 32 bits
		return fmt.Errorf("pipelines: %s: N is %d, want 1 to %d", op, a.N, uint64(1)<<34)
	}
	if err := firstError(
		checkTensor(op, "a", a.A, vec4Align, f32, n), checkTensor(op, "b", a.B, vec4Align, f32, n), checkTensor(op, "y", a.Y, vec4Align, f32, n),
	); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(ceilDiv(uint64(a.N), 4), threads))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.A), vk.Read(a.B), vk.Write(a.Y)},
		Push:   vk.Scalars(&addPush{uint32(a.N / 4), uint32(a.N % 4)}),
		Flops:  float64(a.N),
		Bytes:  12 * float64(a.N),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (m *Add) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
