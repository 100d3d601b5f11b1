package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// MeanPoolBackward is the gradient of MeanPool.
//
//	dy [B, C] f32 in    mask [B, N] u8 in, with Masked    dx [B, N, C] f32 out
//	dx[b, i] = dy[b] / N
//
// With a mask, dx is dy[b] divided by the number of tokens of the item whose byte is not 0, and 0 for the other tokens.
// Ranges start at multiples of 16 bytes where C is a multiple of 4, else at multiples of 4.
//
// Shader: shaders/src/mean_pool_backward.comp. CPU reference: internal/ref.MeanPoolBackward.
type MeanPoolBackward struct {
	config         MeanPoolConfig
	tokensPerGroup uint64
	kernel         *vk.Kernel
}

// MeanPoolBackwardArgs names the memory and the sizes of one dispatch. It writes all of DX.
type MeanPoolBackwardArgs struct {
	DY   vk.Range // [B, C]
	Mask vk.Range // [B, N] u8, with Masked
	DX   vk.Range // [B, N, C]
	B, N int
}

type meanPoolBackwardPush struct{ n, items uint32 } // after three addresses

var _ = [1]struct{}{}[unsafe.Sizeof(meanPoolBackwardPush{})-8]

// NewMeanPoolBackward compiles the kernel. The config is that of MeanPool.
func NewMeanPoolBackward(dev *vk.Device, c MeanPoolConfig) (*MeanPoolBackward, error) {
	const op, threads, writes = "MeanPoolBackward", 256, 64 // of an invocation, unless a row has more
	if err := checkRowLength(op, c.C); err != nil {
		return nil, err
	}
	name, cols := rowVariant("mean_pool_backward", c.C)
	m := &MeanPoolBackward{config: c, tokensPerGroup: uint64(min(max(threads*writes/cols, 1), 256))}
	var err error
	m.kernel, err = newKernel(dev, name, map[uint32]uint32{
		shaders.MeanPoolBackwardMasked: specBool(c.Masked), shaders.MeanPoolBackwardColumns: cols,
		shaders.MeanPoolBackwardTokensPerWorkgroup: uint32(m.tokensPerGroup),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return m, nil
}

// Record appends one dispatch to a command list.
func (m *MeanPoolBackward) Record(list *vk.CommandList, a MeanPoolBackwardArgs) error {
	const op = "MeanPoolBackward"
	b, n, c := dim{"B", a.B}, dim{"N", a.N}, dim{"C", m.config.C}
	if err := checkPositive(op, b, n, dim{"B*N", b.n * n.n}); err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "dy", a.DY, rowAlign(c.n), f32, b, c),
		checkPresence(m.config.Masked, op, "mask", a.Mask, wordAlign, u8, b, n),
		checkTensor(op, "dx", a.DX, rowAlign(c.n), f32, b, n, c),
	); err != nil {
		return err
	}
	caps := list.Device().Caps()
	_, cols := rowVariant("", c.n)
	iterations := int(cols) * int(m.tokensPerGroup) / 256
	if m.config.Masked {
		iterations += a.N / 256
	}
	if err := checkIterations(caps, op, fmt.Sprintf("a row of %d floats and %d tokens", c.n, a.N), iterations+2); err != nil {
		return err
	}
	groups, err := workgroups(caps, op, uint64(b.n)*ceilDiv(uint64(n.n), m.tokensPerGroup))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.DY), vk.Read(a.Mask), vk.Write(a.DX)},
		Push:   vk.Scalars(&meanPoolBackwardPush{uint32(a.N), uint32(a.B)}),
		Flops:  float64(b.n) * float64(n.n) * float64(c.n),
		Bytes:  float64(a.DY.Size() + a.Mask.Size() + a.DX.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (m *MeanPoolBackward) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
