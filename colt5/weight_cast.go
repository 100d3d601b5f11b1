package colt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// matrix adds the weight of a matrix product, [out, in]. With a 16-bit precision the product reads a cast copy of it.
func (w *weights) matrix(name string, out, in int) *Tensor {
	if w.precision != F32 && in > maxRow16 && w.err == nil {
		w.err = fmt.Errorf("parameter %s: its rows have %d numbers, want at most %d with Precision %v", name, in, maxRow16, w.precision)
	}
	t := w.add(name, uniform(in), out, in)
	if w.err != nil || w.precision == F32 {
		return t
	}
	w.castBytes = min(w.castBytes+castMatrixBytes(w.precision, t), maxBytes)
	w.matrices = append(w.matrices, t)
	if w.dev == nil {
		return t
	}
	var err error
	if t.cast, err = w.dev.NewBuffer(fmt.Sprintf("%s in %v", name, w.precision), castMatrixBytes(w.precision, t)); err != nil {
		w.err = fmt.Errorf("parameter %s: %w", name, err)
	}
	return t
}

func castMatrixBytes(p DType, t *Tensor) uint64 {
	return 2 * uint64(t.shape[0]) * uint64(p.Columns(t.shape[1]))
}

// cast renews the copies of the matrices that changed since the last cast. Parameters are tensors like any other: the
// caller may write them, and so may another module's call.
func (w *weights) cast(ctx context.Context) error {
	if err := w.incomplete(); err != nil {
		return err
	}
	stale := false
	for i, t := range w.matrices {
		if now := t.version.Load(); now != w.castVersions[i] {
			stale, w.castVersions[i] = true, now
		}
	}
	if !stale {
		return nil
	}
	err := w.castList.Submit(ctx) // what is submitted later runs behind it
	if err != nil {
		clear(w.castVersions)
	}
	return err
}

// recordCasts records the command list of cast.
func (w *weights) recordCasts(k *kernels) error {
	list, err := w.newCastList(k, nil)
	if err != nil {
		return err
	}
	w.setCastList(list)
	return nil
}

// setCastList replaces the closed command list of cast. The next cast runs it.
func (w *weights) setCastList(list *vk.CommandList) {
	w.castList, w.castVersions = list, make([]uint64, len(w.matrices))
}

// newCastList returns a command list that casts the matrices. They have the elements of the module's tensors, or those
// of shared.
func (w *weights) newCastList(k *kernels, shared []sharedElements) (list *vk.CommandList, err error) {
	if len(w.matrices) == 0 || w.dev == nil {
		return nil, nil
	}
	if list, err = w.dev.NewCommandList(vk.CommandListConfig{Name: "cast of weights"}); err != nil {
		return nil, err
	}
	for _, t := range w.matrices {
		from := t.memory
		for _, s := range shared {
			if s.parameter == t {
				from = s.memory
			}
		}
		c, err := kernel(k, pipelines.NewCast, pipelines.CastConfig{C: t.shape[1], Precision: w.precision})
		if err == nil {
			err = c.Record(list, pipelines.CastArgs{X: from, Y: t.cast.Range(), Rows: t.shape[0]})
		}
		if err != nil {
			return nil, errors.Join(err, list.Close())
		}
	}
	return list, nil
}

// closeCasts frees the copies.
func (w *weights) closeCasts() error {
	err := w.castList.Close()
	for _, t := range w.matrices {
		err = errors.Join(err, t.cast.Close())
	}
	return err
}
