package pipelines

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Permute copies a tensor with its axes in another order. It changes channels-first to channels-last, and the pixels of
// an image, or the bytes of its mask, from row order to patch order.
//
//	x f32 in    y f32 out, with the same number of elements; with Bytes u8, and y is padded with 0 to a multiple of 4
//	y[i_0, i_1, ..] = x[i_0 * Strides[0] + i_1 * Strides[1] + ..]
//
// Shader: shaders/src/permute.comp. CPU reference: internal/ref.Permute.
type Permute struct {
	config PermuteConfig
	kernel *vk.Kernel
}

// PermuteConfig is fixed when the kernel is compiled.
type PermuteConfig struct {
	Bytes bool // elements are u8, not f32
	Truth bool // only with Bytes: elements of y are 1 where those of x are not 0
}

// PermuteArgs describes one dispatch. X and Y do not overlap.
type PermuteArgs struct {
	X, Y    vk.Range
	Shape   []int // sizes of 1 to 6 axes of y; the last axis is contiguous
	Strides []int // stride of each axis in x, in elements; together they must cover a dense tensor
}

type permutePush struct {
	count         uint32
	size, strides [6]uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(permutePush{})-52]

// NewPermute compiles the kernel.
func NewPermute(dev *vk.Device, c PermuteConfig) (*Permute, error) {
	if c.Truth && !c.Bytes {
		return nil, fmt.Errorf("pipelines: Permute: Truth is true without Bytes, want it only with Bytes")
	}
	k, err := newKernel(dev, "permute", map[uint32]uint32{shaders.PermuteBytes: specBool(c.Bytes), shaders.PermuteTruth: specBool(c.Truth)})
	if err != nil {
		return nil, fmt.Errorf("pipelines: Permute: %w", err)
	}
	return &Permute{c, k}, nil
}

// Record appends one dispatch to a command list.
func (m *Permute) Record(list *vk.CommandList, a PermuteArgs) error {
	const op = "Permute"
	count, err := a.count()
	if err != nil {
		return err
	}
	dtype, padded, words := f32, count, count
	if m.config.Bytes {
		words = (count + 3) / 4
		dtype, padded = u8, 4*words
	}
	if err := firstError(
		checkTensor(op, "x", a.X, vec4Align, dtype, dim{"elements", count}), checkTensor(op, "y", a.Y, vec4Align, dtype, dim{"elements", padded}),
	); err != nil {
		return err
	}
	const threads = 256
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(uint64(words), threads))
	if err != nil {
		return err
	}
	push := permutePush{count: uint32(count)}
	for i := range push.size {
		push.size[i] = 1
	}
	for i, n := range a.Shape {
		axis := len(push.size) - len(a.Shape) + i
		push.size[axis], push.strides[axis] = uint32(n), uint32(a.Strides[i])
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y)},
		Push:   vk.Scalars(&push),
		Bytes:  float64(a.X.Size() + a.Y.Size()),
	})
}

// count checks the axes and returns the number of elements. Every element of x is read once if each stride is the
// product of the sizes of all axes with smaller strides.
func (a PermuteArgs) count() (int, error) {
	if len(a.Shape) < 1 || len(a.Shape) > 6 || len(a.Strides) != len(a.Shape) {
		return 0, fmt.Errorf("pipelines: Permute: Shape has %d axes and Strides %d, want 1 to 6, the same number of both", len(a.Shape), len(a.Strides))
	}
	type axis struct{ size, stride int }
	var axes []axis
	for i, n := range a.Shape {
		if n < 1 || n > math.MaxInt32 {
			return 0, fmt.Errorf("pipelines: Permute: Shape[%d] is %d, want 1 to %d", i, n, math.MaxInt32)
		}
		if n > 1 {
			axes = append(axes, axis{n, a.Strides[i]})
		} else if a.Strides[i] < 0 {
			return 0, fmt.Errorf("pipelines: Permute: Strides[%d] is %d, want at least 0", i, a.Strides[i])
		}
	}
	slices.SortFunc(axes, func(a, b axis) int { return a.stride - b.stride })
	count := 1
	for _, x := range axes {
		if x.stride != count {
			return 0, fmt.Errorf("pipelines: Permute: Strides are %v for Shape %v, want the strides of a dense tensor", a.Strides, a.Shape)
		}
		if count *= x.size; count > math.MaxInt32 {
			return 0, fmt.Errorf("pipelines: Permute: Shape is %v, want at most %d elements", a.Shape, math.MaxInt32)
		}
	}
	return count, nil
}

// Close frees the kernel. It may be called again, and on nil.
func (m *Permute) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
