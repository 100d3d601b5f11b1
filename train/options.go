package train

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
)

// AdamW has the settings of the optimiser. The zero value has the defaults.
type AdamW struct {
	Rate  float64 // the peak of the learning rate; 0: 3e-4
	Beta1 float64 // decay of the mean of the gradients, below 1; 0: 0.9; below 0: none
	Beta2 float64 // decay of the mean of their squares, below 1; 0: 0.999; below 0: none
	Eps   float64 // added to the root of that mean; 0: 1e-8
	Decay float64 // weight decay, times the learning rate; 0: 0.01; below 0: none
}

// Schedule is the course of the learning rate over the updates t = 1, 2, .. of the parameters. The zero value is a
// constant rate. Steps that are skipped, because gradients overflowed, are no updates.
type Schedule struct {
	Kind   ScheduleKind // 0: constant
	WarmUp int          // updates in which the rate rises linearly to its peak, from peak / WarmUp at t = 1; 0: none
	Total  int          // of Cosine: updates until the rate is Floor; no default
	Floor  float64      // of Cosine: the rate from then on; 0: 0
}

// ScheduleKind is the course of the learning rate after the warm-up.
type ScheduleKind int

// The learning rates of updates t after the warm-up.
const (
	Constant          ScheduleKind = iota // the peak
	Cosine                                // half a cosine, from the peak to the floor
	InverseSquareRoot                     // peak * sqrt(max(WarmUp, 1) / t)
)

// LossScale is the factor of the loss, whose gradients would underflow in float16. The zero value is for float32 and
// bfloat16: a factor of 1.
type LossScale struct {
	Dynamic        bool    // for float16: halved when gradients overflow, doubled after GrowthInterval steps without
	Initial        float64 // 0: 65,536 if Dynamic, else 1
	GrowthInterval int     // of Dynamic; 0: 2,000
}

// OptimizerConfig configures an Optimizer. The zero value has the defaults.
type OptimizerConfig struct {
	AdamW        AdamW
	Schedule     Schedule
	Clip         float64 // largest norm of the gradients of all parameters; 0: no clipping
	LossScale    LossScale
	MicroBatches int // parts of a step's batch whose gradients are added; 0: 1
	Records      int // steps whose records the device keeps; 0: 1,024

	DropoutSeed uint64 // of the dropout of a Trainer's graph; the same seed drops the same elements in each step

	// Recompute is activation checkpointing in a Trainer's steps: the number of layers, from the first one on, that compute their
	// activations again in the backward pass, instead of keeping them. 0: none; -1: all. See colt5.Backward.
	Recompute int
}

// defaulted returns value, or its default if it is 0, or 0 if it is below.
func defaulted(value, standard float64) float64 {
	if value == 0 {
		return standard
	}
	return max(value, 0)
}

// withDefaults returns the config with its defaults in place.
func (c OptimizerConfig) withDefaults() OptimizerConfig {
	if c.AdamW.Rate == 0 {
		c.AdamW.Rate = 3e-4
	}
	if c.AdamW.Eps == 0 {
		c.AdamW.Eps = 1e-8
	}
	c.AdamW.Beta1, c.AdamW.Beta2 = defaulted(c.AdamW.Beta1, 0.9), defaulted(c.AdamW.Beta2, 0.999)
	c.AdamW.Decay = defaulted(c.AdamW.Decay, 0.01)
	if c.LossScale.Initial == 0 {
		c.LossScale.Initial = 1
		if c.LossScale.Dynamic {
			c.LossScale.Initial = 65536
		}
	}
	if c.LossScale.GrowthInterval == 0 {
		c.LossScale.GrowthInterval = 2000
	}
	if c.MicroBatches == 0 {
		c.MicroBatches = 1
	}
	if c.Records == 0 {
		c.Records = 1024
	}
	return c
}

const (
	maxMicroBatches = 1 << 20
	maxRecords      = 1 << 20
	smallestScale   = 0x1p-24 // of OptimizerState
	largestScale    = 0x1p24
)

// check checks what the kernels do not.
func (c OptimizerConfig) check() error {
	if s := c.LossScale.Initial; !(s >= smallestScale && s <= largestScale) {
		return fmt.Errorf("LossScale.Initial is %v, want %v to %v", s, smallestScale, largestScale)
	}
	if c.LossScale.GrowthInterval < 0 {
		return fmt.Errorf("LossScale.GrowthInterval is %d, want at least 0", c.LossScale.GrowthInterval)
	}
	if c.MicroBatches < 1 || c.MicroBatches > maxMicroBatches {
		return fmt.Errorf("MicroBatches is %d, want 0 to %d", c.MicroBatches, maxMicroBatches)
	}
	if c.Records < 1 || c.Records > maxRecords {
		return fmt.Errorf("Records is %d, want 0 to %d", c.Records, maxRecords)
	}
	if c.Recompute < -1 {
		return fmt.Errorf("%s is %d, want a number of layers, or -1 for all", "Recompute", c.Recompute)
	}
	if c.Schedule.WarmUp < 0 {
		return fmt.Errorf("Schedule.WarmUp is %d, want at least 0", c.Schedule.WarmUp)
	}
	return nil
}

// state is the config of the kernel that computes rate, loss scale and the like.
func (c OptimizerConfig) state() pipelines.OptimizerStateConfig {
	s := pipelines.OptimizerStateConfig{
		Beta1: c.AdamW.Beta1, Beta2: c.AdamW.Beta2, Clip: c.Clip, Schedule: pipelines.Schedule(c.Schedule.Kind),
		Peak: c.AdamW.Rate, Floor: c.Schedule.Floor, Warm: c.Schedule.WarmUp, Total: c.Schedule.Total,
	}
	if c.LossScale.Dynamic {
		s.GrowthInterval = c.LossScale.GrowthInterval
	}
	return s
}
