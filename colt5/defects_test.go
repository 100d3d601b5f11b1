package colt5

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One regression test for each known defect of the Python package colt5-attention 0.11.1, with the inputs that showed
// it. Each comment first states the defect. The defects of coordinate descent, top-k and routers are
// in defects_router_test.go.

// unitVector returns the i-th unit vector. With it as routing token, the logit of a token is the token's channel i.
func unitVector(dim, i int) []float32 {
	v := make([]float32, dim)
	v[i] = 1
	return v
}

// tokensWithChannels returns random tokens; channel c of token i is channels[c][i].
func tokensWithChannels(seed uint64, dim int, channels ...[]float32) []float32 {
	x := normal(seed, len(channels[0])*dim)
	for c, list := range channels {
		for i, v := range list {
			x[i*dim+c] = v
		}
	}
	return x
}

// ramp returns 0, 1, .., n-1.
func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	return x
}

// shuffled returns a random permutation of ramp(n).
func shuffled(seed uint64, n int) []float32 {
	x := ramp(n)
	rand.New(rand.NewPCG(seed, 5)).Shuffle(n, func(i, j int) { x[i], x[j] = x[j], x[i] })
	return x
}

// rowsNotEqual returns the indices of the rows of y whose bits differ from row.
func rowsNotEqual(y, row []float32) []int {
	list := []int{}
	for i := range len(y) / len(row) {
		if !sameBits(y[i*len(row):][:len(row)], row) {
			list = append(list, i)
		}
	}
	return list
}

// heavyOnly creates a small attention without light branch: output rows that are not selected as queries are the null
// query token, or 0. The query logit of a token is its channel 0, the key/value logit its channel 1.
func (fx *fixture) heavyOnly(change func(*ConditionalRoutedAttentionConfig)) *ConditionalRoutedAttention {
	fx.t.Helper()
	c := smallAttention()
	c.HasLightAttn, c.NumRoutedKV = false, 1
	if change != nil {
		change(&c)
	}
	a := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
	fx.setParameter(a, "q_router.routing_token", unitVector(smallDim, 0))
	fx.setParameter(a, "kv_router.routing_token", unitVector(smallDim, 1))
	return a
}

func (fx *fixture) attention(a *ConditionalRoutedAttention, x []float32, items int, mask []uint8) []float32 {
	fx.t.Helper()
	n, o := len(x)/items/smallDim, AttentionOptions{}
	if mask != nil {
		o.Mask = fx.bytes(mask, items, n)
	}
	return fx.finiteOutput(func(y *Tensor) error { return a.Forward(fx.t.Context(), y, fx.floats(x, items, n, smallDim), o) }, items, n, smallDim)
}

func (fx *fixture) crossAttention(a *ConditionalRoutedCrossAttention, x, context []float32, items int) []float32 {
	fx.t.Helper()
	n, m := len(x)/items/smallDim, len(context)/items/smallDim
	return fx.finiteOutput(func(y *Tensor) error {
		return a.Forward(fx.t.Context(), y, fx.floats(x, items, n, smallDim), fx.floats(context, items, m, smallDim), CrossAttentionOptions{})
	}, items, n, smallDim)
}

// Defect: cross-attention crashes (undefined name). Here the tokens with the largest logits are the queries, and all
// other rows are the null query token.
func TestDefect01CrossAttentionCrashes(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	a := mustNewSeeded(fx, NewConditionalRoutedCrossAttention, smallCross())
	fx.setParameter(a, "q_router.routing_token", unitVector(smallDim, 0))
	y := fx.crossAttention(a, tokensWithChannels(1, smallDim, ramp(20)), normal(2, 50*smallDim), 1)
	assert.Equal(t, []int{14, 15, 16, 17, 18, 19}, rowsNotEqual(y, fx.parameters(a.Parameters())["null_q_token"]))
}

// Defect: with several routes, a batch item reads keys and values of another item.
func TestDefect02RoutesReadAnotherItem(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 6 s on CPU drivers")
	}
	t.Parallel()
	fx := newFixture(t)
	for _, s := range fx.testModules(F32) {
		if !slices.Contains([]string{"attention", "cross", "autoregressive", "image"}, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			sub := fx.sub(t)
			v := s.randomInput(1, 3, false)
			got := sub.run(s, 3, v)
			for j := range 3 {
				assert.True(t, sameBits(sub.run(s, 1, s.item(v, j, 3)), batchItem(got, j, 3)), "item %d", j)
			}
		})
	}
}

// Defect: with route_block_size the router crashes, or ignores the tokens after the last whole block.
func TestDefect03BlocksDropTheTail(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	a := fx.heavyOnly(func(c *ConditionalRoutedAttentionConfig) { c.Router.RouteBlockSize = 5 })
	// Blocks of 5, 5 and 3 tokens select 2 each.
	y := fx.attention(a, tokensWithChannels(1, smallDim, ramp(13)), 1, nil)
	assert.Equal(t, []int{3, 4, 8, 9, 11, 12}, rowsNotEqual(y, fx.parameters(a.Parameters())["null_q_token"]))

	config := smallCross()
	config.RouteBlockSize, config.KVRoutingTokens, config.NumTokensKV = 5, 1, 6
	cross := mustNewSeeded(fx, NewConditionalRoutedCrossAttention, config)
	fx.setParameter(cross, "kv_router.routing_token", unitVector(smallDim, 0))
	x, context := normal(2, 9*smallDim), tokensWithChannels(3, smallDim, ramp(13))
	before := fx.crossAttention(cross, x, context, 1)
	for token := range 13 {
		edited := slices.Clone(context)
		edited[token*smallDim+1]++
		selected := slices.Contains([]int{3, 4, 8, 9, 11, 12}, token)
		assert.Equal(t, selected, !sameBits(before, fx.crossAttention(cross, x, edited, 1)), "context token %d", token)
	}
}

// Defect: image attention crashes if nothing is routed, and routes only within a window. Here RouteScopeImage, the
// default, routes among all pixels.
func TestDefect04ImagesRouteInWindowsOnly(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const height, width = 8, 12 // 2 by 3 patches
	var routing []RoutingRecord
	forward := func(a *ConditionalRoutedImageAttention, x []float32) []float32 {
		return fx.finiteOutput(func(y *Tensor) error {
			return a.Forward(t.Context(), y, fx.floats(x, 1, height, width, smallDim), ImageOptions{Routing: &routing})
		}, 1, height, width, smallDim)
	}
	crossesWindows := func(c ConditionalRoutedImageAttentionConfig) bool {
		a := mustNewSeeded(fx, NewConditionalRoutedImageAttention, c)
		x := normal(1, height*width*smallDim)
		before := forward(a, x)
		copy(x[(height*width-1)*smallDim:], normal(2, smallDim))      // edit the last pixel
		return !sameBits(before[:smallDim], forward(a, x)[:smallDim]) // does the first pixel's output change?
	}
	c := smallImage()
	c.ChannelFirst, c.NumHeavyTokensQ, c.NumHeavyTokensKV = false, height*width, height*width
	assert.True(t, crossesWindows(c), "nothing routed: all pixels attend to all")
	c.RouteScope = RouteScopeWindow
	assert.False(t, crossesWindows(c), "RouteScopeWindow")

	c = smallImage()
	c.ChannelFirst = false
	a := mustNewSeeded(fx, NewConditionalRoutedImageAttention, c)
	fx.setParameter(a, "q_router.routing_token", unitVector(smallDim, 0))
	forward(a, tokensWithChannels(3, smallDim, ramp(height*width)))
	assert.ElementsMatch(t, []int32{90, 91, 92, 93, 94, 95}, routing[0].Indices, "all queries are in the last patches")

	v := smallViT()
	v.AttnNumHeavyTokensQ, v.AttnNumHeavyTokensKV, v.FFNumHeavyTokens = 96, 96, 96
	vit := mustNewSeeded(fx, NewConditionalRoutedViT, v)
	fx.finiteOutput(func(y *Tensor) error {
		return vit.Forward(t.Context(), y, fx.floats(normal(4, 2*3*16*24), 2, 3, 16, 24), ViTOptions{})
	}, 2, 5)
}

// Defect: if nothing is routed, padding rows receive heavy output.
func TestDefect06PaddingGetsHeavyOutput(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const items, n = 3, 30
	mask := randomMask(1, items, n)
	var realRows []int
	for i, m := range mask {
		if m != 0 {
			realRows = append(realRows, i)
		}
	}
	for _, null := range []bool{true, false} {
		a := fx.heavyOnly(func(c *ConditionalRoutedAttentionConfig) {
			c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.UseNullQTokens = n, n+1, null
		})
		row := make([]float32, smallDim)
		if null {
			row = fx.parameters(a.Parameters())["null_q_token"]
		}
		assert.Equal(t, realRows, rowsNotEqual(fx.attention(a, normal(2, items*n*smallDim), items, mask), row))
	}
	// Feedforward: padding rows have the light output only, so they do not depend on the heavy weights.
	config := smallFeedForward()
	config.NumHeavyTokens = n
	f := mustNewSeeded(fx, NewConditionalRoutedFeedForward, config)
	x, m := fx.floats(normal(3, items*n*smallDim), items, n, smallDim), fx.bytes(mask, items, n)
	run := func() []float32 {
		return fx.finiteOutput(func(y *Tensor) error { return f.Forward(t.Context(), y, x, FeedForwardOptions{Mask: m}) }, items, n, smallDim)
	}
	both := run()
	fx.setParameter(f, "heavy_ff.3.weight", make([]float32, 2*smallDim*smallDim))
	fx.setParameter(f, "heavy_ff.3.bias", make([]float32, smallDim))
	for i, light := 0, run(); i < items*n; i++ {
		assert.Equal(t, mask[i] == 0, sameBits(light[i*smallDim:][:smallDim], both[i*smallDim:][:smallDim]), "row %d", i)
	}
}

// Defect: without a mask, if N is not a multiple of the window, light attention attends to zero padding.
func TestDefect07AttendsToZeroPadding(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	a := mustNewSeeded(fx, NewConditionalRoutedAttention, smallAttention())
	for _, n := range []int{9, 13, 15, 45} {
		x := normal(1, n*smallDim)
		got := fx.attention(a, x, 1, nil)
		assert.True(t, sameBits(got, fx.attention(a, x, 1, slices.Repeat([]uint8{1}, n))), "%d tokens: a mask of ones is the same as no mask", n)
		// Masked tokens appended at the end do not change the output.
		more := (n+15)/16*16 + 16
		longer := fx.attention(a, append(slices.Clone(x), normal(2, (more-n)*smallDim)...), 1, append(slices.Repeat([]uint8{1}, n), make([]uint8, more-n)...))
		assert.NoError(t, ref.MaxErr(got, float64s(longer[:n*smallDim])).Within(2e-6), "%d tokens", n)
	}
}

// Defect: a query whose whole neighbourhood is masked averages masked values. Here its output is 0.
func TestDefect08MaskedNeighbourhood(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := smallAttention()
	config.UseNullQTokens = false
	a := mustNewSeeded(fx, NewConditionalRoutedAttention, config)
	x, mask := normal(1, smallN*smallDim), slices.Concat(make([]uint8, 24), slices.Repeat([]uint8{1}, 24))
	for i := range x[:24*smallDim] {
		x[i] *= 1000
	}
	y := fx.attention(a, x, 1, mask)
	var visible []int // queries with a real key: tokens from 24 on are real, and half a window is 4
	for i := 20; i < smallN; i++ {
		visible = append(visible, i)
	}
	assert.Equal(t, visible, rowsNotEqual(y, make([]float32, smallDim)))
}

// Defect: with fewer than k real tokens, padding is routed. Here the slots left over are empty.
func TestDefect09PaddingIsRouted(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const n = 40
	mask := make([]uint8, n)
	mask[7], mask[20], mask[39] = 1, 1, 1
	x := tokensWithChannels(1, smallDim, shuffled(1, n), shuffled(2, n))
	a := fx.heavyOnly(nil)
	var routing []RoutingRecord
	y := fx.finiteOutput(func(y *Tensor) error {
		return a.Forward(t.Context(), y, fx.floats(x, 1, n, smallDim), AttentionOptions{Mask: fx.bytes(mask, 1, n), Routing: &routing})
	}, 1, n, smallDim)
	assert.Equal(t, []int{7, 20, 39}, rowsNotEqual(y, fx.parameters(a.Parameters())["null_q_token"]))
	require.Len(t, routing, 2)
	for _, d := range routing {
		assert.ElementsMatch(t, []int32{7, 20, 39}, validIndices(d), d.Router)
		assert.Equal(t, float64(d.K-3)/float64(d.K), d.Empty)
	}
	for i := range x {
		if mask[i/smallDim] == 0 {
			x[i] = 1e6
		}
	}
	assert.True(t, sameBits(y, fx.attention(a, x, 1, mask)), "the output depends on padding")
}

// validIndices returns the tokens in the slots of a record that are not empty.
func validIndices(d RoutingRecord) []int32 {
	var list []int32
	for i, s := range d.Scores {
		if s != 0 {
			list = append(list, d.Indices[i])
		}
	}
	return list
}

// Defect: autoregressive attention crashes or returns another length if the input is shorter than a window. Here its
// output equals the first rows of the output for a longer input.
func TestDefect12ShorterThanAWindow(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := smallAutoregressive()
	config.CausalQueryRouting, config.HeavyWindowSize = false, 8
	a := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, config)
	const window, items = 8, 2
	x := normal(1, items*20*smallDim)
	run := func(n int) []float32 {
		var cut []float32
		for i := range items {
			cut = append(cut, x[i*20*smallDim:][:n*smallDim]...)
		}
		return fx.finiteOutput(func(y *Tensor) error {
			return a.Forward(t.Context(), y, fx.floats(cut, items, n, smallDim), AutoregressiveOptions{})
		}, items, n, smallDim)
	}
	long := run(20)
	for n := 1; n <= window+1; n++ {
		y := run(n)
		for i := range items {
			rows := min(n, window) * smallDim
			assert.True(t, sameBits(long[i*20*smallDim:][:rows], y[i*n*smallDim:][:rows]), "%d tokens, item %d", n, i)
		}
	}
}

// Defect: fully masked rows give NaN. Here their scores are 0 and all outputs are finite.
func TestDefect13FullyMaskedRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	t.Parallel()
	fx := newFixture(t)
	t.Run("coordinate descent", func(t *testing.T) {
		gputest.CountCase()
		fx := fx.sub(t)
		for _, n := range []int{1, 5, 300, 9000} {
			d, y := mustNewWithoutWeights(fx, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}), fx.tensor(F32, 2, n)
			mask := fx.bytes(append(make([]uint8, n), slices.Repeat([]uint8{1}, n)...), 2, n)
			require.NoError(t, d.Forward(t.Context(), y, fx.floats(normal(1, 2*n), 2, n), CoordinateDescentOptions{Mask: mask}))
			assert.Equal(t, make([]float32, n), fx.read(y)[:n], "%d entries", n)
			assert.NotZero(t, slices.Max(fx.readFinite(y)[n:]))
		}
	})
	for _, s := range fx.testModules(F32) {
		if !s.masked {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			sub := fx.sub(t)
			v := s.randomInput(1, 2, true)
			clear(v.mask)
			clear(v.contextMask)
			sub.run(s, 2, v) // fails if an output is not finite
		})
	}
	t.Run("soft scores", func(t *testing.T) {
		gputest.CountCase()
		fx := fx.sub(t)
		a := fx.heavyOnly(func(c *ConditionalRoutedAttentionConfig) {
			c.RouterStraightThrough, c.MultiplyKeysByScore = false, true
		})
		y := fx.attention(a, normal(1, 2*30*smallDim), 2, make([]uint8, 60))
		assert.Empty(t, rowsNotEqual(y, fx.parameters(a.Parameters())["null_q_token"]))
	})
}
