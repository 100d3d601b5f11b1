package colt5

import (
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
	core
	config TopKConfig
}

// TopKResult receives the result. Tensors that are nil are not wanted.
type TopKResult struct {
	Values            *Tensor // [.., K] F32
	Indices           *Tensor // [.., K] I32
	Gates             *Tensor // [.., K] F32
	CoorDescentValues *Tensor // [.., K] F32; nil if NonDifferentiable
}

// NewTopK makes it on a device.
func NewTopK(dev *vk.Device, c TopKConfig) (*TopK, error) {
	const op = "NewTopK"
	if err := firstError(
		needDevice(op, dev), atLeast(op, "K", c.K, 1), checkDescent(op, c.NIters, c.Eps, 0, 1), aboveZero(op, "CoorDescentKRatio", c.CoorDescentKRatio),
	); err != nil {
		return nil, err
	}
	t := &TopK{config: c}
	t.open("TopK", dev, F32)
	return t, nil
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
	tensors := [...]*Tensor{topKX: x, topKMask: mask, topKValues: out.Values, topKIndices: out.Indices, topKGates: out.Gates, topKSoft: out.CoorDescentValues}
	key := planKey{sizes: [6]int{x.Len() / n, n, given(tensors[:])}}
	p := t.find(&key)
	if p == nil {
		var err error
		if p, err = t.plan(op, key, tensors[:]); err != nil {
			return err
		}
	}
	return t.run(op, p, tensors[:])
}

// The tensors of a call, in the order of the plan's slots.
const (
	topKX = iota
	topKMask
	topKValues
	topKIndices
	topKGates
	topKSoft
)

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

func (t *TopK) plan(op string, key planKey, tensors []*Tensor) (*plan, error) {
	names := []string{"x", "mask", "Values", "Indices", "Gates", "CoorDescentValues"}
	return t.prepare(op, key, tensors, names, func(b *builder) { t.wire(b, key.sizes[0], key.sizes[1], key.sizes[2]) })
}

// wire chooses from rows of n entries; has are the bits of the tensors that are there.
func (t *TopK) wire(b *builder, rows, n, has int) {
	k := t.config.K
	place := func(tensor int) vk.Range {
		if has>>tensor&1 != 0 {
			return b.slot(tensor)
		}
		return b.floats(rows, k).Range
	}
	a := pipelines.SelectArgs{
		Logits: b.slot(topKX), Mask: b.slot(topKMask), Values: b.slot(topKValues), Indices: place(topKIndices), Valid: place(topKGates),
		Rows: rows, N: n, K: k, EmptyIndex: -1, ValidWord: math.Float32bits(1),
	}
	b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	if has>>topKSoft&1 == 0 {
		return
	}
	b.recordCoorDescent(pipelines.CoorDescentConfig{Iters: t.config.NIters, Eps: t.config.Eps}, pipelines.CoorDescentArgs{
		Logits: a.Logits, Mask: a.Mask, Rows: rows, N: n, K: min(float64(k)*t.config.CoorDescentKRatio, float64(n)),
		Indices: a.Indices, Valid: a.Valid, SelectedScores: b.slot(topKSoft), Slots: k,
	})
}

// Close frees it. Closing again, or nil, does nothing.
func (t *TopK) Close() error {
	if t == nil {
		return nil
	}
	return t.close()
}
