package colt5

import (
	"errors"
	"fmt"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
)

// adviseBatch adds to an error that a plan does not fit into the free memory how many of its batch items would fit.
// smaller makes the program for fewer items; 0 items: the call has no batch.
func adviseBatch(err error, dev *vk.Device, items int, smaller func(items int) (*program, error)) error {
	if items == 0 || !errors.Is(err, vk.ErrOutOfMemory) {
		return err
	}
	free := dev.FreeMemory()
	fits := func(items int) (fits, ok bool) {
		p, err := smaller(items)
		if err != nil {
			return false, false
		}
		b := &builder{caps: dev.Caps()}
		b.layOut(p)
		return b.err == nil && b.peak <= free, true
	}
	if all, ok := fits(items); all || !ok {
		return err // something else is missing
	}
	most, tooMany := 0, items
	for tooMany-most > 1 {
		n := most + (tooMany-most)/2
		good, ok := fits(n)
		switch {
		case !ok:
			return err
		case good:
			most = n
		default:
			tooMany = n
		}
	}
	if most == 0 {
		return fmt.Errorf("%w; not even one batch item fits", err)
	}
	return fmt.Errorf("%w; a batch of at most %d of the %d items fits", err, most, items)
}

// adviseBatch is adviseBatch for a run with these tensors. The first dimension of the first input counts the items, and
// that of all tensors that have the same.
func (g *Graph) adviseBatch(err error, given []*Tensor, back *Backward) error {
	first := slices.IndexFunc(given, func(t *Tensor) bool { return t != nil })
	if first < 0 || first >= len(g.inputs) {
		return err
	}
	items := given[first].shape[0]
	return adviseBatch(err, g.dev, items, func(n int) (*program, error) {
		list := slices.Clone(given)
		for i, t := range list {
			flat := back != nil && i == len(list)-1 // the gradients of parameters
			if t != nil && t.shape[0] == items && !flat {
				list[i] = &Tensor{dtype: t.dtype, shape: append([]int{n}, t.shape[1:]...)}
			}
		}
		p, err := g.resolve(list[:len(g.inputs)+len(g.outputs)], &call{dropout: back != nil})
		if err == nil && back != nil {
			err = g.resolveBackward(p, list, back.offsets(), back.Recompute)
		}
		return p, err
	})
}
