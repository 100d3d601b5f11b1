package train

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
)

// Twenty steps agree with AdamW in float64, with and without clipping, and with defaults.
func TestOptimizer(t *testing.T) {
	for _, c := range []struct {
		name   string
		config OptimizerConfig
		labels float32
	}{
		{"defaults", OptimizerConfig{}, 1},
		{"clipped", OptimizerConfig{Clip: 0.5, AdamW: AdamW{Rate: 0.1, Decay: 0.3}}, 2},
		{"other betas", OptimizerConfig{Clip: 1e6, AdamW: AdamW{Rate: 0.01, Beta1: -1, Beta2: 0.5, Eps: 1e-3, Decay: -1}}, 0.5},
		{"constant loss scale", OptimizerConfig{AdamW: AdamW{Rate: 0.1}, LossScale: LossScale{Initial: 4}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProblem(t, c.config)
			p.loss(12*c.labels, c.labels)
			r, a := p.reference(), p.optimizer.Config().AdamW
			divisor := float64(c.labels) * p.optimizer.Config().LossScale.Initial
			var norms []float64
			for range 20 {
				p.run(1)
				norms = append(norms, r.step(a.Rate, a.Beta1, a.Beta2, a.Eps, a.Decay, c.config.Clip, divisor))
			}
			p.assertNear(r)
			records, err := p.optimizer.Records(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, records, 20)
			for i, record := range records {
				assert.InEpsilon(t, norms[i], record.Norm, 1e-5)
				assert.InEpsilon(t, 12, record.Loss, 1e-6)
				record.Norm, record.Loss = 0, 0
				assert.Equal(t, Record{
					Step: i, Updates: i + 1, Rate: float64(float32(a.Rate)), LossScale: p.optimizer.Config().LossScale.Initial, Labels: float64(c.labels),
				}, record)
			}
		})
	}
}

func TestOptimizerDefaults(t *testing.T) {
	want := OptimizerConfig{
		AdamW:     AdamW{Rate: 3e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01},
		LossScale: LossScale{Initial: 1, GrowthInterval: 2000}, MicroBatches: 1, Records: 1024,
	}
	assert.Equal(t, want, OptimizerConfig{}.withDefaults())
	want.LossScale = LossScale{Dynamic: true, Initial: 65536, GrowthInterval: 2000}
	assert.Equal(t, want, OptimizerConfig{LossScale: LossScale{Dynamic: true}}.withDefaults())
}

// The schedule and the dynamic loss scale follow the updates; steps that overflow are none.
func TestOptimizerOverflow(t *testing.T) {
	p := newProblem(t, OptimizerConfig{
		AdamW: AdamW{Rate: 0.1}, Schedule: Schedule{Kind: Cosine, WarmUp: 3, Total: 9, Floor: 0.01}, LossScale: LossScale{Dynamic: true, Initial: 2, GrowthInterval: 2},
	})
	r, rate := p.reference(), ref.CosineRate(0.1, 0.01, 3, 9)
	negative := p.download(p.negative[1])
	scale := 2.0
	for step := range 12 {
		bad := step == 0 || step == 5 || step == 6
		if bad {
			p.upload(p.negative[1], append([]float32{float32(math.NaN())}, negative[1:]...))
		} else {
			p.upload(p.negative[1], negative)
		}
		p.upload(p.optimizer.Loss(0), []float32{1, float32(1 / scale)}) // so that the gradients are those of the problem
		assert.Equal(t, []float32{float32(scale)}, p.download(p.optimizer.LossScale()))
		before := p.values()
		p.run(1)
		if bad {
			assert.Equal(t, before, p.values(), "step %d", step)
			scale /= 2
		} else {
			assert.NotEqual(t, before, p.values(), "step %d", step)
			r.step(rate(r.t+1), 0.9, 0.999, 1e-8, 0.01, 0, 1)
			if step == 2 || step == 4 || step == 8 || step == 10 { // the second in a row
				scale *= 2
			}
		}
	}
	p.assertNear(r)
	s, err := p.optimizer.State(t.Context())
	require.NoError(t, err)
	assert.Equal(t, State{Steps: 12, Updates: 9, LossScale: scale, GoodSteps: 1}, s)
	records, err := p.optimizer.Records(t.Context(), 4)
	require.NoError(t, err)
	require.Len(t, records, 8)
	assert.Equal(t, 4, records[0].Step)
	assert.True(t, records[1].Skipped)
	assert.False(t, records[3].Skipped)
	assert.InEpsilon(t, 0.01, records[7].Rate, 1e-6)
}

// Without labels the gradients are 0: the parameters only decay.
func TestOptimizerWithoutLabels(t *testing.T) {
	p := newProblem(t, OptimizerConfig{Clip: 1, AdamW: AdamW{Rate: 0.5, Decay: 0.5}})
	p.loss(0, 0)
	var before [][]float32
	for _, q := range p.parameters {
		before = append(before, p.download(q.Data))
	}
	p.run(1)
	for i, q := range p.parameters {
		for j, v := range p.download(q.Data) {
			want := before[i][j]
			if i == 0 {
				want *= 0.75
			}
			assert.InDelta(t, want, v, 1e-6, q.Name)
		}
	}
	records, err := p.optimizer.Records(t.Context(), 0)
	require.NoError(t, err)
	assert.Equal(t, []Record{{Step: 0, Updates: 1, Rate: 0.5, LossScale: 1}}, records)
}

// Two runs have the same bits.
func TestOptimizerBits(t *testing.T) {
	var values [2][]float32
	for i := range values {
		p := newProblem(t, OptimizerConfig{Clip: 1, AdamW: AdamW{Rate: 0.1}})
		p.run(20)
		values[i] = p.values()
	}
	assert.Equal(t, values[0], values[1])
}

// balanced is the sum of a list, padded with zeros to a power of two, in a balanced binary tree, in float32.
func balanced(list []float32) float32 {
	if len(list) == 1 {
		return list[0]
	}
	half := 1
	for 2*half < len(list) {
		half *= 2
	}
	right := balanced(list[half:])
	return balanced(list[:half]) + right
}

// The gradients of micro-batches, and their losses, are added in a balanced binary tree.
func TestOptimizerMicroBatches(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 11, 16} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := newProblem(t, OptimizerConfig{MicroBatches: n})
			o := p.optimizer
			parts := make([][]float32, n)
			for i := range parts {
				parts[i] = normals(uint64(100+i), o.elements+2)
				p.upload(o.Gradients(i), parts[i][:o.elements])
				p.upload(o.Loss(i), parts[i][o.elements:])
				require.NoError(t, o.SubmitGradients(t.Context(), i))
			}
			sums := append(p.download(o.Gradients(0)), p.download(o.Loss(0))...)
			for j, sum := range sums {
				var list []float32
				for i := range parts {
					list = append(list, parts[i][j])
				}
				require.Equal(t, balanced(list), sum, "element %d", j)
			}
		})
	}
}

// Lists that are submitted do what a list that is run does.
func TestOptimizerSubmit(t *testing.T) {
	recorded, submitted := newProblem(t, OptimizerConfig{Clip: 1}), newProblem(t, OptimizerConfig{Clip: 1})
	for i, q := range recorded.parameters {
		gradient := addFloats(recorded.download(q.Data), recorded.download(recorded.negative[i]))
		submitted.upload(submitted.optimizer.Gradient(0, i), gradient)
	}
	recorded.run(1)
	require.NoError(t, submitted.optimizer.SubmitGradients(t.Context(), 0))
	require.NoError(t, submitted.optimizer.SubmitStep(t.Context()))
	assert.Equal(t, recorded.values(), submitted.values())
	require.NoError(t, submitted.optimizer.SubmitStep(t.Context()))
	require.NoError(t, submitted.optimizer.SubmitStep(t.Context()))
	s, err := submitted.optimizer.State(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, s.Steps)
	assert.ErrorContains(t, submitted.optimizer.SubmitGradients(t.Context(), 1), "i is 1, want 0 to MicroBatches - 1, 0")
}

func addFloats(a, b []float32) []float32 {
	sum := make([]float32, len(a))
	for i := range a {
		sum[i] = a[i] + b[i]
	}
	return sum
}

// The memory is predicted without a device.
func TestOptimizerMemory(t *testing.T) {
	for _, c := range []OptimizerConfig{{}, {MicroBatches: 5, Records: 7}} {
		p := newProblem(t, OptimizerConfig{})
		before := p.dev.Stats().BufferBytes
		o, err := NewOptimizer(t.Context(), p.dev, p.parameters, c)
		require.NoError(t, err)
		got := p.dev.Stats().BufferBytes - before
		require.NoError(t, o.Close())
		assert.Equal(t, before, p.dev.Stats().BufferBytes)
		list := append([]Parameter(nil), p.parameters...)
		for i := range list {
			list[i].Data = vk.Range{}
		}
		want, err := c.Memory(list)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := OptimizerConfig{}.Memory(nil)
	assert.ErrorContains(t, err, "there are 0 parameters")
}

// The device keeps the records of the last steps.
func TestOptimizerRecords(t *testing.T) {
	p := newProblem(t, OptimizerConfig{Records: 3})
	records, err := p.optimizer.Records(t.Context(), 0)
	require.NoError(t, err)
	assert.Empty(t, records)
	p.run(7)
	for first, want := range map[int][]int{0: {4, 5, 6}, 5: {5, 6}, 7: nil, 100: nil} {
		records, err := p.optimizer.Records(t.Context(), first)
		require.NoError(t, err)
		var steps []int
		for _, r := range records {
			steps = append(steps, r.Step)
		}
		assert.Equal(t, want, steps, first)
	}
	_, err = p.optimizer.Records(t.Context(), -1)
	assert.ErrorContains(t, err, "first is -1, want at least 0")
}

func TestOptimizerBadInput(t *testing.T) {
	p := newProblem(t, OptimizerConfig{MicroBatches: 3})
	for want, c := range map[string]OptimizerConfig{
		"Beta1 is 1, want at least 0 and less than 1": {AdamW: AdamW{Beta1: 1}},
		"Eps is -1, want":                                         {AdamW: AdamW{Eps: -1}},
		"Peak is -1, want at least 0":                             {AdamW: AdamW{Rate: -1}},
		"Clip is -1, want at least 0":                             {Clip: -1},
		"Schedule is 7, want 0 to 2":                              {Schedule: Schedule{Kind: 7}},
		"Total is 0, want Warm, 1, to":                            {Schedule: Schedule{Kind: Cosine}},
		"Schedule.WarmUp is -1, want at least 0":                  {Schedule: Schedule{WarmUp: -1}},
		"LossScale.Initial is NaN, want":                          {LossScale: LossScale{Initial: math.NaN()}},
		"LossScale.GrowthInterval is -1, want at least 0":         {LossScale: LossScale{GrowthInterval: -1}},
		"MicroBatches is -1, want 0 to 1048576":                   {MicroBatches: -1},
		"Records is 1048577, want 0 to 1048576":                   {Records: 1<<20 + 1},
		"Recompute is -2, want a number of layers, or -1 for all": {Recompute: -2},
	} {
		_, err := NewOptimizer(t.Context(), p.dev, p.parameters, c)
		assert.ErrorContains(t, err, want)
	}
	data := p.parameters[0].Data
	unaligned := p.buffer(make([]float32, 16)).Slice(4, 60)
	for want, list := range map[string][]Parameter{
		"there are 0 parameters, want at least 1":                           {},
		`parameter 1 has the name "x", want a unique one`:                   {{"x", []int{15}, data}, {"x", []int{15}, data}},
		`parameter 0 has the name "", want a unique one`:                    {{"", []int{15}, data}},
		"parameter x has shape [0 15], want sizes of at least 1":            {{"x", []int{0, 15}, data}},
		"parameter x starts at byte 4 of its buffer, want a multiple of 16": {{"x", []int{15}, unaligned}},
		"parameter x has shape [2147483647 2147483647 2147483647 2], want":  {{"x", []int{1<<31 - 1, 1<<31 - 1, 1<<31 - 1, 2}, data}},
		"parameter x has 60 bytes, want 64":                                 {{"x", []int{16}, data}},
		"parameter x has 0 bytes, want 60":                                  {{"x", []int{15}, vk.Range{}}},
	} {
		_, err := NewOptimizer(t.Context(), p.dev, list, OptimizerConfig{})
		assert.ErrorContains(t, err, want)
	}
	assert.False(t, p.optimizer.Gradient(2, 3).IsZero())
	for _, r := range []vk.Range{
		p.optimizer.Gradients(-1), p.optimizer.Gradients(3), p.optimizer.Loss(3), p.optimizer.Gradient(3, 0), p.optimizer.Gradient(0, -1), p.optimizer.Gradient(0, 4),
	} {
		assert.True(t, r.IsZero())
	}
	for _, i := range []int{-1, 3} {
		assert.ErrorContains(t, p.optimizer.RecordGradients(p.list, i), fmt.Sprintf("i is %d, want 0 to MicroBatches - 1, 2", i))
	}
	require.NoError(t, p.list.Close())
	require.NoError(t, p.optimizer.Close())
	require.NoError(t, (*Optimizer)(nil).Close())
}
