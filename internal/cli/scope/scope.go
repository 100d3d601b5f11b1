// Package scope closes everything that a piece of work creates on a device when the work ends.
package scope

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Scope owns objects on a device until the function that Run runs returns. It keeps the first error, so that callers
// may create several objects and check Err once; what could not be created is nil.
type Scope struct {
	Dev *vk.Device

	ctx  context.Context // of Run
	open []io.Closer
	err  error
}

// Run runs f with a new scope and closes the scope. Waits of the scope end when ctx is cancelled.
func Run(ctx context.Context, dev *vk.Device, f func(*Scope) error) error {
	s := &Scope{Dev: dev, ctx: ctx}
	return errors.Join(f(s), s.close())
}

// Context returns the context of Run.
func (s *Scope) Context() context.Context { return s.ctx }

// Err returns the first error.
func (s *Scope) Err() error { return s.err }

// Fail records an error, unless it is nil or there already is one.
func (s *Scope) Fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Keep makes s the owner of c. If err is not nil, it records err and returns nil.
func Keep[T io.Closer](s *Scope, c T, err error) T {
	if err != nil {
		s.Fail(err)
		var none T
		return none
	}
	s.open = append(s.open, c)
	return c
}

// Tensor creates a tensor with undefined contents.
func (s *Scope) Tensor(dtype colt5.DType, shape ...int) *colt5.Tensor {
	t, err := colt5.NewTensor(s.Dev, dtype, shape...)
	return Keep(s, t, err)
}

// Float32 creates a tensor of F32 with data.
func (s *Scope) Float32(data []float32, shape ...int) *colt5.Tensor {
	t, err := colt5.FromSlice(s.ctx, s.Dev, data, shape...)
	return Keep(s, t, err)
}

// Uint8 creates a tensor of U8 with data.
func (s *Scope) Uint8(data []uint8, shape ...int) *colt5.Tensor {
	t, err := colt5.FromSlice(s.ctx, s.Dev, data, shape...)
	return Keep(s, t, err)
}

// Int32 creates a tensor of I32 with data.
func (s *Scope) Int32(data []int32, shape ...int) *colt5.Tensor {
	t, err := colt5.FromSlice(s.ctx, s.Dev, data, shape...)
	return Keep(s, t, err)
}

// close closes the objects in the reverse order of their creation.
func (s *Scope) close() error {
	var err error
	for _, c := range slices.Backward(s.open) {
		err = errors.Join(err, c.Close())
	}
	s.open = nil
	return err
}
