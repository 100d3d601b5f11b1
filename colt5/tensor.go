package colt5

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/colt5-vulkan/colt5/vk"
)

// Tensor is a row-major array on a device, or a value of a [Graph], which has no memory of its own. Whoever makes a
// tensor closes it; values are closed with their graph.
type Tensor struct {
	dtype  DType
	shape  []int // of a value of a graph: 0 for a size that is not known before a run
	memory vk.Range
	*storage

	closed atomic.Bool
	cast   *vk.Buffer  // of a weight matrix: a copy of 16 bits, see weights.cast; nil: none
	value  *graphValue // nil: not a value of a graph
}

// storage is the device memory of a tensor, and of its views. Modules that share a weight share its storage.
type storage struct {
	buffer  *vk.Buffer    // nil: a parameter of a module without a device, or memory of the caller's
	version atomic.Uint64 // how often the elements may have changed; rises when they have
	users   atomic.Int32  // tensors that are not closed; the last one closes the buffer

	mu         sync.Mutex   // guards incomplete
	incomplete []incomplete // parts whose module has weights that were replaced in part
}

// newStorage makes the storage of one tensor. Its version is not 0, which is that of copies of weights not made yet.
func newStorage(buffer *vk.Buffer) *storage {
	s := &storage{buffer: buffer}
	s.version.Store(1)
	s.users.Store(1)
	return s
}

// acquire adds a tensor that uses the storage. It fails once the last one is closed.
func (s *storage) acquire() bool {
	for {
		n := s.users.Load()
		if n < 1 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release ends the use by one tensor.
func (s *storage) release() error {
	if s.users.Add(-1) > 0 || s.buffer == nil {
		return nil
	}
	return s.buffer.Close()
}

// hasMemory reports whether the tensor's elements exist.
func (t *Tensor) hasMemory() bool { return t != nil && t.storage != nil && !t.memory.IsZero() }

// NewTensor makes a tensor with undefined elements. It has at least one dimension, and every size is at least 1.
func NewTensor(dev *vk.Device, dtype DType, shape ...int) (*Tensor, error) {
	return newTensor("NewTensor", dev, dtype, shape)
}

func newTensor(op string, dev *vk.Device, dtype DType, shape []int) (*Tensor, error) {
	n, err := elements(dtype, shape)
	if err != nil {
		return nil, fmt.Errorf("colt5: %s: %w", op, err)
	}
	buffer, err := dev.NewBuffer("tensor "+dtype.String()+shapeString(shape), uint64(n)*uint64(dtype.Size()))
	if err != nil {
		return nil, fmt.Errorf("colt5: %s %v %s: %w", op, dtype, shapeString(shape), err)
	}
	return &Tensor{dtype: dtype, shape: append([]int(nil), shape...), memory: buffer.Range(), storage: newStorage(buffer)}, nil
}

// TensorAt makes a tensor of elements in memory that stays the caller's: kernels of package pipelines compute it or use it, for
// example. The memory starts at a multiple of 16 bytes, and must not be freed before the tensor is closed.
func TensorAt(memory vk.Range, dtype DType, shape ...int) (*Tensor, error) {
	n, err := elements(dtype, shape)
	switch size := uint64(n) * uint64(dtype.Size()); {
	case err != nil:
	case memory.IsZero() || memory.Size() != size:
		err = fmt.Errorf("memory has %d bytes, want %d for %v%s", memory.Size(), size, dtype, shapeString(shape))
	case memory.Offset()%16 != 0:
		err = fmt.Errorf("memory starts at byte %d, want a multiple of 16", memory.Offset())
	}
	if err != nil {
		return nil, fmt.Errorf("colt5: TensorAt: %w", err)
	}
	return &Tensor{dtype: dtype, shape: append([]int(nil), shape...), memory: memory, storage: newStorage(nil)}, nil
}

// Range is the memory of the elements, for kernels of package pipelines. Whoever writes it says so by Changed.
func (t *Tensor) Range() vk.Range {
	if t == nil {
		return vk.Range{}
	}
	return t.memory
}

// Changed tells the modules that have the tensor as a weight that its elements have changed, other than by methods of this
// package. Modules with a 16-bit precision then copy it again.
func (t *Tensor) Changed() {
	if t.hasMemory() {
		t.version.Add(1)
	}
}

// elementsOf identifies elements that tensors share: those of views differ. It is a key of maps.
type elementsOf struct {
	storage *storage
	memory  vk.Range // absent without a device
}

func (t *Tensor) elements() elementsOf { return elementsOf{t.storage, t.memory} }

// overlaps reports whether tensors with memory have elements in common.
func (t *Tensor) overlaps(o *Tensor) bool {
	a, b := t.memory, o.memory
	return t.storage == o.storage && a.Offset() < b.Offset()+b.Size() && b.Offset() < a.Offset()+a.Size()
}

// elements is the product of the sizes.
func elements(dtype DType, shape []int) (int, error) {
	if dtype != F32 && dtype != I32 && dtype != U8 {
		return 0, fmt.Errorf("dtype is %v, want f32, i32 or u8", dtype)
	}
	if len(shape) == 0 {
		return 0, fmt.Errorf("shape is [], want at least one dimension")
	}
	n := 1
	for i, d := range shape {
		if d < 1 || d > math.MaxInt32 || n > math.MaxInt/8/d {
			return 0, fmt.Errorf("dimension %d of shape %s is %d, want 1 to %d and a tensor that fits memory", i, shapeString(shape), d, math.MaxInt32)
		}
		n *= d
	}
	return n, nil
}

// FromSlice makes a tensor of a shape from its elements: F32 from []float32, I32 from []int32, U8 (a mask, or bytes of
// text) from []uint8.
func FromSlice[T float32 | int32 | uint8](ctx context.Context, dev *vk.Device, data []T, shape ...int) (*Tensor, error) {
	bytes, dtype, err := raw(data)
	if err != nil {
		return nil, fmt.Errorf("colt5: FromSlice: %w", err)
	}
	if n, err := elements(dtype, shape); err == nil && n != len(data) {
		return nil, fmt.Errorf("colt5: FromSlice: data has %d elements, want %d for %v%s", len(data), n, dtype, shapeString(shape))
	}
	t, err := newTensor("FromSlice", dev, dtype, shape)
	if err != nil {
		return nil, err
	}
	if err := dev.Upload(ctx, vk.Transfer{Range: t.memory, Data: bytes}); err != nil {
		return nil, errors.Join(fmt.Errorf("colt5: FromSlice: %w", err), t.Close())
	}
	return t, nil
}

// DType is the format of the elements; F32 for nil.
func (t *Tensor) DType() DType {
	if t == nil {
		return 0
	}
	return t.dtype
}

// Shape is the sizes of the dimensions; nil for nil.
func (t *Tensor) Shape() []int {
	if t == nil {
		return nil
	}
	return append([]int(nil), t.shape...)
}

// Len is the number of elements; 0 for nil and for a value of a graph.
func (t *Tensor) Len() int {
	if !t.hasMemory() {
		return 0
	}
	return int(t.memory.Size()) / t.dtype.Size()
}

// size is the size of the elements in bytes. It also works for a parameter without memory.
func (t *Tensor) size() int {
	n := t.dtype.Size()
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// Device is the tensor's device; nil for nil and for a value of a graph.
func (t *Tensor) Device() *vk.Device {
	if !t.hasMemory() {
		return nil
	}
	return t.memory.Device()
}

// String is the format and the shape. A size of a graph's value that is not known before a run is printed as *.
func (t *Tensor) String() string {
	switch {
	case t == nil || !t.hasMemory() && t.value == nil:
		return "nil"
	case t.value != nil:
		return t.value.describe(t)
	}
	return t.dtype.String() + shapeString(t.shape)
}

func shapeString(shape []int) string { return strings.ReplaceAll(fmt.Sprint(shape), ",", "") }

// Write replaces the elements by data: a []float32, []int32 or []uint8 of the tensor's format and length. If the
// context ends during the write, the elements are undefined.
func (t *Tensor) Write(ctx context.Context, data any) error {
	if err := t.accessible(); err != nil {
		return fmt.Errorf("colt5: Tensor.Write: %w", err)
	}
	raw, dtype, err := raw(data)
	if err != nil {
		return fmt.Errorf("colt5: Tensor.Write: %w", err)
	}
	if dtype != t.dtype || len(raw) != int(t.memory.Size()) {
		return fmt.Errorf("colt5: Tensor.Write: data is %d elements of %v, want %d of %v", len(raw)/dtype.Size(), dtype, t.Len(), t.dtype)
	}
	defer t.version.Add(1) // after the upload: a cast during it would take the old elements for the new ones
	if err := t.Device().Upload(ctx, vk.Transfer{Range: t.memory, Data: raw}); err != nil {
		return fmt.Errorf("colt5: Tensor.Write: %w", err)
	}
	return nil
}

// Read copies the elements to data: a []float32, []int32 or []uint8 of the tensor's format and length.
func (t *Tensor) Read(ctx context.Context, data any) error {
	if err := t.accessible(); err != nil {
		return fmt.Errorf("colt5: Tensor.Read: %w", err)
	}
	raw, dtype, err := raw(data)
	if err != nil {
		return fmt.Errorf("colt5: Tensor.Read: %w", err)
	}
	if dtype != t.dtype || len(raw) != int(t.memory.Size()) {
		return fmt.Errorf("colt5: Tensor.Read: data holds %d elements of %v, the tensor has %d of %v", len(raw)/dtype.Size(), dtype, t.Len(), t.dtype)
	}
	if err := t.Device().Download(ctx, vk.Transfer{Range: t.memory, Data: raw}); err != nil {
		return fmt.Errorf("colt5: Tensor.Read: %w", err)
	}
	return nil
}

// accessible returns an error if the host cannot read or write the elements.
func (t *Tensor) accessible() error {
	switch {
	case t != nil && t.value != nil:
		return fmt.Errorf("the tensor is %v, which has no memory: want a tensor made by NewTensor or FromSlice", t)
	case !t.hasMemory():
		return errors.New("the tensor is nil, want one made by NewTensor or FromSlice")
	case t.closed.Load():
		return fmt.Errorf("the tensor is %w", vk.ErrClosed)
	}
	return nil
}

// Rows returns a view of count rows of the first dimension, from row first on: part of a batch, for example. The view
// shares the elements with t; the memory is freed when both are closed. The first row must start at a multiple of 16
// bytes.
func (t *Tensor) Rows(first, count int) (*Tensor, error) {
	if err := t.accessible(); err != nil {
		return nil, fmt.Errorf("colt5: Tensor.Rows: %w", err)
	}
	n := t.shape[0]
	if first < 0 || count < 1 || first > n-count {
		return nil, fmt.Errorf("colt5: Tensor.Rows: first is %d and count %d, want rows of a tensor of %d", first, count, n)
	}
	row := uint64(t.size() / n)
	if offset := t.memory.Offset() + uint64(first)*row; offset%16 != 0 {
		return nil, fmt.Errorf("colt5: Tensor.Rows: row %d starts at byte %d, want a multiple of 16", first, offset)
	}
	if !t.storage.acquire() {
		return nil, fmt.Errorf("colt5: Tensor.Rows: the tensor is %w", vk.ErrClosed)
	}
	return &Tensor{
		dtype: t.dtype, shape: append([]int{count}, t.shape[1:]...), memory: t.memory.Slice(uint64(first)*row, uint64(count)*row), storage: t.storage,
	}, nil
}

func raw(data any) ([]byte, DType, error) {
	switch d := data.(type) {
	case []float32:
		return vk.Bytes(d), F32, nil
	case []int32:
		return vk.Bytes(d), I32, nil
	case []uint8:
		return d, U8, nil
	}
	return nil, 0, fmt.Errorf("data is %T, want []float32, []int32 or []uint8", data)
}

// Float32 returns the elements of an f32 tensor.
func (t *Tensor) Float32(ctx context.Context) ([]float32, error) { return read[float32](ctx, t) }

// Int32 returns the elements of an i32 tensor.
func (t *Tensor) Int32(ctx context.Context) ([]int32, error) { return read[int32](ctx, t) }

// Uint8 returns the elements of a u8 tensor.
func (t *Tensor) Uint8(ctx context.Context) ([]uint8, error) { return read[uint8](ctx, t) }

func read[T float32 | int32 | uint8](ctx context.Context, t *Tensor) ([]T, error) {
	data := make([]T, t.Len())
	return data, t.Read(ctx, data)
}

// Close frees the memory unless a view still shares it; if the device still uses it, once the device is done. Closing
// again, or nil, does nothing.
func (t *Tensor) Close() error {
	if !t.hasMemory() || t.closed.Swap(true) {
		return nil
	}
	return t.storage.release()
}
