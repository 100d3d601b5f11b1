package colt5

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// normal returns n numbers with a normal distribution, the same for the same seed.
func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// someMask has about a third of its tokens masked; item 1, if there is one, has none left.
func someMask(seed uint64, b, n int) []uint8 {
	r := rand.New(rand.NewPCG(seed, 2))
	m := make([]uint8, b*n)
	for i := range m {
		if r.IntN(3) > 0 && i/n != 1 {
			m[i] = 1
		}
	}
	return m
}

func (b *bench) host(list []Parameter) map[string][]float32 {
	b.t.Helper()
	w := map[string][]float32{}
	for _, p := range list {
		w[p.Name] = b.read(p.Tensor)
	}
	return w
}

func (b *bench) feedForward(dim, heavy int) *ConditionalRoutedFeedForward {
	b.t.Helper()
	config := DefaultConditionalRoutedFeedForwardConfig()
	config.Dim, config.NumHeavyTokens = dim, heavy
	f := opened(b, NewConditionalRoutedFeedForward, config)
	return f
}

func refBranch(w map[string][]float32, name string, dim int) ref.FeedForwardParams {
	return ref.FeedForwardParams{
		Gamma: w[name+".0.gamma"], W1: w[name+".1.weight"], B1: w[name+".1.bias"], W2: w[name+".3.weight"], B2: w[name+".3.bias"],
		Dim: dim, Hidden: len(w[name+".1.bias"]),
	}
}

func refRouter(o RouterOptions, straight bool, tokens int) ref.RouterConfig {
	c := ref.RouterConfig{
		NumTokens: tokens, BlockSize: int(o.RouteBlockSize), FetchKRatio: o.FetchKRatio, StraightThrough: straight,
		Descent: ref.CoorDescentConfig{Iters: o.NIters, Eps: o.Eps, EpsInit: float64(o.EpsInit), EpsDecay: o.EpsDecay},
	}
	if o.CosineSimRouting {
		c.CosineScale = o.CosineSimScale
	}
	return c
}

func TestFeedForward(t *testing.T) {
	for _, test := range []struct {
		b, n, dim, heavy, block int
		soft, mask, cosine      bool
	}{
		{b: 1, n: 1, dim: 2, heavy: 1},
		{b: 1, n: 1, dim: 4, heavy: 5, mask: true},
		{b: 2, n: 31, dim: 7, heavy: 5},
		{b: 3, n: 33, dim: 33, heavy: 33, mask: true},
		{b: 3, n: 33, dim: 33, heavy: 32, mask: true},
		{b: 3, n: 64, dim: 24, heavy: 63, soft: true, mask: true},
		{b: 2, n: 65, dim: 20, heavy: 1, soft: true, cosine: true},
		{b: 2, n: 127, dim: 16, heavy: 30, block: 25, mask: true},
		{b: 2, n: 127, dim: 16, heavy: 31, block: 31, soft: true},
		{b: 2, n: 101, dim: 12, heavy: 100, block: 50, soft: true, mask: true},
		{b: 4, n: 257, dim: 64, heavy: 41, mask: true},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gputest.CountCase()
			b := newBench(t)
			config := DefaultConditionalRoutedFeedForwardConfig()
			config.Dim, config.NumHeavyTokens, config.RouterStraightThrough = test.dim, test.heavy, !test.soft
			config.Router.RouteBlockSize, config.Router.CosineSimRouting = OptionalInt(test.block), test.cosine
			if test.soft { // scores that are not all 1
				config.Router.Eps, config.Router.EpsInit, config.Router.EpsDecay = 1, 0, 1
			}
			f := opened(b, NewConditionalRoutedFeedForward, config)
			require.NoError(t, f.Init(7))
			data := normal(3, test.b*test.n*test.dim)
			x, y := b.floats(data, test.b, test.n, test.dim), b.tensor(F32, test.b, test.n, test.dim)
			var mask *Tensor
			var maskData []uint8
			if test.mask {
				maskData = someMask(5, test.b, test.n)
				mask = b.bytes(maskData, test.b, test.n)
			}
			require.NoError(t, f.Forward(y, x, FeedForwardOptions{Mask: mask}))
			w := b.host(f.Parameters())
			args := ref.ConditionalRoutedFeedForwardArgs{
				Router: ref.RouterArgs{
					RouterConfig: refRouter(config.Router, !test.soft, test.heavy), X: data, Mask: maskData, Tokens: w["router.routing_token"],
					B: test.b, N: test.n, C: test.dim, R: 1,
				},
				Light: refBranch(w, "light_ff", test.dim), Heavy: refBranch(w, "heavy_ff", test.dim),
			}
			want, naive := ref.ConditionalRoutedFeedForward(args), ref.ConditionalRoutedFeedForward32(args)
			assert.NoError(t, ref.MaxErr(b.read(y), want).Within(ref.Bound(naive, want, 2e-6)))
			assert.Equal(t, data, b.read(x), "the input changed")
		})
	}
}

// The light branch in groups of rows gives what it gives at once.
func TestFeedForwardGroups(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	f := b.feedForward(8, 16)
	x := b.floats(normal(1, 700*8), 1, 700, 8)
	whole, groups := b.tensor(F32, 1, 700, 8), b.tensor(F32, 1, 700, 8)
	require.NoError(t, f.Forward(whole, x, FeedForwardOptions{}))
	first, err := f.LastCall()
	require.NoError(t, err)
	f.layer.budget = 4 * f.layer.light.hidden * 256
	require.NoError(t, f.Forward(groups, x, FeedForwardOptions{NumHeavyTokens: 17}))
	require.NoError(t, f.Forward(whole, x, FeedForwardOptions{NumHeavyTokens: 17}))
	second, err := f.LastCall()
	require.NoError(t, err)
	assert.Len(t, second.Steps, len(first.Steps)+4)
	f.layer.budget = hiddenBytes
	f.plans.close()
	require.NoError(t, f.Forward(whole, x, FeedForwardOptions{NumHeavyTokens: 17}))
	assert.Equal(t, b.read(whole), b.read(groups))
}

// A second call with the same shapes is one submit and allocates nothing, on the host and on the device.
func TestRepeatedCallAllocatesNothing(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	f := b.feedForward(16, 8)
	router := DefaultRouterConfig()
	router.Dim = 16
	r := opened(b, NewCoordinateDescentRouter, router)
	k := opened(b, NewTopK, TopKConfig{K: 4, NIters: 3, Eps: 0.1, CoorDescentKRatio: 1})
	d := opened(b, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 4, Eps: 0.1, EpsDecay: 1})
	x, y, mask := b.floats(normal(1, 2*64*16), 2, 64, 16), b.tensor(F32, 2, 64, 16), b.bytes(someMask(1, 2, 64), 2, 64)
	s, scores := b.floats(normal(2, 2*64), 2, 64), b.tensor(F32, 2, 64)
	indices, values := b.tensor(I32, 2, 1, 8), b.tensor(F32, 2, 4)
	for name, call := range map[string]func() error{
		"feedforward":        func() error { return f.Forward(y, x, FeedForwardOptions{Mask: mask}) },
		"router":             func() error { return r.Forward(Routing{Indices: indices}, x, 8, RoutingOptions{Mask: mask}) },
		"topk":               func() error { return k.Forward(TopKResult{Values: values}, s, mask) },
		"coordinate descent": func() error { return d.Forward(scores, s, mask) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, call())
			before := b.dev.Stats()
			const runs = 10
			var failed error
			assert.Zero(t, testing.AllocsPerRun(runs, func() {
				if err := call(); err != nil {
					failed = err
				}
			}))
			require.NoError(t, failed)
			after := b.dev.Stats()
			assert.Equal(t, before.Submits+runs+1, after.Submits) // AllocsPerRun runs once more
			before.Submits = after.Submits
			assert.Equal(t, before, after)
		})
	}
}

// Bound anew: other tensors of the same shapes use the plan that is there.
func TestOtherTensorsSamePlan(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	f := b.feedForward(16, 8)
	data := normal(1, 2*64*16)
	x, y := b.floats(data, 2, 64, 16), b.tensor(F32, 2, 64, 16)
	require.NoError(t, f.Forward(y, x, FeedForwardOptions{}))
	lists := b.dev.Stats().CommandLists
	other, again := b.floats(data, 2, 64, 16), b.tensor(F32, 2, 64, 16)
	require.NoError(t, f.Forward(again, other, FeedForwardOptions{}))
	assert.Equal(t, lists, b.dev.Stats().CommandLists)
	assert.Equal(t, b.read(y), b.read(again))
	assert.ErrorContains(t, f.Forward(x, x, FeedForwardOptions{}), "overlapping", "the output over the input")
	require.NoError(t, f.Forward(y, x, FeedForwardOptions{}), "the plan works on after a refused call")
}

// More shapes than plans are kept: the old ones go, and come back when they are needed.
func TestPlansAreBounded(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	f := b.feedForward(4, 2)
	first := map[int][]float32{}
	for round := range 2 {
		for n := 3; n < 3+2*plansKept; n++ {
			x, err := FromFloat32(b.dev, normal(1, n*4), 1, n, 4)
			require.NoError(t, err)
			y, err := NewTensor(b.dev, F32, 1, n, 4)
			require.NoError(t, err)
			require.NoError(t, f.Forward(y, x, FeedForwardOptions{}))
			got := b.read(y)
			if round == 0 {
				first[n] = got
			}
			assert.Equal(t, first[n], got)
			require.NoError(t, x.Close())
			require.NoError(t, y.Close())
		}
	}
	assert.Len(t, f.plans.kept, plansKept)
	assert.LessOrEqual(t, b.dev.Stats().CommandLists, int64(plansKept))
}

func TestSaveAndLoad(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	f := b.feedForward(12, 4)
	require.NoError(t, f.Init(11))
	saved, path := b.host(f.Parameters()), filepath.Join(t.TempDir(), "ff.safetensors")
	require.NoError(t, f.Save(path))
	require.NoError(t, f.Init(12))
	assert.NotEqual(t, saved, b.host(f.Parameters()))
	require.NoError(t, f.Load(path))
	assert.Equal(t, saved, b.host(f.Parameters()))
	g := b.feedForward(16, 4)
	before := b.host(g.Parameters())
	assert.ErrorContains(t, g.Load(path), "router.routing_token is F32[1 12], want F32[1 16]")
	assert.Equal(t, before, b.host(g.Parameters()), "a file that does not fit changes nothing")
	r := opened(b, NewCoordinateDescentRouter, RouterConfig{Dim: 12, NumRoutingTokens: 1, RouterOptions: DefaultRouterOptions()})
	err := r.Load(path)
	assert.ErrorContains(t, err, "routing_token is missing, want F32[1 12]")
	assert.ErrorContains(t, err, "heavy_ff.0.gamma is not a parameter of this module")
}
