package pipelines

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

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

// Where ranges start, in bytes: kernels read rows that are a multiple of 4 floats long four floats at once, other rows and lists word by
// word. So a module may pass some rows of a tensor.
const (
	vectors = 16
	words   = 4
)

// rowsOf is where a tensor starts whose rows have c floats.
func rowsOf(c int) uint64 {
	if c%4 == 0 {
		return vectors
	}
	return words
}

// need checks that a range is there, has exactly the size that its shape takes, and starts at a multiple of 16 bytes. The shape is
// for the message: "[Rows 5, C 32] f32".
func need(op, arg string, r vk.Range, bytes uint64, shape string) error {
	return needAt(vectors, op, arg, r, bytes, shape)
}

// optional is need for an argument that may be absent.
func optional(op, arg string, r vk.Range, bytes uint64, shape string) error {
	return optionalAt(vectors, op, arg, r, bytes, shape)
}

// needAt is need for a range that starts at a multiple of so many bytes.
func needAt(start uint64, op, arg string, r vk.Range, bytes uint64, shape string) error {
	if r.IsZero() {
		return fmt.Errorf("pipelines: %s: %s is missing, want %s, %d bytes", op, arg, shape, bytes)
	}
	return optionalAt(start, op, arg, r, bytes, shape)
}

// optionalAt is needAt for an argument that may be absent.
func optionalAt(start uint64, op, arg string, r vk.Range, bytes uint64, shape string) error {
	switch {
	case r.IsZero():
		return nil
	case r.Size() != bytes:
		return fmt.Errorf("pipelines: %s: %s has %d bytes, want %s, %d bytes", op, arg, r.Size(), shape, bytes)
	case r.Offset()%start != 0:
		return fmt.Errorf("pipelines: %s: %s starts at byte %d of its buffer, want a multiple of %d", op, arg, r.Offset(), start)
	}
	return nil
}

// cpuTurns is how often the loops of an invocation may turn on CPU drivers: some of these end loops after 65,534 turns, without a word.
const cpuTurns = 60000

// turns checks what the loops of a kernel turn for some sizes, which what tells.
func turns(caps vk.Caps, op, what string, n int) error {
	if !caps.CPU || n <= cpuTurns {
		return nil
	}
	return fmt.Errorf("pipelines: %s: %w: %s takes %d turns of a loop, CPU drivers do %d", op, vk.ErrUnsupported, what, n, cpuTurns)
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

// kernels are those of a room. Each is compiled when it is first recorded: a module has rooms and variants that few shapes need.
type kernels struct {
	dev    *vk.Device
	mu     sync.Mutex
	made   map[string]*vk.Kernel // by name and spec
	closed bool
}

// get is the kernel of a line of variants.txt under a name; one with this name and spec is compiled once.
func (k *kernels) get(name, variant string, full bool, spec map[uint32]uint32) (*vk.Kernel, error) {
	return k.with(name, variant, spec, vk.KernelConfig{FullSubgroups: full})
}

// with is get with what c says of subgroups.
func (k *kernels) with(name, variant string, spec map[uint32]uint32, c vk.KernelConfig) (*vk.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, vk.ErrClosed
	}
	key := fmt.Sprint(name, spec)
	if have := k.made[key]; have != nil {
		return have, nil
	}
	code, err := shaders.SPV(variant)
	if err != nil {
		return nil, err
	}
	c.Name, c.Code, c.Spec = name, code, spec
	made, err := k.dev.NewKernel(c)
	if err != nil {
		return nil, err
	}
	if k.made == nil {
		k.made = map[string]*vk.Kernel{}
	}
	k.made[key] = made
	return made, nil
}

// close frees the kernels, and no others are made. One that an open tape uses stays, and the next close tries again.
func (k *kernels) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	var all error
	for key, kernel := range k.made {
		err := kernel.Close()
		if err == nil {
			delete(k.made, key)
		}
		all = errors.Join(all, err)
	}
	return all
}

// flag is a specialisation constant for a bool.
func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
