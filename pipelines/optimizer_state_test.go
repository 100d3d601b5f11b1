package pipelines

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stepInput is what the backward pass of one step gives.
type stepInput struct {
	norm         float32
	overflow     uint32
	loss, labels float32
}

// runOptimizerState runs one step and returns its state and its record.
func runOptimizerState(t *testing.T, c OptimizerStateConfig, state OptimizerStateWords, in stepInput) (OptimizerStateWords, []uint32) {
	t.Helper()
	gpu := gputest.New(t)
	o, err := NewOptimizerState(gpu.Dev, c)
	require.NoError(t, err)
	defer o.Close()
	const capacity = 3
	a := OptimizerStateArgs{
		Norm: gpu.In("norm", []uint32{math.Float32bits(in.norm), in.overflow}), Loss: gpu.In("loss", []float32{in.loss, in.labels}),
		State: gpu.InOut("state", stateWords(state)), Records: gpu.InOut("records", make([]uint32, 8*capacity)), Capacity: capacity,
	}
	gpu.Run(func(list *vk.CommandList) error { return o.Record(list, a) })
	w, f := gpu.Uint32("state"), gpu.Float32("state")
	assert.Equal(t, []uint32{0, 0, 0, 0}, w[12:])
	row := int(state.Steps) % capacity
	records := gpu.Uint32("records")
	for i, word := range records {
		if i/8 != row {
			assert.Zero(t, word, "row %d of the records", i/8)
		}
	}
	return OptimizerStateWords{
		Steps: w[0], Updates: w[1], Good: w[2], Skip: w[3], Scale: f[4], Factor: f[5], Rate: f[6], StepSize: f[7], Inverse: f[8], Loss: f[9], Norm: f[10], Labels: f[11],
	}, records[8*row : 8*row+8]
}

// assertState compares a state with its reference.
func assertState(t *testing.T, want ref.OptimizerState, got OptimizerStateWords, label string) {
	t.Helper()
	near := func(want float64, got float32, field string) {
		assert.InDelta(t, want, got, 2e-6*math.Abs(want), "%s: %s", label, field)
	}
	assert.EqualValues(t, want.Steps, got.Steps, label)
	assert.EqualValues(t, want.Updates, got.Updates, label)
	assert.EqualValues(t, want.Good, got.Good, label)
	assert.EqualValues(t, want.Scale, got.Scale, label)
	assert.Equal(t, want.Skip, got.Skip == 1, label)
	near(want.Factor, got.Factor, "factor")
	near(want.Rate, got.Rate, "rate")
	near(want.Loss, got.Loss, "loss")
	near(want.Norm, got.Norm, "norm")
	if want.Updates > 0 { // else nothing reads it
		near(want.Rate/want.Correction1, got.StepSize, "step size")
		near(1/want.Correction2, got.Inverse, "inverse")
	}
}

// Many steps in a row, with overflows and steps without labels, under every schedule.
func TestOptimizerState(t *testing.T) {
	const warm, total = 4, 11
	for name, c := range map[string]struct {
		config OptimizerStateConfig
		rate   func(t float64) float64
	}{
		"constant":          {OptimizerStateConfig{Beta1: 0.9, Beta2: 0.999, Peak: 3e-4, GrowthInterval: 3}, ref.ConstantRate(3e-4, 0)},
		"constant, warm":    {OptimizerStateConfig{Beta1: 0.9, Beta2: 0.95, Peak: 3e-4, Warm: warm, Clip: 1, GrowthInterval: 1}, ref.ConstantRate(3e-4, warm)},
		"cosine":            {OptimizerStateConfig{Peak: 1, Floor: 0.1, Schedule: ScheduleCosine, Total: total, Clip: 0.5}, ref.CosineRate(1, 0.1, 0, total)},
		"cosine, warm":      {OptimizerStateConfig{Beta1: 0.5, Peak: 1, Schedule: ScheduleCosine, Warm: warm, Total: total, GrowthInterval: 2}, ref.CosineRate(1, 0, warm, total)},
		"inverse, warm":     {OptimizerStateConfig{Beta2: 0.9, Peak: 1, Schedule: ScheduleInverseSqrt, Warm: warm}, ref.InverseSqrtRate(1, warm)},
		"inverse":           {OptimizerStateConfig{Beta1: 0.99, Peak: 1, Schedule: ScheduleInverseSqrt}, ref.InverseSqrtRate(1, 0)},
		"cosine, only warm": {OptimizerStateConfig{Peak: 1, Floor: 0.5, Schedule: ScheduleCosine, Warm: warm, Total: warm}, ref.CosineRate(1, 0.5, warm, warm)},
	} {
		t.Run(name, func(t *testing.T) {
			config := ref.OptimizerConfig{Beta1: c.config.Beta1, Beta2: c.config.Beta2, Clip: c.config.Clip, Rate: c.rate, GrowthInterval: c.config.GrowthInterval}
			state, want := OptimizerStateWords{Scale: 1024}, ref.OptimizerState{Scale: 1024}
			for i := range 14 {
				in := stepInput{norm: float32(1<<20) * float32(i+1), loss: 12.5 * float32(i), labels: float32(100 + i)}
				switch i {
				case 0, 5, 6:
					in.overflow = 1
				case 7:
					in = stepInput{}
				}
				before := state
				var record []uint32
				state, record = runOptimizerState(t, c.config, state, in)
				want.Step(config, float64(in.norm), in.overflow == 1, float64(in.loss), float64(in.labels))
				assertState(t, want, state, fmt.Sprintf("step %d", i))
				f := math.Float32bits
				assert.Equal(t, []uint32{uint32(i), state.Updates, state.Skip, f(state.Loss), f(state.Norm), f(state.Rate), f(before.Scale), f(in.labels)}, record)
			}
		})
	}
}

// Rates and bias corrections of late steps.
func TestOptimizerStateLate(t *testing.T) {
	for _, updates := range []int{1, 2, 10, 51, 499, 500, 501, 1000, 99998, 99999, 1 << 24} {
		for _, c := range []OptimizerStateConfig{
			{Beta1: 0.9, Beta2: 0.999, Peak: 1, Floor: 0.01, Schedule: ScheduleCosine, Warm: 500, Total: 100000},
			{Beta1: 0.99999, Beta2: 0.9999999, Peak: 1, Schedule: ScheduleInverseSqrt, Warm: 500},
		} {
			config := ref.OptimizerConfig{Beta1: c.Beta1, Beta2: c.Beta2, Rate: ref.CosineRate(1, 0.01, 500, 100000)}
			if c.Schedule == ScheduleInverseSqrt {
				config.Rate = ref.InverseSqrtRate(1, 500)
			}
			state, _ := runOptimizerState(t, c, OptimizerStateWords{Updates: uint32(updates - 1), Scale: 1}, stepInput{norm: 1, loss: 1, labels: 1})
			want := ref.OptimizerState{Updates: updates - 1, Scale: 1}
			want.Step(config, 1, false, 1, 1)
			assertState(t, want, state, fmt.Sprintf("update %d, schedule %d", updates, c.Schedule))
		}
	}
}

// The clipping of tiny norms shows what is added to them.
func TestOptimizerStateTinyNorm(t *testing.T) {
	c := OptimizerStateConfig{Peak: 1, Clip: 1e-6}
	config := ref.OptimizerConfig{Rate: ref.ConstantRate(1, 0), Clip: c.Clip}
	for _, norm := range []float32{0, 5e-7, 3e-6} {
		state, _ := runOptimizerState(t, c, OptimizerStateWords{Scale: 1}, stepInput{norm: norm, labels: 1})
		want := ref.OptimizerState{Scale: 1}
		want.Step(config, float64(norm), false, 0, 1)
		assertState(t, want, state, fmt.Sprint(norm))
	}
}

// The loss scale has bounds, and is constant without GrowthInterval.
func TestOptimizerStateScale(t *testing.T) {
	for _, c := range []struct {
		growth   int
		scale    float32
		overflow uint32
		want     float32
	}{
		{1, 0x1p24, 0, 0x1p24}, {1, 0x1p23, 0, 0x1p24}, {1, 0x1p-24, 1, 0x1p-24}, {1, 0x1p-23, 1, 0x1p-24}, {0, 8, 0, 8}, {0, 8, 1, 8}, {2, 8, 0, 8},
	} {
		config := OptimizerStateConfig{Peak: 1, GrowthInterval: c.growth}
		state, _ := runOptimizerState(t, config, OptimizerStateWords{Scale: c.scale}, stepInput{norm: 1, labels: 1, overflow: c.overflow})
		assert.Equal(t, c.want, state.Scale, "%+v", c)
	}
}

func TestOptimizerStateBadInput(t *testing.T) {
	gpu := gputest.New(t)
	good := OptimizerStateConfig{Beta1: 0.9, Beta2: 0.999, Peak: 1e-3, Total: 10}
	for want, change := range map[string]func(*OptimizerStateConfig){
		"Beta1 is 1, want at least 0 and less than 1":   func(c *OptimizerStateConfig) { c.Beta1 = 1 },
		"Beta2 is NaN, want at least 0 and less than 1": func(c *OptimizerStateConfig) { c.Beta2 = math.NaN() },
		"Clip is -1, want at least 0":                   func(c *OptimizerStateConfig) { c.Clip = -1 },
		"Peak is +Inf, want at least 0":                 func(c *OptimizerStateConfig) { c.Peak = math.Inf(1) },
		"Floor is -1, want at least 0":                  func(c *OptimizerStateConfig) { c.Floor = -1 },
		"Schedule is 3, want 0 to 2":                    func(c *OptimizerStateConfig) { c.Schedule = 3 },
		"Warm is 4294967296, want 1 to":                 func(c *OptimizerStateConfig) { c.Warm = 1 << 32 },
		"Total is 10, want Warm, 11, to":                func(c *OptimizerStateConfig) { c.Schedule, c.Warm = ScheduleCosine, 11 },
		"GrowthInterval is -1, want 0 to":               func(c *OptimizerStateConfig) { c.GrowthInterval = -1 },
	} {
		c := good
		change(&c)
		_, err := NewOptimizerState(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	o, err := NewOptimizerState(gpu.Dev, good)
	require.NoError(t, err)
	two, state, records := gpu.In("two", []float32{1, 0}), gpu.Out("state", 64), gpu.Out("records", 64)
	args := OptimizerStateArgs{Norm: two, Loss: two, State: state, Records: records, Capacity: 2}
	assertRejected(t, gpu, args, o.Record, []badArgs[OptimizerStateArgs]{
		{"norm is missing, want [Words 2] u32, 8 bytes", func(a *OptimizerStateArgs) { a.Norm = vk.Range{} }},
		{"loss has 4 bytes, want [Words 2] f32, 8 bytes", func(a *OptimizerStateArgs) { a.Loss = two.Slice(0, 4) }},
		{"state has 8 bytes, want OptimizerStateBytes, 64 bytes", func(a *OptimizerStateArgs) { a.State = two }},
		{"records has 64 bytes, want [Capacity 1, Words 8] u32, 32 bytes", func(a *OptimizerStateArgs) { a.Capacity = 1 }},
		{"Capacity is 0, want 1", func(a *OptimizerStateArgs) { a.Capacity = 0 }},
	})
	require.NoError(t, o.Close())
	require.NoError(t, o.Close())
}
