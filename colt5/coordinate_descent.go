package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// CoordinateDescentConfig configures a CoordinateDescent. Start from
// Default[CoordinateDescentConfig]: zero values are not the defaults.
type CoordinateDescentConfig struct {
	K        float64 `json:"k"`         // the sum of the scores to aim at, above 0; may have a fraction
	NIters   int     `json:"n_iters"`   // iterations, at least 1
	Eps      float64 `json:"eps"`       // smoothness, above 0
	EpsInit  float64 `json:"eps_init"`  // eps of the first iteration; 0: Eps
	EpsDecay float64 `json:"eps_decay"` // factor of eps after an iteration, in (0, 1]
}

func (c *CoordinateDescentConfig) setDefaults() {
	o := Default[RouterSettings]()
	*c = CoordinateDescentConfig{NIters: o.NIters, Eps: o.Eps, EpsInit: o.EpsInit, EpsDecay: o.EpsDecay}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *CoordinateDescentConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

// CoordinateDescent computes from each row of logits scores in [0, 1] that sum to about K, the largest logits scoring
// 1: a soft top-k.
//
//	s [Rows, N] F32    mask [Rows, N] U8    y [Rows, N] F32
//
// Source: arXiv 1502.04759, 2304.04947.
type CoordinateDescent struct {
	moduleBase[CoordinateDescentConfig]
}

// NewCoordinateDescent makes the module on a device.
func NewCoordinateDescent(dev *vk.Device, c CoordinateDescentConfig) (*CoordinateDescent, error) {
	o, err := newModuleBase(context.Background(), "CoordinateDescent", dev, c)
	if err != nil {
		return nil, err
	}
	return &CoordinateDescent{o}, nil
}

func (c CoordinateDescentConfig) check(k checker) error {
	return firstError(k.aboveZero("K", c.K), k.coorDescent(c.NIters, c.Eps, c.EpsInit, c.EpsDecay))
}

func (c CoordinateDescentConfig) precision() DType { return F32 }

func (c CoordinateDescentConfig) build(*weights) layer { return c }

// SelectOptions are the optional arguments of CoordinateDescent.Forward and TopK.Forward.
type SelectOptions struct {
	Mask  *Tensor    // u8 of the input's shape, 0 for masked entries; nil: no entry is masked
	Stats *CallStats // receives what the call cost; nil: not wanted
}

// Forward writes the scores of s [Rows, N] to y. Masked entries score 0.
func (d *CoordinateDescent) Forward(ctx context.Context, y, s *Tensor, o SelectOptions) error {
	c := call{
		args: args{
			{name: "s", tensor: s, shape: shape{dimB, dimN}},
			{name: "y", tensor: y, shape: shape{dimB, dimN}, kind: output},
			{name: "Mask", tensor: o.Mask, dtype: U8, shape: shape{dimB, dimN}, kind: optionalInput},
		},
		stats: o.Stats,
	}
	return d.run(ctx, &c)
}

func (c CoordinateDescentConfig) record(b *builder) {
	b.recordCoorDescent(pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}, pipelines.CoorDescentArgs{
		Scores: b.arg("y"), Logits: b.arg("s"), Mask: b.arg("Mask"), Rows: b.dim(dimB), N: b.dim(dimN), K: c.K,
	})
}

// Close frees the module. It waits for a call under way. Closing again, or nil, does nothing.
func (d *CoordinateDescent) Close() error { return closeModule(d) }
