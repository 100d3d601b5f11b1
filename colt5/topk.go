package colt5

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// TopKConfig configures a TopK. Start from DefaultTopKConfig.
type TopKConfig struct {
	K                 int     `json:"k"`                    // entries to choose, at least 1
	NIters            int     `json:"n_iters"`              // iterations of coordinate descent, at least 1
	Eps               float64 `json:"eps"`                  // smoothness of the soft scores, above 0
	CoorDescentKRatio float64 `json:"coor_descent_k_ratio"` // the descent aims at so many times K, above 0
	NonDifferentiable bool    `json:"non_differentiable"`   // leave the soft scores out
}

// DefaultTopKConfig returns the reference's defaults; K is left to the caller.
func DefaultTopKConfig() TopKConfig {
	return TopKConfig{NIters: 20, Eps: 0.1, CoorDescentKRatio: 9.0 / 8}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *TopKConfig) UnmarshalJSON(data []byte) error {
	type plain TopKConfig
	*c = DefaultTopKConfig()
	return decode("TopKConfig", data, (*plain)(c))
}

// TopK is a differentiable top-k of the last dimension: hard values and indices forward, and the soft scores of coordinate descent
// that carry the gradient.
//
//	x [.., N] F32    mask [.., N] U8    values, gates, coor_descent_values [.., K] F32    indices [.., K] I32
//
// Values fall; of equal ones the lower index comes first. A masked entry is never chosen: with fewer than K valid ones the slots left
// over have value 0, index -1 and gate 0; the other gates are 1.
type TopK struct {
	guard
	dev     *vk.Device
	config  TopKConfig
	choose  *pipelines.Select
	descent *pipelines.CoorDescent // nil if not differentiable
	pick    *pipelines.Gather
	plans   plans[topKKey]
}

// TopKResult receives the result. Tensors that are nil are not wanted.
type TopKResult struct {
	Values            *Tensor // [.., K] F32
	Indices           *Tensor // [.., K] I32
	Gates             *Tensor // [.., K] F32
	CoorDescentValues *Tensor // [.., K] F32; nil if NonDifferentiable
}

type topKKey struct {
	rows, n                            int
	mask, values, indices, gates, soft bool
}

// NewTopK makes it on a device.
func NewTopK(dev *vk.Device, c TopKConfig) (*TopK, error) {
	const op = "NewTopK"
	if err := firstError(
		needDevice(op, dev), atLeast(op, "K", c.K, 1), checkDescent(op, c.NIters, c.Eps, 0, 1), aboveZero(op, "CoorDescentKRatio", c.CoorDescentKRatio),
	); err != nil {
		return nil, err
	}
	t := &TopK{dev: dev, config: c}
	if err := t.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("colt5: %s: %w", op, err), t.Close())
	}
	return t, nil
}

func (t *TopK) build() (err error) {
	if t.choose, err = pipelines.NewSelect(t.dev, pipelines.SelectConfig{Sorted: true}); err != nil || t.config.NonDifferentiable {
		return err
	}
	if t.descent, err = pipelines.NewCoorDescent(t.dev, pipelines.CoorDescentConfig{Iters: t.config.NIters, Eps: t.config.Eps}); err != nil {
		return err
	}
	t.pick, err = pipelines.NewGather(t.dev, pipelines.GatherConfig{C: 1})
	return err
}

// Forward chooses from x [.., N], which has at least one dimension, and writes what out asks for. The mask has x's shape; nil: none.
func (t *TopK) Forward(out TopKResult, x, mask *Tensor) error {
	const op = "TopK.Forward"
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed(op)
	}
	if err := t.checkCall(op, out, x, mask); err != nil {
		return err
	}
	n := x.shape[len(x.shape)-1]
	key := topKKey{x.Len() / n, n, mask != nil, out.Values != nil, out.Indices != nil, out.Gates != nil, out.CoorDescentValues != nil}
	tensors := [...]*Tensor{x, mask, out.Values, out.Indices, out.Gates, out.CoorDescentValues}
	p := t.plans.find(key)
	if p == nil {
		var err error
		if p, err = t.plan(key, tensors[:]); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
		if err := t.plans.add(key, p); err != nil {
			return fmt.Errorf("colt5: %s: %w", op, err)
		}
	}
	return t.run(op, p, tensors[:])
}

func (t *TopK) checkCall(op string, out TopKResult, x, mask *Tensor) error {
	if x == nil || x.dtype != F32 {
		return fmt.Errorf("colt5: %s: x is %v, want F32[.. *]", op, x)
	}
	if out == (TopKResult{}) {
		return fmt.Errorf("colt5: %s: out asks for nothing", op)
	}
	if t.config.NonDifferentiable && out.CoorDescentValues != nil {
		return fmt.Errorf("colt5: %s: CoorDescentValues is %v, want nil: NonDifferentiable", op, out.CoorDescentValues)
	}
	if err := firstError(x.want(op, "x", t.dev, F32, x.shape...), mask.optional(op, "mask", t.dev, U8, x.shape...)); err != nil {
		return err
	}
	return firstError(
		t.slots(op, "Values", out.Values, F32, x), t.slots(op, "Indices", out.Indices, I32, x),
		t.slots(op, "Gates", out.Gates, F32, x), t.slots(op, "CoorDescentValues", out.CoorDescentValues, F32, x),
	)
}

// slots checks an output: x's shape, but for K in the last dimension.
func (t *TopK) slots(op, arg string, o *Tensor, dtype DType, x *Tensor) error {
	last := len(x.shape) - 1
	if o == nil || o.Device() == t.dev && o.dtype == dtype && len(o.shape) == last+1 && slices.Equal(o.shape[:last], x.shape[:last]) && o.shape[last] == t.config.K {
		return nil
	}
	return o.want(op, arg, t.dev, dtype, append(x.Shape()[:last], t.config.K)...)
}

func (t *TopK) plan(key topKKey, tensors []*Tensor) (*plan, error) {
	k := t.config.K
	slots := 4 * uint64(key.rows) * uint64(k)
	var l layout
	var indices, gates, soft, descentTmp piece
	if !key.indices {
		indices = l.take(slots)
	}
	if !key.gates {
		gates = l.take(slots)
	}
	chooseTmp := l.take(t.choose.Scratch(key.rows, key.n, k, 0))
	l.give(chooseTmp)
	if key.soft {
		soft = l.take(4 * uint64(key.rows) * uint64(key.n))
		descentTmp = l.take(t.descent.Scratch(key.rows, key.n, 0))
	}
	b, err := t.newBuilder(t.dev, "TopK", &l, tensors, "x", "mask", "Values", "Indices", "Gates", "CoorDescentValues")
	if err != nil {
		return nil, err
	}
	at := func(slot int, p piece) vk.Range {
		if p.size > 0 {
			return b.at(p)
		}
		return b.slot(slot)
	}
	a := pipelines.SelectArgs{
		Logits: b.slot(0), Mask: b.slot(1), Values: b.slot(2), Indices: at(3, indices), Filled: at(4, gates), Scratch: b.at(chooseTmp),
		Rows: key.rows, N: key.n, K: k, EmptyIndex: -1, FilledWord: math.Float32bits(1),
	}
	if err := t.choose.Record(b.tape, a); err != nil || !key.soft {
		return b.done(err)
	}
	err = t.descent.Record(b.tape, pipelines.CoorDescentArgs{
		Logits: a.Logits, Mask: a.Mask, Scores: b.at(soft), Scratch: b.at(descentTmp), Rows: key.rows, N: key.n,
		K: min(float64(k)*t.config.CoorDescentKRatio, float64(key.n)),
	})
	if err != nil {
		return b.done(err)
	}
	return b.done(t.pick.Record(b.tape, pipelines.GatherArgs{
		X: b.at(soft), Indices: a.Indices, Filled: a.Filled, Y: b.slot(5), B: key.rows, N: key.n, K: k,
	}))
}

// Close frees it. Closing again, or nil, does nothing.
func (t *TopK) Close() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true // what fails to close, because the device is still busy, is tried again by another Close
	return errors.Join(t.plans.close(), t.choose.Close(), t.descent.Close(), t.pick.Close())
}
