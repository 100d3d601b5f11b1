package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLinearBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	for want, c := range map[string]LinearConfig{
		"Linear: In is 0, want 1 to 1073741823":              {Out: 1},
		"Linear: Out is -1, want 1 to 1073741823":            {In: 1, Out: -1},
		"Linear: In is 1073741824, want 1 to 1073741823":     {In: 1 << 30, Out: 1},
		"Linear: Out is 1073741824, want 1 to 1073741823":    {In: 1, Out: 1 << 30},
		"Linear: SkipBias is true and Bias false, want both": {In: 1, Out: 1, SkipBias: true},
	} {
		_, err := NewLinear(dev, c)
		assert.ErrorContains(t, err, want)
	}
}

func TestLinearBadInput(t *testing.T) {
	gpu := gputest.New(t)
	c := linearCase{LinearConfig: linearAll, batch: 2, inRows: 6, rows: 4, outRows: 5}
	c.In, c.Out = 8, 12
	l, good := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, c.data())
	bare := newLinear(t, gpu, LinearConfig{In: 8, Out: 12}, "")
	plain := LinearArgs{X: good.X, W: good.W, Y: gpu.Out("plain", 2*6*12*4), Batch: 2, InRows: 6, Rows: 6, OutRows: 6}
	for _, test := range []struct {
		want   string
		change func(*LinearArgs)
	}{
		{"Batch is 0, want 1", func(a *LinearArgs) { a.Batch = 0 }},
		{"Rows is -1, want 1", func(a *LinearArgs) { a.Rows = -1 }},
		{"InRows is -2, want 1", func(a *LinearArgs) { a.InRows = -2 }},
		{"OutRows is 3000000000, want 1", func(a *LinearArgs) { a.OutRows = 3e9 }},
		{"Batch*Rows is 4000000000, want 1", func(a *LinearArgs) { a.Batch, a.Rows = 2e9, 2 }},
		{"Batch*InRows is 4000000000, want 1", func(a *LinearArgs) { a.InRows = 2e9 }},
		{"Batch*OutRows is 4000000000, want 1", func(a *LinearArgs) { a.OutRows = 2e9 }},
		{"Lists is -1, want 1", func(a *LinearArgs) { a.Lists = -1 }},
		{"Batch*Lists*Rows is 8000000000, want 1", func(a *LinearArgs) { a.Lists = 1e9 }},
		{"List is 1, want 0 to 0", func(a *LinearArgs) { a.List = 1 }},
		{"List is -1, want 0 to 0", func(a *LinearArgs) { a.List = -1 }},
		{"Lists is 2, want 1 with Scatter", func(a *LinearArgs) { a.Lists = 2 }},
		{"x has 384 bytes, want [Batch 2, InRows 4, In 8] f32, 256 bytes", func(a *LinearArgs) { a.InRows = 0 }},
		{"y has 480 bytes, want [Batch 2, OutRows 4, Out 12] f32, 384 bytes", func(a *LinearArgs) {
			a.OutRows, a.Residual, a.SkipBias = 0, a.Residual.Slice(0, 384), a.SkipBias.Slice(0, 32)
		}},
		{"x is missing, want [Batch 2, InRows 6, In 8] f32, 384 bytes", func(a *LinearArgs) { a.X = vk.Range{} }},
		{"w has 380 bytes, want [Out 12, In 8] f32, 384 bytes", func(a *LinearArgs) { a.W = a.W.Slice(0, 380) }},
		{"bias is missing, want [Out 12] f32, 48 bytes", func(a *LinearArgs) { a.Bias = vk.Range{} }},
		{"gather has 28 bytes, want [Batch 2, Rows 4] i32, 32 bytes", func(a *LinearArgs) { a.Gather = a.Gather.Slice(0, 28) }},
		{"gamma is missing, want [In 8] f32, 32 bytes", func(a *LinearArgs) { a.Gamma = vk.Range{} }},
		{"score is missing, want [Batch 2, Rows 4] f32, 32 bytes", func(a *LinearArgs) { a.Score = vk.Range{} }},
		{"valid is missing, want [Batch 2, Rows 4] u32, 32 bytes", func(a *LinearArgs) { a.Valid = vk.Range{} }},
		{"residual is missing, want [Batch 2, OutRows 5, Out 12] f32, 480 bytes", func(a *LinearArgs) { a.Residual = vk.Range{} }},
		{"scatter is missing, want [Batch 2, Rows 4] i32, 32 bytes", func(a *LinearArgs) { a.Scatter = vk.Range{} }},
		{"y is missing, want [Batch 2, OutRows 5, Out 12] f32, 480 bytes", func(a *LinearArgs) { a.Y = vk.Range{} }},
		{"skip bias is missing, want [Batch 2, OutRows 5] u32, 40 bytes", func(a *LinearArgs) { a.SkipBias = vk.Range{} }},
		{"gather starts at byte 257 of its buffer, want a multiple of 4", func(a *LinearArgs) { a.Gather = gpu.Out("bytes", 36).Slice(1, 32) }},
		{"y starts at byte 260 of its buffer, want a multiple of 16", func(a *LinearArgs) { a.Y = gpu.Out("odd", 484).Slice(4, 480) }},
	} {
		t.Run(test.want, func(t *testing.T) {
			assert.ErrorContains(t, linearError(t, gpu, l, good, test.change), "pipelines: Linear: "+test.want)
		})
	}
	for _, test := range []struct {
		want   string
		change func(*LinearArgs)
	}{
		{"InRows is 6, want at least Rows, 7, without Gather", func(a *LinearArgs) { a.Rows, a.OutRows = 7, 7 }},
		{"OutRows is 5, want at least Rows, 6, without Scatter", func(a *LinearArgs) { a.OutRows = 5 }},
		{"bias has 48 bytes, want none", func(a *LinearArgs) { a.Bias = good.Bias }},
		{"gather has 32 bytes, want none", func(a *LinearArgs) { a.Gather = good.Gather }},
		{"gamma has 32 bytes, want none", func(a *LinearArgs) { a.Gamma = good.Gamma }},
		{"score has 32 bytes, want none", func(a *LinearArgs) { a.Score = good.Score }},
		{"valid has 32 bytes, want none", func(a *LinearArgs) { a.Valid = good.Valid }},
		{"residual has 480 bytes, want none", func(a *LinearArgs) { a.Residual = good.Residual }},
		{"scatter has 32 bytes, want none", func(a *LinearArgs) { a.Scatter = good.Scatter }},
		{"skip bias has 40 bytes, want none", func(a *LinearArgs) { a.SkipBias = good.SkipBias }},
	} {
		t.Run(test.want, func(t *testing.T) {
			assert.ErrorContains(t, linearError(t, gpu, bare, plain, test.change), "pipelines: Linear: "+test.want)
		})
	}
	assert.NoError(t, linearError(t, gpu, l, good, func(*LinearArgs) {}))
	require.NoError(t, l.Close())
	assert.ErrorIs(t, linearError(t, gpu, l, good, func(*LinearArgs) {}), vk.ErrClosed)
	assert.NoError(t, (*Linear)(nil).Close())
}

func linearError(t *testing.T, gpu *gputest.Harness, l *Linear, a LinearArgs, change func(*LinearArgs)) error {
	t.Helper()
	change(&a)
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
	require.NoError(t, err)
	defer list.Close()
	return l.Record(list, a)
}
