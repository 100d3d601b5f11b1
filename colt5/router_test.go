package colt5

import (
	"fmt"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRouter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		b, n, dim, routes, tokens, block int
		straight, mask, learned, cosine  bool
	}{
		{b: 1, n: 2, dim: 1, routes: 1, tokens: 1, straight: true},
		{b: 2, n: 67, dim: 5, routes: 3, tokens: 9, straight: true, mask: true},
		{b: 3, n: 64, dim: 8, routes: 2, tokens: 63, mask: true, learned: true},
		{b: 2, n: 70, dim: 12, routes: 2, tokens: 10, block: 16, mask: true}, // a short last block
		{b: 1, n: 70, dim: 12, routes: 1, tokens: 60, block: 16},             // the last block is shorter than its count
		{b: 2, n: 33, dim: 16, routes: 17, tokens: 5, straight: true, cosine: true},
	} {
		if testing.Short() && test.block == 0 && !test.learned {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gputest.CountCase()
			fx := newFixture(t)
			config := Default[RouterConfig]()
			config.Dim, config.NumRoutingTokens, config.StraightThrough, config.LearnedRoutingTokens = test.dim, test.routes, test.straight, test.learned
			config.RouteBlockSize, config.CosineSimRouting = int(test.block), test.cosine
			config.Eps, config.EpsInit, config.EpsDecay = 0.5, 0, 1
			r := mustNew(fx, NewCoordinateDescentRouter, config)
			data := normal(1, test.b*test.n*test.dim)
			args := ref.RouterArgs{
				RouterConfig: refRouter(config.RouterSettings, test.straight, test.tokens), X: data,
				B: test.b, N: test.n, C: test.dim, R: test.routes, TokensPerItem: test.learned,
			}
			var options RouterOptions
			if test.mask {
				args.Mask = randomMask(9, test.b, test.n)
				options.Mask = fx.bytes(args.Mask, test.b, test.n)
			}
			if test.learned {
				args.Tokens = normal(4, test.b*test.routes*test.dim)
				options.RoutingTokens = fx.floats(args.Tokens, test.b, test.routes, test.dim)
			} else {
				args.Tokens = fx.parameters(r.Parameters())["routing_token"]
			}
			k := r.Slots(test.n, test.tokens)
			out := RouterResult{
				Indices: fx.tensor(I32, test.b, test.routes, k), Scores: fx.tensor(F32, test.b, test.routes, k),
				Tokens: fx.tensor(F32, test.b, test.routes, k, test.dim), RoutedMask: fx.tensor(U8, test.b, test.routes, k),
				Logits: fx.tensor(F32, test.b, test.routes, test.n), SoftScores: fx.tensor(F32, test.b, test.routes, test.n),
			}
			require.NoError(t, r.Forward(t.Context(), out, fx.floats(data, test.b, test.n, test.dim), test.tokens, options))
			want, naive := ref.CoordinateDescentRouter(args), ref.CoordinateDescentRouter32(args)
			require.Equal(t, want.Indices, fx.readInts(out.Indices))
			near := func(what string, got []float32, want []float64, naive []float32) {
				t.Helper()
				assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 5e-6)), what)
			}
			near("logits", fx.read(out.Logits), want.Logits, naive.Logits)
			near("scores", fx.read(out.Scores), want.Scores, naive.Scores)
			near("tokens", fx.read(out.Tokens), want.Tokens, naive.Tokens)
			near("soft scores", fx.read(out.SoftScores), want.SoftScores, naive.SoftScores)
			assert.Equal(t, want.Valid, fx.readBytes(out.RoutedMask))
			// With fewer outputs, each has the same values.
			indices, scores := fx.readInts(out.Indices), fx.read(out.Scores)
			x := fx.floats(data, test.b, test.n, test.dim)
			require.NoError(t, r.Forward(t.Context(), RouterResult{Indices: out.Indices}, x, test.tokens, options))
			assert.Equal(t, indices, fx.readInts(out.Indices))
			require.NoError(t, r.Forward(t.Context(), RouterResult{Scores: out.Scores}, x, test.tokens, options))
			assert.Equal(t, scores, fx.read(out.Scores))
			require.NoError(t, out.RoutedMask.Write(t.Context(), make([]uint8, out.RoutedMask.Len())))
			require.NoError(t, r.Forward(t.Context(), RouterResult{RoutedMask: out.RoutedMask}, x, test.tokens, options))
			assert.Equal(t, want.Valid, fx.readBytes(out.RoutedMask))
		})
	}
}

// With one route, tensors may be without the dimension of routes.
func TestRouterOneRoute(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim, config.LearnedRoutingTokens = 5, true
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	x, tokens := fx.floats(normal(1, 2*20*5), 2, 20, 5), normal(2, 2*5)
	run := func(lead ...int) RouterResult {
		shape := func(sizes ...int) []int { return append(slices.Clone(lead), sizes...) }
		out := RouterResult{
			Indices: fx.tensor(I32, shape(6)...), Scores: fx.tensor(F32, shape(6)...), Tokens: fx.tensor(F32, shape(6, 5)...), RoutedMask: fx.tensor(U8, shape(6)...),
			Logits: fx.tensor(F32, shape(20)...), SoftScores: fx.tensor(F32, shape(20)...),
		}
		require.NoError(t, r.Forward(t.Context(), out, x, 6, RouterOptions{RoutingTokens: fx.floats(tokens, shape(5)...)}))
		return out
	}
	a, b := run(2, 1), run(2)
	assert.Equal(t, fx.readInts(a.Indices), fx.readInts(b.Indices))
	assert.Equal(t, fx.readBytes(a.RoutedMask), fx.readBytes(b.RoutedMask))
	for _, pair := range [][2]*Tensor{{a.Scores, b.Scores}, {a.Tokens, b.Tokens}, {a.Logits, b.Logits}, {a.SoftScores, b.SoftScores}} {
		assert.Equal(t, fx.read(pair[0]), fx.read(pair[1]))
	}
	config.NumRoutingTokens = 2
	two := mustNew(fx, NewCoordinateDescentRouter, config)
	err := two.Forward(t.Context(), RouterResult{Scores: fx.tensor(F32, 2, 6)}, x, 6, RouterOptions{RoutingTokens: fx.tensor(F32, 2, 2, 5)})
	assert.ErrorContains(t, err, "Scores is f32[2 6], want f32[2 2 6]")
}

// A sequence of at most num_tokens tokens is not routed: its scores are the mask.
func TestRouterNothingRouted(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim, config.NumRoutingTokens = 4, 2
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	mask := randomMask(3, 2, 9)
	x, options := fx.floats(normal(1, 2*9*4), 2, 9, 4), RouterOptions{Mask: fx.bytes(mask, 2, 9)}
	scores, soft, routedMask := fx.tensor(F32, 2, 2, 9), fx.tensor(F32, 2, 2, 9), fx.tensor(U8, 2, 2, 9)
	var want []float32
	var valid []uint8
	for i := range 2 * 2 * 9 {
		want, valid = append(want, float32(mask[i/18*9+i%9])), append(valid, mask[i/18*9+i%9])
	}
	for _, out := range []RouterResult{
		{Scores: scores}, {SoftScores: soft}, {Scores: scores, SoftScores: soft}, {RoutedMask: routedMask}, {Scores: scores, SoftScores: soft, RoutedMask: routedMask},
	} {
		require.NoError(t, routedMask.Write(t.Context(), slices.Repeat([]uint8{7}, 36)))
		require.NoError(t, scores.Write(t.Context(), make([]float32, 36)))
		require.NoError(t, soft.Write(t.Context(), make([]float32, 36)))
		require.NoError(t, r.Forward(t.Context(), out, x, 9, options))
		if out.Scores != nil {
			assert.Equal(t, want, fx.read(scores))
		}
		if out.SoftScores != nil {
			assert.Equal(t, want, fx.read(soft))
		}
		if out.RoutedMask != nil {
			assert.Equal(t, valid, fx.readBytes(routedMask))
		}
	}
	assert.ErrorContains(t, r.Forward(t.Context(), RouterResult{Indices: fx.tensor(I32, 2, 2, 9)}, x, 9, options), "nothing is routed")
}

// Random routing selects real tokens only, with score 1. The selection depends on the seed alone.
func TestRandomRouting(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim, config.StraightThrough = 4, false
	r := mustNew(fx, NewCoordinateDescentRouter, config)
	mask := randomMask(3, 1, 50)
	x := fx.floats(normal(1, 50*4), 1, 50, 4)
	out := RouterResult{Indices: fx.tensor(I32, 1, 1, 10), Scores: fx.tensor(F32, 1, 1, 10), Logits: fx.tensor(F32, 1, 1, 50)}
	selectTokens := func(seed uint64) []int32 {
		require.NoError(t, r.Forward(t.Context(), out, x, 10, RouterOptions{Mask: fx.bytes(mask, 1, 50), RandomSeed: seed}))
		for _, s := range fx.read(out.Scores) {
			assert.Equal(t, float32(1), s)
		}
		indices := fx.readInts(out.Indices)
		assert.Equal(t, ref.Select(fx.read(out.Logits), mask, 1, 50, 10).Indices, indices)
		for _, i := range indices {
			assert.Equal(t, uint8(1), mask[i])
		}
		return indices
	}
	first := selectTokens(1)
	assert.NotEqual(t, first, selectTokens(2))
	assert.Equal(t, first, selectTokens(1))
}
