package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// CopyRows copies rows of 32-bit words from one tensor into another, each with a pitch of its own: the words from the
// start of a row to the start of the next. It concatenates tensors, and takes parts of them.
//
//	x in: row r at word r * XPitch    y out: row r at word r * YPitch
//	y[r, i] = x[r, i], i < Width
//
// Words of y between the rows keep their values. Shader: shaders/src/copy_rows.comp. CPU reference: internal/ref.CopyRows.
type CopyRows struct{ kernel *vk.Kernel }

// CopyRowsConfig has no fields: all copies share one kernel.
type CopyRowsConfig struct{}

// CopyRowsArgs names the memory and the sizes of one dispatch. X and Y do not overlap.
type CopyRowsArgs struct {
	X, Y           vk.Range // from the first word of the first row to the last word of the last row
	Rows, Width    int
	XPitch, YPitch int // at least Width
}

type copyRowsPush struct{ count, width, xPitch, yPitch uint32 } // after two addresses

var _ = [1]struct{}{}[unsafe.Sizeof(copyRowsPush{})-16]

// CopyRowsBytes is the size in bytes of a range that holds rows of a width at a pitch.
func CopyRowsBytes(rows, width, pitch int) uint64 {
	return 4 * ((uint64(rows)-1)*uint64(pitch) + uint64(width))
}

// NewCopyRows compiles the kernel.
func NewCopyRows(dev *vk.Device, _ CopyRowsConfig) (*CopyRows, error) {
	k, err := newKernel(dev, "copy_rows", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: CopyRows: %w", err)
	}
	return &CopyRows{k}, nil
}

// Record appends one dispatch to a command list.
func (m *CopyRows) Record(list *vk.CommandList, a CopyRowsArgs) error {
	const op, threads = "CopyRows", 256
	rows, width := dim{"Rows", a.Rows}, dim{"Width", a.Width}
	if err := checkPositive(op, rows, width); err != nil {
		return err
	}
	count := uint64(a.Rows) * uint64(a.Width)
	if count > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: Rows * Width is %d, want at most %d", op, count, math.MaxInt32)
	}
	for _, pitch := range []dim{{"XPitch", a.XPitch}, {"YPitch", a.YPitch}} {
		if pitch.n < a.Width || pitch.n > maxRowLength {
			return fmt.Errorf("pipelines: %s: %s is %d, want Width, %d, to %d", op, pitch.name, pitch.n, a.Width, maxRowLength)
		}
	}
	for _, t := range []struct {
		name  string
		r     vk.Range
		pitch int
	}{{"x", a.X, a.XPitch}, {"y", a.Y, a.YPitch}} {
		description := fmt.Sprintf("%s with a pitch of %d words", shape(rows, width), t.pitch)
		if err := checkRange(op, t.name, t.r, wordAlign, CopyRowsBytes(a.Rows, a.Width, t.pitch), description); err != nil {
			return err
		}
	}
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(count, threads))
	if err != nil {
		return err
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: m.kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Write(a.Y)},
		Push:   vk.Scalars(&copyRowsPush{uint32(count), uint32(a.Width), uint32(a.XPitch), uint32(a.YPitch)}),
		Bytes:  8 * float64(count),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (m *CopyRows) Close() error {
	if m == nil {
		return nil
	}
	return m.kernel.Close()
}
