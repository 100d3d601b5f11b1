package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// CoordinateDescentConfig configures a CoordinateDescent. Start from DefaultCoordinateDescentConfig.
type CoordinateDescentConfig struct {
	K        float64       `json:"k"`         // the sum of the scores to aim at, above 0; may have a fraction
	NIters   int           `json:"n_iters"`   // iterations, at least 1
	Eps      float64       `json:"eps"`       // smoothness, above 0
	EpsInit  OptionalFloat `json:"eps_init"`  // eps of the first iteration; 0: Eps
	EpsDecay float64       `json:"eps_decay"` // factor of eps after an iteration, in (0, 1]
}

// DefaultCoordinateDescentConfig is the schedule of a router; K is left to the caller.
func DefaultCoordinateDescentConfig() CoordinateDescentConfig {
	o := DefaultRouterOptions()
	return CoordinateDescentConfig{NIters: o.NIters, Eps: o.Eps, EpsInit: o.EpsInit, EpsDecay: o.EpsDecay}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *CoordinateDescentConfig) UnmarshalJSON(data []byte) error {
	type plain CoordinateDescentConfig
	*c = DefaultCoordinateDescentConfig()
	return decode("CoordinateDescentConfig", data, (*plain)(c))
}

// CoordinateDescent turns each row of logits into scores in [0, 1] that sum to about K, the largest logits scoring 1: a soft top-k.
//
//	s [Rows, N] F32    mask [Rows, N] U8    y [Rows, N] F32
//
// Source: arXiv 1502.04759, 2304.04947.
type CoordinateDescent struct {
	core
	config CoordinateDescentConfig
}

// NewCoordinateDescent makes it on a device.
func NewCoordinateDescent(dev *vk.Device, c CoordinateDescentConfig) (*CoordinateDescent, error) {
	const op = "NewCoordinateDescent"
	if err := firstError(needDevice(op, dev), aboveZero(op, "K", c.K), checkDescent(op, c.NIters, c.Eps, float64(c.EpsInit), c.EpsDecay)); err != nil {
		return nil, err
	}
	d := &CoordinateDescent{config: c}
	d.open("CoordinateDescent", dev, F32)
	return d, nil
}

// Forward writes the scores of s [Rows, N] to y. Where the mask [Rows, N] (nil: none) is 0 the score is 0.
func (d *CoordinateDescent) Forward(y, s, mask *Tensor) error {
	const op = "CoordinateDescent.Forward"
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed(op)
	}
	if err := s.want(op, "s", d.dev, F32, -1, -1); err != nil {
		return err
	}
	rows, n := s.shape[0], s.shape[1]
	if err := firstError(y.want(op, "y", d.dev, F32, rows, n), mask.optional(op, "mask", d.dev, U8, rows, n)); err != nil {
		return err
	}
	key := planKey{sizes: [6]int{rows, n}, given: [2]bool{mask != nil}}
	tensors := [...]*Tensor{y, s, mask}
	p := d.find(&key)
	if p == nil {
		var err error
		if p, err = d.plan(op, key, tensors[:]); err != nil {
			return err
		}
	}
	return d.run(op, p, tensors[:])
}

func (d *CoordinateDescent) plan(op string, key planKey, tensors []*Tensor) (*plan, error) {
	c := d.config
	config := pipelines.CoorDescentConfig{Iters: c.NIters, Eps: c.Eps, EpsInit: float64(c.EpsInit), EpsDecay: c.EpsDecay}
	return d.prepare(op, key, tensors, []string{"y", "s", "mask"}, func(b *builder) {
		b.recordCoorDescent(config, pipelines.CoorDescentArgs{
			Scores: b.slot(0), Logits: b.slot(1), Mask: b.slot(2), Rows: key.sizes[0], N: key.sizes[1], K: c.K,
		})
	})
}

// Close frees it. Closing again, or nil, does nothing.
func (d *CoordinateDescent) Close() error {
	if d == nil {
		return nil
	}
	return d.close()
}
