package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// OptimizerState computes on the device what a step of an optimiser needs beside the gradients, so that the host waits
// for nothing: the factor of the gradients, the learning rate, AdamW's bias corrections, whether the step is skipped,
// and the next loss scale.
//
//	norm [2] in: of GradientNorm    loss [2] f32 in: the sum of the losses, the count of labels
//	state [16] in and out, see OptimizerStateWords    records [Capacity, 8] out, optional, see OptimizerRecord
//
//	inverse = 1 / (count * scale), 0 without labels    norm' = norm * inverse
//	factor  = inverse * min(1, clip / (norm' + 1e-6))
//	skip    = overflow of norm                         t = updates, counted without this step if it is skipped
//
// The gradients are those of (sum of losses) * scale; norm' is the norm of those of the mean loss. Skipped steps halve
// the loss scale, GrowthInterval others in a row double it, between 2^-24 and 2^24. A step without labels is a step
// with gradients 0.
//
// Shader: shaders/src/optimizer_state.comp. CPU reference: internal/ref.OptimizerState.
type OptimizerState struct {
	config OptimizerStateConfig
	kernel *vk.Kernel
}

// Schedule is the course of the learning rate.
type Schedule int

// Learning rates at update t = 1, 2, ..; all rise linearly to the peak at update Warm.
const (
	ScheduleConstant    Schedule = iota // the peak
	ScheduleCosine                      // half a cosine from the peak at update Warm to the floor at update Total
	ScheduleInverseSqrt                 // peak * sqrt(Warm / t)
)

// OptimizerStateConfig has the settings of an optimiser.
type OptimizerStateConfig struct {
	Beta1, Beta2   float64  // of AdamW, for the bias corrections: at least 0, below 1
	Clip           float64  // largest norm of the gradients; 0: no clipping
	Schedule       Schedule // 0: constant
	Peak, Floor    float64  // learning rates; Floor is that of ScheduleCosine
	Warm, Total    int      // updates of the warm-up, 0 as 1; for ScheduleCosine updates until the floor, at least Warm
	GrowthInterval int      // steps without overflow that double the loss scale; 0: the scale is constant
}

// OptimizerStateArgs names the memory of one dispatch.
type OptimizerStateArgs struct {
	Norm     vk.Range // [2] words
	Loss     vk.Range // [2]
	State    vk.Range // OptimizerStateBytes
	Records  vk.Range // [Capacity, 8] words; absent: none
	Capacity int      // rows of Records; step i has row i modulo Capacity
}

// OptimizerStateWords is an optimiser's state: the 16 words that OptimizerState and AdamW share. Steps, Updates, Good
// and Scale are kept from step to step; the host sets them before the first one. The others are those of the last step.
type OptimizerStateWords struct {
	Steps   uint32 // steps so far, with those that were skipped
	Updates uint32 // steps that were not skipped
	Good    uint32 // steps without overflow since the scale changed
	Skip    uint32 // 1: the step was skipped

	Scale    float32 // loss scale of the next step; see OptimizerStateScale
	Factor   float32 // of the gradients
	Rate     float32 // learning rate
	StepSize float32 // Rate / (1 - Beta1^Updates)
	Inverse  float32 // 1 / (1 - Beta2^Updates)
	Loss     float32 // mean over the labels; 0 without labels
	Norm     float32 // of the gradients of the mean loss, before clipping
	Labels   float32

	_ [4]uint32
}

const (
	// OptimizerStateBytes is the size of an optimiser's state.
	OptimizerStateBytes = uint64(unsafe.Sizeof(OptimizerStateWords{}))
	// OptimizerStateScale is the byte at which its Scale starts, which a backward pass reads: a multiple of 16.
	OptimizerStateScale = uint64(unsafe.Offsetof(OptimizerStateWords{}.Scale))
)

// OptimizerRecord is what OptimizerState stores of one step: a row of its records.
type OptimizerRecord struct {
	Step    uint32  // from 0
	Updates uint32  // after the step
	Skip    uint32  // 1: the gradients overflowed, and the step changed nothing but the loss scale
	Loss    float32 // mean over the labels
	Norm    float32 // of the gradients of the mean loss, before clipping
	Rate    float32 // learning rate
	Scale   float32 // loss scale that the step used
	Labels  float32
}

// OptimizerRecordBytes is the size of a record.
const OptimizerRecordBytes = uint64(unsafe.Sizeof(OptimizerRecord{}))

type optimizerStatePush struct { // after four addresses
	clip, logBeta1, logBeta2, peak, floor           float32
	schedule, warm, total, growthInterval, capacity uint32
}

var (
	_ = [1]struct{}{}[unsafe.Sizeof(optimizerStatePush{})-40]
	_ = [1]struct{}{}[OptimizerStateBytes-64]
	_ = [1]struct{}{}[OptimizerStateScale-16]
	_ = [1]struct{}{}[OptimizerRecordBytes-32]
)

// NewOptimizerState compiles the kernel.
func NewOptimizerState(dev *vk.Device, c OptimizerStateConfig) (*OptimizerState, error) {
	const op = "OptimizerState"
	c.Warm = max(c.Warm, 1)
	if err := c.check(op); err != nil {
		return nil, err
	}
	k, err := newKernel(dev, "optimizer_state", nil)
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &OptimizerState{c, k}, nil
}

func (c OptimizerStateConfig) check(op string) error {
	for _, b := range []struct {
		name     string
		v, limit float64
	}{
		{"Beta1", c.Beta1, 1}, {"Beta2", c.Beta2, 1},
		{"Clip", c.Clip, math.MaxFloat32}, {"Peak", c.Peak, math.MaxFloat32}, {"Floor", c.Floor, math.MaxFloat32},
	} {
		if !(b.v >= 0 && b.v < b.limit) {
			return fmt.Errorf("pipelines: %s: %s is %v, want at least 0 and less than %v", op, b.name, b.v, b.limit)
		}
	}
	if c.Schedule < ScheduleConstant || c.Schedule > ScheduleInverseSqrt {
		return fmt.Errorf("pipelines: %s: Schedule is %d, want %d to %d", op, c.Schedule, ScheduleConstant, ScheduleInverseSqrt)
	}
	if err := checkPositive(op, dim{"Warm", c.Warm}); err != nil {
		return err
	}
	if c.Schedule == ScheduleCosine && (c.Total < c.Warm || c.Total > math.MaxInt32) {
		return fmt.Errorf("pipelines: %s: Total is %d, want Warm, %d, to %d", op, c.Total, c.Warm, math.MaxInt32)
	}
	if c.GrowthInterval < 0 || c.GrowthInterval > math.MaxInt32 {
		return fmt.Errorf("pipelines: %s: GrowthInterval is %d, want 0 to %d", op, c.GrowthInterval, math.MaxInt32)
	}
	return nil
}

// Record appends one dispatch to a command list.
func (o *OptimizerState) Record(list *vk.CommandList, a OptimizerStateArgs) error {
	const op = "OptimizerState"
	if err := firstError(
		checkTensor(op, "norm", a.Norm, wordAlign, u32, dim{"Words", 2}),
		checkTensor(op, "loss", a.Loss, wordAlign, f32, dim{"Words", 2}),
		checkRange(op, "state", a.State, vec4Align, OptimizerStateBytes, "OptimizerStateBytes"),
	); err != nil {
		return err
	}
	if !a.Records.IsZero() {
		if err := firstError(
			checkPositive(op, dim{"Capacity", a.Capacity}),
			checkTensor(op, "records", a.Records, vec4Align, u32, dim{"Capacity", a.Capacity}, dim{"Words", 8}),
		); err != nil {
			return err
		}
	}
	c := o.config
	logBeta := func(beta float64) float32 { return float32(max(math.Log(beta), -1e30)) }
	return list.Dispatch(vk.Dispatch{
		Kernel: o.kernel, Groups: [3]uint32{1, 1, 1},
		Args: []vk.Access{vk.Read(a.Norm), vk.Read(a.Loss), vk.ReadWrite(a.State), vk.Write(a.Records)},
		Push: vk.Scalars(&optimizerStatePush{
			clip: float32(c.Clip), logBeta1: logBeta(c.Beta1), logBeta2: logBeta(c.Beta2),
			peak: float32(c.Peak), floor: float32(c.Floor),
			schedule: uint32(c.Schedule), warm: uint32(c.Warm), total: uint32(c.Total),
			growthInterval: uint32(c.GrowthInterval), capacity: uint32(a.Capacity),
		}),
		Flops: 100, // about
		Bytes: float64(2*OptimizerStateBytes + OptimizerRecordBytes),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (o *OptimizerState) Close() error {
	if o == nil {
		return nil
	}
	return o.kernel.Close()
}
