package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// TreeSum is the sum over items in the balanced binary tree of their numbers: of the gradients of a parameter over the
// items of a batch, or over micro-batches.
//
//	x [Items, C] f32 in    y [C] f32 out; it may be the first item of x
//	y = (.. (x[0] + x[1]) + (x[2] + x[3]) ..), as if zeros followed up to a power of two of items
//
// Zeros are not added, so that the sum of one item has its bits. Of items that are divided into consecutive groups of
// the same power of two, the sum of the groups' sums has the bits of the sum of all. More than eight items take several
// dispatches. Ranges start at multiples of 4 bytes.
//
// Shader: shaders/src/tree_sum.comp. CPU reference: internal/ref.TreeSum.
type TreeSum struct{ kernel *vk.Kernel }

// TreeSumConfig has no fields: all sizes share one kernel.
type TreeSumConfig struct{}

// TreeSumArgs names the memory and the sizes.
type TreeSumArgs struct {
	X       vk.Range // [Items, C]
	Y       vk.Range // [C]; may be the first C elements of X
	Scratch vk.Range // of TreeSumScratch bytes; absent if that is 0
	Items   int
	C       int // elements of an item
}

type treeSumPush struct{ items, c uint32 } // after two addresses

var _ = [1]struct{}{}[unsafe.Sizeof(treeSumPush{})-8]

const treeSumGroup = 8 // GROUP of the shader: items that a dispatch adds to one

// TreeSumScratch is the size of the scratch memory in bytes: the sums of 8 items, of 64 items, and so on.
func TreeSumScratch(items, c int) (bytes uint64) {
	if items < 1 || c < 1 {
		return 0
	}
	for n := uint64(items); n > treeSumGroup; {
		n = ceilDiv(n, treeSumGroup)
		bytes += 4 * n * uint64(c)
	}
	return bytes
}

// NewTreeSum compiles the kernel.
func NewTreeSum(dev *vk.Device, _ TreeSumConfig) (*TreeSum, error) {
	k, err := newKernel(dev, "tree_sum", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: TreeSum: %w", err)
	}
	return &TreeSum{k}, nil
}

// Record appends a dispatch for each power of eight up to Items to a command list, at least one.
func (s *TreeSum) Record(list *vk.CommandList, a TreeSumArgs) error {
	const op = "TreeSum"
	items, c := dim{"Items", a.Items}, dim{"C", a.C}
	if err := firstError(checkPositive(op, items), checkRowLength(op, a.C)); err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "x", a.X, wordAlign, f32, items, c), checkTensor(op, "y", a.Y, wordAlign, f32, c),
		checkScratch(op, a.Scratch, TreeSumScratch(a.Items, a.C), "TreeSumScratch"),
	); err != nil {
		return err
	}
	x, scratch, n := a.X, uint64(0), uint64(a.Items)
	for n > treeSumGroup {
		rows := ceilDiv(n, treeSumGroup)
		y := a.Scratch.Slice(scratch, 4*rows*uint64(a.C))
		if err := s.dispatch(list, x, y, n, uint64(a.C)); err != nil {
			return err
		}
		x, n, scratch = y, rows, scratch+y.Size()
	}
	return s.dispatch(list, x, a.Y, n, uint64(a.C))
}

// dispatch adds each eight items of x to a row of y.
func (s *TreeSum) dispatch(list *vk.CommandList, x, y vk.Range, items, c uint64) error {
	const threads = 256
	groups, err := workgroups(list.Device().Caps(), "TreeSum", ceilDiv(items, treeSumGroup)*ceilDiv(c, threads))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: s.kernel, Groups: groups, Args: []vk.Access{vk.Read(x), vk.Write(y)},
		Push:  vk.Scalars(&treeSumPush{uint32(items), uint32(c)}),
		Flops: float64(x.Size()-y.Size()) / 4, Bytes: float64(x.Size() + y.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (s *TreeSum) Close() error {
	if s == nil {
		return nil
	}
	return s.kernel.Close()
}
