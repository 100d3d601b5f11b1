package colt5

import (
	"context"
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (fx *fixture) feedForward(dim, heavy int) *ConditionalRoutedFeedForward {
	fx.t.Helper()
	config := Default[ConditionalRoutedFeedForwardConfig]()
	config.Dim, config.NumHeavyTokens = dim, heavy
	f := mustNew(fx, NewConditionalRoutedFeedForward, config)
	return f
}

func refBranch(w map[string][]float32, name string, dim int) ref.FeedForwardParams {
	return ref.FeedForwardParams{
		Gamma: w[name+".0.gamma"], W1: w[name+".1.weight"], B1: w[name+".1.bias"], W2: w[name+".3.weight"], B2: w[name+".3.bias"],
		Dim: dim, Hidden: len(w[name+".1.bias"]),
	}
}

func refRouter(o RouterSettings, straight bool, tokens int) ref.RouterConfig {
	c := ref.RouterConfig{
		NumTokens: tokens, BlockSize: o.RouteBlockSize, FetchKRatio: o.FetchKRatio, StraightThrough: straight,
		Descent: ref.CoorDescentConfig{Iters: o.NIters, Eps: o.Eps, EpsInit: o.EpsInit, EpsDecay: o.EpsDecay},
	}
	if o.CosineSimRouting {
		c.CosineScale = o.CosineSimScale
	}
	return c
}

// feedForwardCase is a ConditionalRoutedFeedForward and the sizes of its input.
type feedForwardCase struct {
	b, n, dim, heavy, block int
	soft, mask, cosine      bool
}

func TestFeedForward(t *testing.T) {
	t.Parallel()
	for i, test := range []feedForwardCase{
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
		if testing.Short() {
			if i != 5 && i != 7 {
				continue // CPU drivers compile kernels for seconds
			}
			test.dim = smallDim // whose kernels other tests compile
		}
		t.Run(fmt.Sprintf("%+v", test), test.check)
	}
}

// check compares the forward and the backward pass with the CPU reference.
func (test feedForwardCase) check(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[ConditionalRoutedFeedForwardConfig]()
	config.Dim, config.NumHeavyTokens, config.RouterStraightThrough = test.dim, test.heavy, !test.soft
	config.Router.RouteBlockSize, config.Router.CosineSimRouting = int(test.block), test.cosine
	if test.soft { // scores other than 0 and 1
		config.Router.Eps, config.Router.EpsInit, config.Router.EpsDecay = 1, 0, 1
	}
	if small := smallFeedForward(); testing.Short() {
		config.HeavyFFMult, config.LightFFMult = small.HeavyFFMult, small.LightFFMult
	}
	f := mustNew(fx, NewConditionalRoutedFeedForward, config)
	require.NoError(t, f.Init(t.Context(), 7))
	data := normal(3, test.b*test.n*test.dim)
	x, y := fx.floats(data, test.b, test.n, test.dim), fx.tensor(F32, test.b, test.n, test.dim)
	var mask *Tensor
	var maskData []uint8
	if test.mask {
		maskData = randomMask(5, test.b, test.n)
		mask = fx.bytes(maskData, test.b, test.n)
	}
	require.NoError(t, f.Forward(t.Context(), y, x, FeedForwardOptions{Mask: mask}))
	w := fx.parameters(f.Parameters())
	args := ref.ConditionalRoutedFeedForwardArgs{
		Router: ref.RouterArgs{
			RouterConfig: refRouter(config.Router, !test.soft, test.heavy), X: data, Mask: maskData, Tokens: w["router.routing_token"],
			B: test.b, N: test.n, C: test.dim, R: 1,
		},
		Light: refBranch(w, "light_ff", test.dim), Heavy: refBranch(w, "heavy_ff", test.dim),
	}
	want, naive := ref.ConditionalRoutedFeedForward(args), ref.ConditionalRoutedFeedForward32(args)
	assert.NoError(t, ref.MaxErr(fx.read(y), want).Within(ref.Bound(naive, want, 2e-6)))
	assert.Equal(t, data, fx.read(x), "x changed")
	in := ref.ConditionalRoutedFeedForwardInput{X: data, Mask: maskData, B: test.b, N: test.n, C: test.dim, Router: args.Router.RouterConfig}
	fx.checkBackward(f.Parameters(), feed{"x": x, "mask": mask}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
		return f.Forward(ctx, y, in["x"], FeedForwardOptions{Mask: in["mask"]})
	}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
		return ref.ConditionalRoutedFeedForwardBackward(in, dy, w, ""), ref.ConditionalRoutedFeedForwardBackward32(in, dy, w, "")
	})
}

// TestFeedForwardGroupSize: groups of rows are as large as their hidden activations permit, which have half the bytes in 16 bits.
func TestFeedForwardGroupSize(t *testing.T) {
	for _, test := range []struct {
		precision   DType
		hidden      int
		groups      int
		phasesGroup int
	}{{F32, 16, 4, 2}, {F16, 16, 2, 3}, {BF16, 16, 2, 3}, {F16, 12, 4, 3}} {
		b := &builder{node: &node{}}
		b.precision = test.precision
		f := feedForward{dim: 8, hidden: test.hidden}
		list := f.phases(b, vk.Range{}, vk.Range{}, 1024, 4*256*test.hidden, false)
		assert.Len(t, list, test.groups*test.phasesGroup, "%v, hidden size of %d", test.precision, test.hidden)
	}
}

// A light branch that runs in groups of rows gives the same bits as in one group.
func TestFeedForwardGroups(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	f := fx.feedForward(8, 16)
	x := fx.floats(normal(1, 700*8), 1, 700, 8)
	whole, groups := fx.tensor(F32, 1, 700, 8), fx.tensor(F32, 1, 700, 8)
	var first, second CallStats
	require.NoError(t, f.Forward(t.Context(), whole, x, FeedForwardOptions{Stats: &first}))
	layer := f.layer.(*routedFeedForward)
	layer.budget = 4 * layer.light.hidden * 256
	require.NoError(t, f.Forward(t.Context(), groups, x, FeedForwardOptions{NumHeavyTokens: 17}))
	require.NoError(t, f.Forward(t.Context(), whole, x, FeedForwardOptions{NumHeavyTokens: 17, Stats: &second}))
	assert.Len(t, second.StepNames, len(first.StepNames)+4)
	layer.budget = hiddenBytes
	require.NoError(t, f.plans.close())
	require.NoError(t, f.Forward(t.Context(), whole, x, FeedForwardOptions{NumHeavyTokens: 17}))
	assert.Equal(t, fx.read(whole), fx.read(groups))
}
