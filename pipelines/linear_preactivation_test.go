package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestLinearPreactivation: y has the bits that it has without Preactivation, and what GELU is applied to those of the product
// without GELU. Rows that are not written keep their contents in both.
func TestLinearPreactivation(t *testing.T) {
	selected := LinearConfig{Bias: true, GELU: true, Preactivation: true, Gather: true, Norm: true, Valid: true}
	cases := []linearCase{
		{LinearConfig: selected, inRows: 90}, {LinearConfig: LinearConfig{GELU: true, Preactivation: true}},
	}
	for _, p := range linearPrecisions(t) {
		plain := LinearConfig{Bias: true, GELU: true, Preactivation: true, Precision: p, X16: true, Y16: true}
		split := plain
		split.Split = 4
		cases = append(cases, linearCase{LinearConfig: plain}, linearCase{LinearConfig: split})
		selected.Precision = p
		cases = append(cases, linearCase{LinearConfig: selected, inRows: 90})
	}
	if testing.Short() { // CPU drivers compile kernels for 7 s for all cases
		cases = cases[:1]
	}
	for _, c := range cases {
		c.In, c.Out, c.batch, c.rows = 48, 36, 2, 67
		c.inRows, c.outRows = max(c.inRows, c.rows), c.rows
		t.Run(c.Precision.String()+" "+c.String(), func(t *testing.T) {
			tiles := []string{""}
			if c.Precision == F32 && !testing.Short() {
				tiles = append(tiles, linearTiles[1].name())
			}
			for _, tile := range tiles {
				c.testPreactivation(t, tile)
			}
		})
	}
}

func (c linearCase) testPreactivation(t *testing.T, tile string) {
	data := c.data()
	if c.X16 {
		data.X = c.Precision.roundAll(data.X)
	}
	if c.Y16 {
		data.Base = c.Precision.roundAll(data.Base)
	}
	run := func(gelu, preactivation bool) (y, v []float32) {
		gpu, alone := gputest.New(t), c
		alone.GELU, alone.Preactivation = gelu, preactivation
		l, args := newLinear(t, gpu, alone.LinearConfig, tile), alone.args(gpu, data)
		if preactivation {
			args.Preactivation = gpu.InOut("preactivation", encode(c.y(), data.Base))
		}
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		if y = decode(c.y(), gpu, "y"); preactivation {
			v = decode(c.y(), gpu, "preactivation")
		}
		return y, v
	}
	y, v := run(true, true)
	plain, _ := run(true, false)
	before, _ := run(false, false)
	assert.Equal(t, plain, y, "y")
	assert.Equal(t, before, v, "what GELU is applied to")
	data.GELU = false
	if c.Precision != F32 {
		data.RoundOperands = c.Precision.round
	}
	want, naive := ref.Linear(data), ref.Linear32(data)
	if c.Y16 {
		naive = c.Precision.roundAll(naive)
	}
	bound := ref.Bound(naive, want, 1e-6)
	if c.Norm && c.Precision != F32 {
		bound += 0x1p-7 // a factor that differs in its last bit may round operands to their neighbours
	}
	require.NoError(t, ref.MaxErr(v, want).Within(bound))
}

func TestLinearPreactivationErrors(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewLinear(gpu.Dev, LinearConfig{In: 8, Out: 8, Preactivation: true})
	require.EqualError(t, err, "pipelines: Linear: Preactivation is true and GELU false, want both: without GELU it is y")
	c := linearCase{LinearConfig: LinearConfig{In: 8, Out: 8, GELU: true, Preactivation: true}, batch: 1, inRows: 3, rows: 3, outRows: 3}
	l, args := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, c.data())
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, list.Close()) })
	assert.ErrorContains(t, l.Record(list, args), "preactivation")
}
