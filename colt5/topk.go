package colt5

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// TopKConfig configures a TopK. Start from Default[TopKConfig]: zero values are not the defaults.
type TopKConfig struct {
	K                 int     `json:"k"`                    // entries to select, at least 1
	NIters            int     `json:"n_iters"`              // iterations of coordinate descent, at least 1
	Eps               float64 `json:"eps"`                  // smoothness of the soft scores, above 0
	EpsInit           float64 `json:"eps_init"`             // eps of the first iteration; 0: Eps
	EpsDecay          float64 `json:"eps_decay"`            // factor of eps after an iteration, in (0, 1]
	CoorDescentKRatio float64 `json:"coor_descent_k_ratio"` // the descent aims at so many times K, above 0
	NonDifferentiable bool    `json:"non_differentiable"`   // leave the soft scores out
}

func (c *TopKConfig) setDefaults() {
	*c = TopKConfig{NIters: 20, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 9.0 / 8}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *TopKConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

// TopK is a differentiable top-k of the last dimension: values and indices of the hard top-k, and the soft scores of
// coordinate descent, which carry the gradient.
//
//	x [.., N] F32    mask [.., N] U8    values, gates, coor_descent_values [.., K] F32    indices [.., K] I32
//
// Values are in decreasing order; of equal values the lower index comes first. A NaN of either sign is less than minus
// infinity (in PyTorch it is the largest), and makes the row's coor_descent_values undefined. Masked entries are never
// selected. With fewer than K valid entries the remaining slots have value 0, index -1 and gate 0; all other gates are 1.
type TopK struct {
	moduleBase[TopKConfig]
}

// TopKResult has the tensors that receive the result. nil: not wanted.
type TopKResult struct {
	Values            *Tensor // [.., K] F32
	Indices           *Tensor // [.., K] I32
	Gates             *Tensor // [.., K] F32
	CoorDescentValues *Tensor // [.., K] F32; nil if NonDifferentiable
}

// TopKOptions are the optional arguments of TopK.Forward.
type TopKOptions struct {
	Mask  *Tensor    // u8 of the shape of x, 0 for masked entries; nil: no entry is masked
	Stats *CallStats // receives what the call cost; nil: not wanted
}

// NewTopK makes the module on a device.
func NewTopK(dev *vk.Device, c TopKConfig) (*TopK, error) {
	o, err := newModuleBase(context.Background(), "TopK", dev, c)
	if err != nil {
		return nil, err
	}
	return &TopK{o}, nil
}

func (c TopKConfig) check(k checker) error {
	return firstError(
		k.between("K", c.K, 1, maxSelect), k.coorDescent(c.NIters, c.Eps, c.EpsInit, c.EpsDecay), k.within("CoorDescentKRatio", c.CoorDescentKRatio, minK, maxK),
	)
}

func (c TopKConfig) precision() DType { return F32 }

func (c TopKConfig) build(*weights) layer { return c }

// Forward selects from x [.., N], which has at least one dimension, and writes what out has tensors for.
func (t *TopK) Forward(ctx context.Context, out TopKResult, x *Tensor, o TopKOptions) error {
	c, err := t.config.call(out, x, o)
	if err != nil {
		return t.fail("Forward", err)
	}
	return t.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (t *TopK) Prepare(ctx context.Context, out TopKResult, x *Tensor, o TopKOptions) error {
	c, err := t.config.call(out, x, o)
	if err != nil {
		return t.fail("Prepare", err)
	}
	return t.prepare(ctx, &c)
}

func (c TopKConfig) call(out TopKResult, x *Tensor, o TopKOptions) (call, error) {
	if out == (TopKResult{}) {
		return call{}, errors.New("out has no tensors")
	}
	if c.NonDifferentiable && out.CoorDescentValues != nil {
		return call{}, fmt.Errorf("CoorDescentValues is %v, want nil: NonDifferentiable", out.CoorDescentValues)
	}
	entries, selected := shape{dimN}, shape{c.K}
	return call{
		args: args{
			{name: "x", tensor: x, shape: entries},
			{name: "Mask", tensor: o.Mask, dtype: U8, shape: entries, kind: optionalInput},
			{name: "Values", tensor: out.Values, shape: selected, kind: optionalOutput},
			{name: "Indices", tensor: out.Indices, dtype: I32, shape: selected, kind: optionalOutput},
			{name: "Gates", tensor: out.Gates, shape: selected, kind: optionalOutput},
			{name: "CoorDescentValues", tensor: out.CoorDescentValues, shape: selected, kind: optionalOutput},
		},
		anyRank: true, stats: o.Stats,
	}, nil
}

func (c TopKConfig) record(b *builder) {
	rows, n := b.call.lead(), b.dim(dimN)
	a := pipelines.SelectArgs{
		Logits: b.arg("x"), Mask: b.arg("Mask"), Values: b.arg("Values"), Indices: b.argOrWorkspace("Indices", rows, c.K), Valid: b.argOrWorkspace("Gates", rows, c.K),
		Rows: rows, N: n, K: c.K, EmptyIndex: -1, ValidWord: math.Float32bits(1),
	}
	b.recordSelect(pipelines.SelectConfig{Sorted: true}, a)
	if !b.given("CoorDescentValues") {
		return
	}
	b.recordCoorDescent(pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}, pipelines.CoorDescentArgs{
		Logits: a.Logits, Mask: a.Mask, Rows: rows, N: n, K: min(float64(c.K)*c.CoorDescentKRatio, float64(n)),
		Indices: a.Indices, Valid: a.Valid, SelectedScores: b.arg("CoorDescentValues"), Slots: c.K,
	})
}

// Close frees the module. It waits for a call under way. Closing again, or nil, does nothing.
func (t *TopK) Close() error { return closeModule(t) }
