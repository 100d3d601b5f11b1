package colt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/vk"
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
// The list may have parameters of this module too. No other goroutine may read, write or share the parameters that are
// replaced, or those of the list, while Share runs; calls of their modules may.
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

// sharedElements is the elements that a parameter gets.
type sharedElements struct {
	parameter *Tensor
	storage   *storage
	memory    vk.Range
}

func (m *base) share(list []Parameter) error {
	shared, err := m.acquireShared(list)
	if err != nil {
		return err
	}
	w := &m.weights
	casts, err := w.newCastList(&m.kernels, shared)
	if err != nil {
		return errors.Join(err, releaseShared(shared))
	}
	// Plans and casts hold the addresses of the old elements.
	if err := errors.Join(m.plans.close(), w.castList.Close()); err != nil {
		return errors.Join(err, casts.Close(), releaseShared(shared))
	}
	w.setCastList(casts)
	for _, s := range shared {
		old, wasClosed := s.parameter.storage, s.parameter.closed.Swap(false)
		s.parameter.storage, s.parameter.memory = s.storage, s.memory
		if !wasClosed {
			err = errors.Join(err, old.release())
		}
	}
	w.shares++
	return err
}

// acquireShared checks a list, and acquires the storage of its tensors. Nothing of the module changes yet: the tensors
// may be its own, two parameters that are exchanged for example.
func (m *base) acquireShared(list []Parameter) (shared []sharedElements, err error) {
	own, replaced := map[string]*Tensor{}, map[string]bool{}
	for _, p := range m.weights.list {
		own[p.Name] = p.Tensor
	}
	for _, p := range list {
		t := own[p.Name]
		switch {
		case t == nil:
			err = fmt.Errorf("list has %s, which is not a parameter of this module", errtext.Quote(p.Name))
		case replaced[p.Name]:
			err = fmt.Errorf("list has %s twice", errtext.Quote(p.Name))
		case p.Tensor == nil || p.Tensor.storage == nil || p.Tensor.dtype != F32 || !sameShape(p.Tensor.shape, t.shape):
			err = fmt.Errorf("%s is %v, want %v%s", p.Name, p.Tensor, t.dtype, shapeString(t.shape))
		case p.Tensor.Device() != m.dev:
			err = fmt.Errorf("%s is on another device than the module: it was made with another vk.Device", p.Name)
		case p.Tensor.closed.Load() || !p.Tensor.storage.acquire():
			err = fmt.Errorf("%s is a tensor that is %w", p.Name, vk.ErrClosed)
		}
		if err != nil {
			return nil, errors.Join(err, releaseShared(shared))
		}
		replaced[p.Name] = true
		shared = append(shared, sharedElements{t, p.Tensor.storage, p.Tensor.memory})
	}
	return shared, nil
}

func releaseShared(list []sharedElements) (err error) {
	for _, s := range list {
		err = errors.Join(err, s.storage.release())
	}
	return err
}
