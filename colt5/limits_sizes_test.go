package colt5

import (
	"math"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Memory refuses what the kernels would refuse, in the words of the configuration, and quickly.
func TestMemoryLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	ff, attention, local := smallFeedForward(), smallAttention(), smallLocalMHA()
	wide, hidden, deep := ff, ff, smallEncoder()
	wide.Dim = 1 << 20
	hidden.LightFFMult = 1e6
	deep.Depth, deep.LightFFMult = maxDepth, 1e5
	huge := smallPlainFeedForward()
	huge.Dim, huge.Mult = maxRow, 1
	manyHeads := local
	manyHeads.Heads, manyHeads.DimHead, manyHeads.WindowSize = maxHeads, 2, 1<<24
	dim, window, eps, k, ratio, iters := ff, attention, ff, Default[CoordinateDescentConfig](), ff, ff
	dim.Dim, window.LightWindowSize, eps.Router.Eps, k.K, ratio.Router.FetchKRatio, iters.Router.NIters = 1<<30, math.MaxInt32, 1e-40, 1e-30, 1e-9, 65537
	vit := smallViT()
	vit.ImageSize, vit.PatchSize = Size{4096, 4096}, Size{4, 4}
	half := ff
	half.Precision = F16
	var caps vk.Caps
	for _, test := range []struct {
		want   string
		memory func() (Memory, error)
	}{
		{"300000000 tokens or entries to select from, want at most 268435456", func() (Memory, error) { return ff.Memory(caps, 1, 300_000_000) }},
		{"", func() (Memory, error) { return ff.Memory(caps, 1, maxSelect) }},
		{"more than 131072 groups of rows, want fewer tokens or a smaller hidden size", func() (Memory, error) { return wide.Memory(caps, 262144, 1024) }},
		{"more than 131072 groups of rows", func() (Memory, error) { return hidden.Memory(caps, 1<<22, 256) }},
		{"more than 131072 groups of rows", func() (Memory, error) { return deep.Memory(caps, 1<<12, 256) }},
		{"a sequence has 1073741824 tokens, want at most 1073741823", func() (Memory, error) { return local.Memory(caps, 1, 1<<30) }},
		{"", func() (Memory, error) { return local.Memory(caps, 1, 1<<30-1) }},
		{"an attention reads 16777216 tokens with 196608 heads each, want at most 4294967295 heads in all", func() (Memory, error) { return manyHeads.Memory(caps, 1, 1<<26) }},
		{"the weights have 2^60 bytes or more", func() (Memory, error) { return huge.Memory(caps, 1, 1) }},
		{"x has 2147483648 tokens, want 2147483647 at most", func() (Memory, error) { return ff.Memory(caps, 1<<16, 1<<15) }},
		{"Precision: ", func() (Memory, error) { return half.Memory(caps, 1, 8) }},
		{"Dim is 1073741824, want 1 to 1073741823", func() (Memory, error) { return dim.Memory(caps, 1, 8) }},
		{"LightWindowSize is 2147483647, want 2 to 2147483646", func() (Memory, error) { return window.Memory(caps, 1, 8) }},
		{"Router.Eps is 1e-40, want a positive number, 1e-30 to 1e+30", func() (Memory, error) { return eps.Memory(caps, 1, 8) }},
		{"Router.FetchKRatio is 1e-09, want a positive number, 1e-06 to 1e+30", func() (Memory, error) { return ratio.Memory(caps, 1, 8) }},
		{"Router.NIters is 65537, want 1 to 65536", func() (Memory, error) { return iters.Memory(caps, 1, 8) }},
		{"ImageSize is {4096 4096}, want at most 520000 patches, the tokens", func() (Memory, error) { return vit.Memory(caps, 1) }},
	} {
		start := time.Now()
		m, err := test.memory()
		if test.want == "" {
			assert.NoError(t, err)
			assert.NotZero(t, m.Total())
			continue
		}
		assert.ErrorContains(t, err, test.want)
		assert.Less(t, time.Since(start), 20*time.Second, test.want) // some hundred milliseconds
	}
	_, err := NewCoordinateDescent(newFixture(t).dev, k)
	assert.ErrorContains(t, err, "K is 1e-30, want a positive number, 1e-06 to 1e+30")
}

// The limits of this package are those of the kernels: one more is refused by the kernel too, the limit is not.
func TestLimitsOfKernels(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	list, err := fx.dev.NewCommandList(vk.CommandListConfig{Name: "limits"})
	require.NoError(t, err)
	defer list.Close()
	sel, err := pipelines.NewSelect(fx.dev, pipelines.SelectConfig{})
	require.NoError(t, err)
	defer sel.Close()
	pool, err := pipelines.NewMeanPool(fx.dev, pipelines.MeanPoolConfig{C: 4})
	require.NoError(t, err)
	defer pool.Close()
	descent := func(c pipelines.CoorDescentConfig, n int, k float64) error {
		d, err := pipelines.NewCoorDescent(fx.dev, c)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Record(list, pipelines.CoorDescentArgs{Rows: 1, N: n, K: k})
	}
	window := func(size, n int) error {
		w, err := pipelines.NewWindowAttention(fx.dev, pipelines.WindowAttentionConfig{Heads: 1, DimHead: 4, Window: size})
		if err != nil {
			return err
		}
		defer w.Close()
		return w.Record(list, pipelines.WindowAttentionArgs{Items: 1, N: n})
	}
	schedule := pipelines.CoorDescentConfig{Iters: 2, Eps: 1}
	least, most, iters := pipelines.CoorDescentConfig{Iters: 2, Eps: minEps}, pipelines.CoorDescentConfig{Iters: 2, Eps: maxEps, EpsInit: maxEps}, schedule
	iters.Iters = maxIters
	for name, test := range map[string]struct {
		within, beyond error
		want           string // of the error beyond; within the limit the error is another one, about memory that is missing
	}{
		"select":     {sel.Record(list, pipelines.SelectArgs{Rows: 1, N: maxSelect, K: 1}), sel.Record(list, pipelines.SelectArgs{Rows: 1, N: maxSelect + 1, K: 1}), "N is"},
		"top k":      {sel.Record(list, pipelines.SelectArgs{Rows: 1, N: 1, K: maxSelect}), sel.Record(list, pipelines.SelectArgs{Rows: 1, N: 1, K: maxSelect + 1}), "K is"},
		"pool":       {pool.Record(list, pipelines.MeanPoolArgs{B: 1, N: maxPooled}), pool.Record(list, pipelines.MeanPoolArgs{B: 1, N: maxPooled + 1}), "N is"},
		"row":        {descent(schedule, maxRow, 1), descent(schedule, maxRow+1, 1), "N is"},
		"least k":    {descent(schedule, 8, minK), descent(schedule, 8, minK/2), "K is"},
		"most k":     {descent(schedule, 8, maxK), descent(schedule, 8, 2*maxK), "K is"},
		"eps":        {descent(least, 8, 1), descent(pipelines.CoorDescentConfig{Iters: 2, Eps: minEps / 2}, 8, 1), "Eps is"},
		"eps init":   {descent(most, 8, 1), descent(pipelines.CoorDescentConfig{Iters: 2, Eps: 1, EpsInit: 2 * maxEps}, 8, 1), "EpsInit is"},
		"iterations": {descent(iters, 8, 1), descent(pipelines.CoorDescentConfig{Iters: maxIters + 1, Eps: 1}, 8, 1), "Iters is"},
		"window":     {window(maxWindow, 8), window(maxWindow+1, 8), "Window is"},
		"tokens":     {window(4, maxWindow), window(4, maxWindow+1), "N is"},
	} {
		require.Error(t, test.within, name)
		assert.NotContains(t, test.within.Error(), test.want, name)
		assert.ErrorContains(t, test.beyond, test.want, name)
	}
}
