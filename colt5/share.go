package colt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Share makes the module use other tensors as its parameters: those of another module's Parameters, all of them or some,
// renamed where the names differ. The module gives up its own elements of these parameters.
//
//	err := wide.Share(ctx, narrow.Parameters())                                          // the same weights, another config
//	err := head.Share(ctx, []colt5.Parameter{{Name: "weight", Tensor: embedding}})       // tied embedding
//
// From then on the elements are one: Load, Init and writes through either module change both. The memory is freed when
// all modules that share it are closed. Each tensor must have the shape of the parameter that it replaces and memory on the
// module's device. If Share fails, no parameter has changed.
//
// Calls of modules that share weights are not serialised among each other. Load and Init change weights between two
// submits; a call of more than one submit (more than 0.5 TFLOP) on another module may see both.
func (m *module[C]) Share(ctx context.Context, list []Parameter) error {
	if m.dev == nil && m.busy != nil { // without a device, sharing still matters for Graph.Memory
		if err := m.lock(ctx); err != nil {
			return m.fail("Share", err)
		}
		defer m.leave()
		if err := m.share(list); err != nil {
			return m.fail("Share", err)
		}
		return nil
	}
	return m.exclusive(ctx, "Share", func() error { return m.share(list) })
}

func (m *base) share(list []Parameter) error {
	w := &m.weights
	own := map[string]*Tensor{}
	for _, p := range w.list {
		own[p.Name] = p.Tensor
	}
	replaced := map[string]bool{}
	for _, p := range list {
		t := own[p.Name]
		switch {
		case t == nil:
			return fmt.Errorf("list has %s, which is not a parameter of this module", errtext.Quote(p.Name))
		case replaced[p.Name]:
			return fmt.Errorf("list has %s twice", errtext.Quote(p.Name))
		case p.Tensor == nil || p.Tensor.storage == nil || p.Tensor.dtype != F32 || !sameShape(p.Tensor.shape, t.shape):
			return fmt.Errorf("%s is %v, want %v%s", p.Name, p.Tensor, t.dtype, shapeString(t.shape))
		case p.Tensor.closed.Load():
			return fmt.Errorf("%s is a tensor that is closed", p.Name)
		case p.Tensor.Device() != m.dev:
			return fmt.Errorf("%s is on another device than the module", p.Name)
		}
		replaced[p.Name] = true
	}
	// Plans and casts hold the addresses of the old elements.
	if err := errors.Join(m.plans.close(), w.castList.Close()); err != nil {
		return err
	}
	w.castList = nil
	var err error
	for _, p := range list {
		t := own[p.Name]
		if t.storage == p.Tensor.storage {
			continue
		}
		p.Tensor.users.Add(1)
		err = errors.Join(err, t.Close())
		t.closed.Store(false)
		t.storage, t.memory = p.Tensor.storage, p.Tensor.memory
	}
	w.shares++
	if m.dev != nil {
		err = errors.Join(err, w.recordCasts(&m.kernels))
	}
	return err
}
