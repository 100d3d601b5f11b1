package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// CoordinateDescentConfig configures a CoordinateDescent. Start from
// Default[CoordinateDescentConfig]: zero values are not the defaults.
type CoordinateDescentConfig struct {
	K        float64 `json:"k"`         // the sum of the scores to aim at, may have a fraction; CoordinateDescentOptions.K replaces it
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
//	s [.., N] F32    mask [.., N] U8    k [..] F32    y [.., N] F32
//
// Logits are clamped to -1e38 .. 1e38, so infinities are allowed. The scores of a row with a NaN are undefined.
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
	return firstError(k.within("K", c.K, minK, maxK), k.coorDescent(c.NIters, c.Eps, c.EpsInit, c.EpsDecay))
}

func (c CoordinateDescentConfig) precision() DType { return F32 }

func (c CoordinateDescentConfig) build(*weights) layer { return c }

// CoordinateDescentOptions are the optional arguments of CoordinateDescent.Forward.
type CoordinateDescentOptions struct {
	Mask *Tensor // u8 of the shape of s, 0 for masked entries; nil: no entry is masked
	// K is the K of each row: F32 of the shape of s without its last dimension, [1] for a single row s [N]. Values are
	// clamped to 1e-6 .. 1e30. They are not checked for NaN, which a driver may clamp to either bound; the CPU driver
	// takes 1e-6. nil: the configuration's, for all rows.
	K     *Tensor
	Stats *CallStats // receives what the call cost; nil: not wanted
}

// Forward writes the scores of s [.., N], which has at least one dimension, to y. Masked entries score 0.
func (d *CoordinateDescent) Forward(ctx context.Context, y, s *Tensor, o CoordinateDescentOptions) error {
	c := o.call(y, s)
	return d.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (d *CoordinateDescent) Prepare(ctx context.Context, y, s *Tensor, o CoordinateDescentOptions) error {
	c := o.call(y, s)
	return d.prepare(ctx, &c)
}

func (o CoordinateDescentOptions) call(y, s *Tensor) call {
	row, k := shape{dimN}, shape{}
	if s != nil && len(s.shape) == 1 {
		k = shape{1}
	}
	return call{
		args: args{
			{name: "s", tensor: s, shape: row},
			{name: "y", tensor: y, shape: row, kind: output},
			{name: "Mask", tensor: o.Mask, dtype: U8, shape: row, kind: optionalInput},
			{name: "K", tensor: o.K, shape: k, kind: optionalInput},
		},
		anyRank: true, stats: o.Stats,
	}
}

func (c CoordinateDescentConfig) record(b *builder) {
	a := pipelines.CoorDescentArgs{
		Scores: b.arg("y"), Logits: b.arg("s"), Mask: b.arg("Mask"), RowK: b.arg("K"), Rows: b.call.lead(), N: b.dim(dimN), K: c.K,
	}
	if b.given("K") {
		a.K = 0
	}
	b.recordCoorDescent(pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: c.EpsDecay}, a)
}

// Close frees the module. It waits for a call under way. Closing again, or nil, does nothing.
func (d *CoordinateDescent) Close() error { return closeModule(d) }
