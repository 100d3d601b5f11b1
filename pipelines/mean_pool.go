package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// MeanPool is the mean over the tokens of a batch item, or over those that a mask keeps.
//
//	x [B, N, C] f32 in    mask [B, N] u8 in, with Masked    y [B, C] f32 out
//	y[b, c] = sum_i x[b, i, c] / N
//
// With a mask, the sum and the count are those of the tokens whose byte is not 0; without such a token y is 0.
// The order of summation depends on N alone. N is at most 520,000.
//
// Shader: shaders/src/mean_pool.comp. CPU reference: internal/ref.MeanPool.
type MeanPool struct {
	config MeanPoolConfig
	kernel *vk.Kernel
}

// MeanPoolConfig is fixed when the kernel is compiled.
type MeanPoolConfig struct {
	C      int  // elements of a token
	Masked bool // a mask is given
}

// MeanPoolArgs names the memory and the sizes of one dispatch.
type MeanPoolArgs struct {
	X    vk.Range // [B, N, C]
	Y    vk.Range // [B, C]
	Mask vk.Range // [B, N] u8, with Masked
	B, N int
}

type meanPoolPush struct{ n, items uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(meanPoolPush{})-8]

const (
	meanPoolColumns   = 32        // COLUMNS of the shader: columns of a workgroup
	meanPoolMaxTokens = 8 * 65000 // an invocation adds every eighth token, and some drivers silently end a loop after 65,534 iterations
)

// NewMeanPool compiles the kernel.
func NewMeanPool(dev *vk.Device, c MeanPoolConfig) (*MeanPool, error) {
	if err := checkRowLength("MeanPool", c.C); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, "mean_pool", map[uint32]uint32{shaders.MeanPoolChannels: uint32(c.C), shaders.MeanPoolMasked: specBool(c.Masked)})
	if err != nil {
		return nil, fmt.Errorf("pipelines: MeanPool: %w", err)
	}
	return &MeanPool{c, k}, nil
}

// Record appends one dispatch to a command list.
func (m *MeanPool) Record(list *vk.CommandList, a MeanPoolArgs) error {
	const op = "MeanPool"
	b, n, c := dim{"B", a.B}, dim{"N", a.N}, dim{"C", m.config.C}
	if err := checkPositive(op, b, n, dim{"B*N", b.n * n.n}); err != nil {
		return err
	}
	if a.N > meanPoolMaxTokens {
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, meanPoolMaxTokens)
	}
	if err := firstError(
		checkTensor(op, "x", a.X, vec4Align, f32, b, n, c),
		checkTensor(op, "y", a.Y, vec4Align, f32, b, c),
		checkPresence(m.config.Masked, op, "mask", a.Mask, wordAlign, u8, b, n),
	); err != nil {
		return err
	}
	groups, err := workgroups(list.Device().Caps(), op, uint64(b.n)*ceilDiv(uint64(c.n), meanPoolColumns))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y), vk.Read(a.Mask)},
		Push:   vk.Scalars(&meanPoolPush{uint32(a.N), uint32(a.B)}),
		Flops:  float64(b.n) * float64(n.n) * float64(c.n),
		Bytes:  float64(a.X.Size() + a.Y.Size() + a.Mask.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (m *MeanPool) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
