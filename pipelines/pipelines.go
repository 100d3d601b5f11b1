package pipelines

import (
	"fmt"
	"math"
	"strings"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// dim is a named size, for messages.
type dim struct {
	name string
	n    int
}

// positive checks that sizes are at least 1 and fit an int32.
func positive(op string, dims ...dim) error {
	for _, d := range dims {
		if d.n < 1 || d.n > math.MaxInt32 {
			return fmt.Errorf("pipelines: %s: %s is %d, want 1 to %d", op, d.name, d.n, math.MaxInt32)
		}
	}
	return nil
}

// need checks that a range is there, has exactly the size that its shape takes, and starts at a multiple of 16 bytes. The shape is
// for the message: "[Rows 5, C 32] f32".
func need(op, arg string, r vk.Range, bytes uint64, shape string) error {
	return needAt(16, op, arg, r, bytes, shape)
}

// optional is need for an argument that may be absent.
func optional(op, arg string, r vk.Range, bytes uint64, shape string) error {
	return optionalAt(16, op, arg, r, bytes, shape)
}

// needAt is need for a range that starts at any multiple of align bytes.
func needAt(align uint64, op, arg string, r vk.Range, bytes uint64, shape string) error {
	if r.IsZero() {
		return fmt.Errorf("pipelines: %s: %s is missing, want %s, %d bytes", op, arg, shape, bytes)
	}
	return optionalAt(align, op, arg, r, bytes, shape)
}

// optionalAt is needAt for an argument that may be absent.
func optionalAt(align uint64, op, arg string, r vk.Range, bytes uint64, shape string) error {
	switch {
	case r.IsZero():
		return nil
	case r.Size() != bytes:
		return fmt.Errorf("pipelines: %s: %s has %d bytes, want %s, %d bytes", op, arg, r.Size(), shape, bytes)
	case r.Offset()%align != 0:
		return fmt.Errorf("pipelines: %s: %s starts at byte %d of its buffer, want a multiple of %d", op, arg, r.Offset(), align)
	}
	return nil
}

// shape writes sizes with their names: "[Rows 5, C 32]".
func shape(dims ...dim) string {
	var parts []string
	for _, d := range dims {
		parts = append(parts, fmt.Sprintf("%s %d", d.name, d.n))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// kernel makes a kernel of a line of variants.txt.
func kernel(dev *vk.Device, name string, spec map[uint32]uint32) (*vk.Kernel, error) {
	code, err := shaders.SPV(name)
	if err != nil {
		return nil, err
	}
	return dev.NewKernel(vk.KernelConfig{Name: name, Code: code, Spec: spec})
}

// flag is a specialisation constant for a bool.
func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
