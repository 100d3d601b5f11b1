package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// MSE is the mean squared error of each item of a batch, and its gradient.
//
//	y, target [Items, N] f32 in    upstream [1] f32 in, optional, 1 without it
//	losses [Items] f32 out    dy [Items, N] f32 out, optional, may be y or target
//	losses[b] = sum of (y[b] - target[b])^2 / Count    dy = 2 (y - target) / Count * upstream
//
// Count is that of a whole step, so that the losses of its items, and their gradients, add up to those of the mean. The
// order of summation depends on N alone. Ranges start at multiples of 4 bytes.
//
// Shaders: shaders/src/mse.comp, shaders/src/mse_sum.comp. CPU reference: internal/ref.MSE.
type MSE struct{ blocks, sum *vk.Kernel }

// MSEConfig has no fields: all sizes share the kernels.
type MSEConfig struct{}

// MSEArgs names the memory and the sizes.
type MSEArgs struct {
	Y, Target vk.Range // [Items, N]
	Losses    vk.Range // [Items]
	DY        vk.Range // [Items, N]; may be Y or Target; absent: not wanted
	Upstream  vk.Range // [1], the gradient of the sum of losses; absent: 1. Only with DY
	Scratch   vk.Range // of MSEScratch bytes
	Items, N  int      // N is at most 2^30-1
	Count     int      // elements that the mean is of; 0: Items * N
}

type (
	msePush struct { // after five addresses
		items, n, blockSize, blocks uint32
		slope                       float32
	}
	mseSumPush struct { // after two addresses
		items, blocks uint32
		factor        float32
	}
)

var (
	_ = [1]struct{}{}[unsafe.Sizeof(msePush{})-20]
	_ = [1]struct{}{}[unsafe.Sizeof(mseSumPush{})-12]
)

const (
	mseThreads   = 256
	mseBlockSize = 4096 // elements of a block, unless that gives too many
	mseMaxBlocks = 256
)

// mseBlocks is the division of the elements of an item into blocks.
func mseBlocks(n int) (blockSize, blocks uint64) {
	blockSize = max(mseBlockSize, ceilDiv(uint64(n), mseMaxBlocks))
	return blockSize, ceilDiv(uint64(n), blockSize)
}

// MSEScratch is the size of the scratch memory in bytes: the sums of blocks of elements.
func MSEScratch(items, n int) uint64 {
	if items < 1 || n < 1 {
		return 0
	}
	_, blocks := mseBlocks(n)
	return 4 * uint64(items) * blocks
}

// NewMSE compiles the kernels.
func NewMSE(dev *vk.Device, _ MSEConfig) (*MSE, error) {
	m := &MSE{}
	var err error
	if m.blocks, err = newKernel(dev, "mse", nil); err == nil {
		m.sum, err = newKernel(dev, "mse_sum", nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipelines: MSE: %w", err), m.Close())
	}
	return m, nil
}

// Record appends two dispatches to a command list.
func (m *MSE) Record(list *vk.CommandList, a MSEArgs) error {
	const op = "MSE"
	if err := a.check(); err != nil {
		return err
	}
	if a.Count == 0 {
		a.Count = a.Items * a.N
	}
	blockSize, blocks := mseBlocks(a.N)
	caps := list.Device().Caps()
	if err := checkIterations(caps, op, fmt.Sprintf("an item of %d elements", a.N), int(blockSize/mseThreads)+1); err != nil {
		return err
	}
	groups, err := workgroups(caps, op, uint64(a.Items)*blocks)
	if err != nil {
		return err
	}
	itemGroups, err := workgroups(caps, op, uint64(a.Items))
	if err != nil {
		return err
	}
	scratch := a.Scratch.Slice(0, MSEScratch(a.Items, a.N))
	if err := list.Dispatch(vk.Dispatch{
		Kernel: m.blocks,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.Y), vk.Read(a.Target), vk.Write(a.DY), vk.Read(a.Upstream), vk.Write(scratch)},
		Push:   vk.Scalars(&msePush{uint32(a.Items), uint32(a.N), uint32(blockSize), uint32(blocks), float32(2 / float64(a.Count))}),
		Flops:  4 * float64(a.Y.Size()/4),
		Bytes:  float64(a.Y.Size() + a.Target.Size() + a.DY.Size()),
	}); err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.sum,
		Groups: itemGroups,
		Args:   []vk.Access{vk.Read(scratch), vk.Write(a.Losses)},
		Push:   vk.Scalars(&mseSumPush{uint32(a.Items), uint32(blocks), float32(1 / float64(a.Count))}),
		Bytes:  float64(scratch.Size() + a.Losses.Size()),
	})
}

func (a MSEArgs) check() error {
	const op = "MSE"
	items, n := dim{"Items", a.Items}, dim{"N", a.N}
	if err := checkPositive(op, items, n); err != nil {
		return err
	}
	if a.N > maxRowLength {
		return fmt.Errorf("pipelines: %s: N is %d, want at most %d", op, a.N, maxRowLength)
	}
	if a.Count < 0 {
		return fmt.Errorf("pipelines: %s: Count is %d, want at least 1, or 0 for Items * N", op, a.Count)
	}
	if a.DY.IsZero() && !a.Upstream.IsZero() {
		return fmt.Errorf("pipelines: %s: upstream has %d bytes, want none without dy", op, a.Upstream.Size())
	}
	return firstError(
		checkTensor(op, "y", a.Y, wordAlign, f32, items, n), checkTensor(op, "target", a.Target, wordAlign, f32, items, n),
		checkTensor(op, "losses", a.Losses, wordAlign, f32, items), checkOptional(op, "dy", a.DY, wordAlign, f32, items, n),
		checkOptional(op, "upstream", a.Upstream, wordAlign, f32, dim{"Values", 1}),
		checkRange(op, "scratch", a.Scratch, wordAlign, MSEScratch(a.Items, a.N), "MSEScratch"),
	)
}

// Close frees the kernels. It may be called again, and on nil.
func (m *MSE) Close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.blocks.Close(), m.sum.Close())
}
