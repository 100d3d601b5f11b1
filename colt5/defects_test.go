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

// What follows are the defects of the Python package, one test each, numbered as in the specification's list: where the reference is wrong, and
// this library right. Those of modules are here, those of coordinate descent, top-k and routers in defects_routing_test.go.

// write gives a parameter other values.
func (b *bench) write(m anyModule, name string, data []float32) {
	b.t.Helper()
	for _, p := range m.Parameters() {
		if p.Name == name {
			require.NoError(b.t, p.Tensor.Write(data), name)
			return
		}
	}
	require.Fail(b.t, "no parameter "+name)
}

// unit is the i-th unit vector: as a routing token it makes a token's i-th channel its logit.
func unit(dim, i int) []float32 {
	v := make([]float32, dim)
	v[i] = 1
	return v
}

// tokensWith are random tokens whose first channels have given values.
func tokensWith(seed uint64, dim int, channels ...[]float32) []float32 {
	x := normal(seed, len(channels[0])*dim)
	for c, list := range channels {
		for i, v := range list {
			x[i*dim+c] = v
		}
	}
	return x
}

// ramp counts from 0; shuffled is the same in disorder, and descending falls.
func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	return x
}

func shuffled(seed uint64, n int) []float32 {
	x := ramp(n)
	rand.New(rand.NewPCG(seed, 5)).Shuffle(n, func(i, j int) { x[i], x[j] = x[j], x[i] })
	return x
}

// rowsUnlike lists the rows of y that differ from one row in some bit.
func rowsUnlike(y, row []float32) []int {
	list := []int{}
	for i := range len(y) / len(row) {
		if !sameBits(y[i*len(row):][:len(row)], row) {
			list = append(list, i)
		}
	}
	return list
}

// noLight is a small attention without its light branch: rows that are no query are the null token, or 0.
func (b *bench) noLight(change func(*ConditionalRoutedAttentionConfig)) *ConditionalRoutedAttention {
	b.t.Helper()
	c := smallAttention()
	c.HasLightAttn, c.NumRoutedKV = false, 1
	if change != nil {
		change(&c)
	}
	a := create(b, NewConditionalRoutedAttention, c)
	b.write(a, "q_router.routing_token", unit(smallDim, 0))
	b.write(a, "kv_router.routing_token", unit(smallDim, 1))
	return a
}

func (b *bench) attend(a *ConditionalRoutedAttention, x []float32, items int, mask []uint8) []float32 {
	b.t.Helper()
	n, o := len(x)/items/smallDim, AttentionOptions{}
	if mask != nil {
		o.Mask = b.bytes(mask, items, n)
	}
	return b.output(func(y *Tensor) error { return a.Forward(y, b.floats(x, items, n, smallDim), o) }, items, n, smallDim)
}

func (b *bench) crossAttend(a *ConditionalRoutedCrossAttention, x, context []float32, items int) []float32 {
	b.t.Helper()
	n, m := len(x)/items/smallDim, len(context)/items/smallDim
	return b.output(func(y *Tensor) error {
		return a.Forward(y, b.floats(x, items, n, smallDim), b.floats(context, items, m, smallDim), CrossAttentionOptions{})
	}, items, n, smallDim)
}

// Cross-attention ran into an undefined name. Here the queries are the tokens with the largest logits, and the rest is the null token.
func TestDefect01CrossAttentionCrashes(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	a := create(b, NewConditionalRoutedCrossAttention, smallCross())
	b.write(a, "q_router.routing_token", unit(smallDim, 0))
	y := b.crossAttend(a, tokensWith(1, smallDim, ramp(20)), normal(2, 50*smallDim), 1)
	assert.Equal(t, []int{14, 15, 16, 17, 18, 19}, rowsUnlike(y, b.host(a.Parameters())["null_q_token"]))
}

// With several routes, the keys and values of a batch item came from another one.
func TestDefect02RoutesReadAnotherItem(t *testing.T) {
	b := newBench(t)
	for _, s := range b.subjects(F32) {
		if !slices.Contains([]string{"attention", "cross", "autoregressive", "image"}, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			in := &bench{t, b.dev}
			v := s.some(1, 3, false)
			got := in.result(s, 3, v)
			for j := range 3 {
				assert.True(t, sameBits(in.result(s, 1, s.item(v, j, 3)), part(got, j, 3)), "item %d", j)
			}
		})
	}
}

// With blocks it crashed, or left out the tokens after the last whole block.
func TestDefect03BlocksDropTheTail(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	a := b.noLight(func(c *ConditionalRoutedAttentionConfig) { c.Router.RouteBlockSize = 5 })
	// Blocks of 5, 5 and 3 tokens choose 2 each.
	y := b.attend(a, tokensWith(1, smallDim, ramp(13)), 1, nil)
	assert.Equal(t, []int{3, 4, 8, 9, 11, 12}, rowsUnlike(y, b.host(a.Parameters())["null_q_token"]))

	config := smallCross()
	config.RouteBlockSize, config.KVRoutingTokens, config.NumTokensKV = 5, 1, 6
	cross := create(b, NewConditionalRoutedCrossAttention, config)
	b.write(cross, "kv_router.routing_token", unit(smallDim, 0))
	x, context := normal(2, 9*smallDim), tokensWith(3, smallDim, ramp(13))
	before := b.crossAttend(cross, x, context, 1)
	for token := range 13 {
		edited := slices.Clone(context)
		edited[token*smallDim+1]++
		chosen := slices.Contains([]int{3, 4, 8, 9, 11, 12}, token)
		assert.Equal(t, chosen, !sameBits(before, b.crossAttend(cross, x, edited, 1)), "context token %d", token)
	}
}

// Images crashed where nothing was routed, and routed in each window on its own. Here the router sees the whole image, unless it is
// told otherwise.
func TestDefect04ImagesRouteInWindowsOnly(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	const height, width = 8, 12 // 2 by 3 patches
	see := func(a *ConditionalRoutedImageAttention, x []float32) []float32 {
		return b.output(func(y *Tensor) error {
			return a.Forward(y, b.floats(x, 1, height, width, smallDim), ImageOptions{})
		}, 1, height, width, smallDim)
	}
	far := func(c ConditionalRoutedImageAttentionConfig) bool {
		a := create(b, NewConditionalRoutedImageAttention, c)
		x := normal(1, height*width*smallDim)
		before := see(a, x)
		copy(x[(height*width-1)*smallDim:], normal(2, smallDim))  // the last pixel
		return !sameBits(before[:smallDim], see(a, x)[:smallDim]) // seen from the first
	}
	c := smallImage()
	c.ChannelFirst, c.NumHeavyTokensQ, c.NumHeavyTokensKV = false, height*width, height*width
	assert.True(t, far(c), "nothing routed: all pixels attend to all")
	c.RouteScope = RouteScopeWindow
	assert.False(t, far(c), "each patch on its own")

	c = smallImage()
	c.ChannelFirst = false
	a := create(b, NewConditionalRoutedImageAttention, c)
	b.write(a, "q_router.routing_token", unit(smallDim, 0))
	a.Inspect(true)
	see(a, tokensWith(3, smallDim, ramp(height*width)))
	list, err := a.LastRouting()
	require.NoError(t, err)
	assert.ElementsMatch(t, []int32{90, 91, 92, 93, 94, 95}, list[0].Indices, "all queries stand in the last patches")

	v := smallViT()
	v.AttnNumHeavyTokensQ, v.AttnNumHeavyTokensKV, v.FFNumHeavyTokens = 96, 96, 96
	vit := create(b, NewConditionalRoutedViT, v)
	b.output(func(y *Tensor) error { return vit.Forward(y, b.floats(normal(4, 2*3*16*24), 2, 3, 16, 24)) }, 2, 5)
}

// Padding got a heavy output where nothing was routed.
func TestDefect06PaddingGetsHeavyOutput(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	const items, n = 3, 30
	mask := someMask(1, items, n)
	var real []int
	for i, m := range mask {
		if m != 0 {
			real = append(real, i)
		}
	}
	for _, null := range []bool{true, false} {
		a := b.noLight(func(c *ConditionalRoutedAttentionConfig) {
			c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.UseNullQTokens = n, n+1, null
		})
		row := make([]float32, smallDim)
		if null {
			row = b.host(a.Parameters())["null_q_token"]
		}
		assert.Equal(t, real, rowsUnlike(b.attend(a, normal(2, items*n*smallDim), items, mask), row))
	}
	// The feedforward: only the light output is left.
	config := smallFeedForward()
	config.NumHeavyTokens = n
	f := create(b, NewConditionalRoutedFeedForward, config)
	x, m := b.floats(normal(3, items*n*smallDim), items, n, smallDim), b.bytes(mask, items, n)
	run := func() []float32 {
		return b.output(func(y *Tensor) error { return f.Forward(y, x, FeedForwardOptions{Mask: m}) }, items, n, smallDim)
	}
	both := run()
	b.write(f, "heavy_ff.3.weight", make([]float32, 2*smallDim*smallDim))
	b.write(f, "heavy_ff.3.bias", make([]float32, smallDim))
	for i, light := 0, run(); i < items*n; i++ {
		assert.Equal(t, mask[i] == 0, sameBits(light[i*smallDim:][:smallDim], both[i*smallDim:][:smallDim]), "row %d", i)
	}
}

// Without a mask, and with a length that is no multiple of the window, the light branch attended to its own zero padding.
func TestDefect07AttendsToZeroPadding(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	a := create(b, NewConditionalRoutedAttention, smallAttention())
	for _, n := range []int{9, 13, 15, 45} {
		x := normal(1, n*smallDim)
		got := b.attend(a, x, 1, nil)
		assert.True(t, sameBits(got, b.attend(a, x, 1, slices.Repeat([]uint8{1}, n))), "%d tokens: a mask of ones is no mask", n)
		// Masked tokens behind change nothing, whatever they hold.
		more := (n+15)/16*16 + 16
		longer := b.attend(a, append(slices.Clone(x), normal(2, (more-n)*smallDim)...), 1, append(slices.Repeat([]uint8{1}, n), make([]uint8, more-n)...))
		assert.NoError(t, ref.MaxErr(got, float64s(longer[:n*smallDim])).Within(2e-6), "%d tokens", n)
	}
}

// A query whose whole neighbourhood is masked averaged what stood there. Here it gets 0.
func TestDefect08MaskedNeighbourhood(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := smallAttention()
	config.UseNullQTokens = false
	a := create(b, NewConditionalRoutedAttention, config)
	x, mask := normal(1, smallN*smallDim), slices.Concat(make([]uint8, 24), slices.Repeat([]uint8{1}, 24))
	for i := range x[:24*smallDim] {
		x[i] *= 1000
	}
	y := b.attend(a, x, 1, mask)
	var seen []int // tokens that see one from 24 on: half a window is 4
	for i := 20; i < smallN; i++ {
		seen = append(seen, i)
	}
	assert.Equal(t, seen, rowsUnlike(y, make([]float32, smallDim)))
}

// With fewer real tokens than slots, padding filled the rest.
func TestDefect09PaddingIsRouted(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	const n = 40
	mask := make([]uint8, n)
	mask[7], mask[20], mask[39] = 1, 1, 1
	x := tokensWith(1, smallDim, shuffled(1, n), shuffled(2, n))
	a := b.noLight(nil)
	a.Inspect(true)
	y := b.attend(a, x, 1, mask)
	assert.Equal(t, []int{7, 20, 39}, rowsUnlike(y, b.host(a.Parameters())["null_q_token"]))
	list, err := a.LastRouting()
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, d := range list {
		assert.ElementsMatch(t, []int32{7, 20, 39}, filledOf(d), d.Router)
		assert.Equal(t, float64(d.K-3)/float64(d.K), d.Statistics.Empty)
	}
	for i := range x {
		if mask[i/smallDim] == 0 {
			x[i] = 1e6
		}
	}
	assert.True(t, sameBits(y, b.attend(a, x, 1, mask)), "padding is looked at")
}

func filledOf(d RoutingRecord) []int32 {
	var list []int32
	for i, s := range d.Scores {
		if s != 0 {
			list = append(list, d.Indices[i])
		}
	}
	return list
}

// Autoregressive sequences shorter than a window crashed, or came out in another length. Here they are what they are in a longer one.
func TestDefect12ShorterThanAWindow(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config := smallAutoregressive()
	config.CausalQueryRouting, config.HeavyWindowSize = false, 8
	a := create(b, NewConditionalRoutedAutoregressiveAttention, config)
	const window, items = 8, 2
	x := normal(1, items*20*smallDim)
	run := func(n int) []float32 {
		var cut []float32
		for i := range items {
			cut = append(cut, x[i*20*smallDim:][:n*smallDim]...)
		}
		return b.output(func(y *Tensor) error {
			return a.Forward(y, b.floats(cut, items, n, smallDim), AutoregressiveOptions{})
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

// Rows that are masked altogether gave NaN. Here scores are 0, and outputs numbers.
func TestDefect13FullyMaskedRows(t *testing.T) {
	b := newBench(t)
	t.Run("coordinate descent", func(t *testing.T) {
		gputest.CountCase()
		b := &bench{t, b.dev}
		for _, n := range []int{1, 5, 300, 9000} {
			d, y := opened(b, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7}), b.tensor(F32, 2, n)
			require.NoError(t, d.Forward(y, b.floats(normal(1, 2*n), 2, n), b.bytes(append(make([]uint8, n), slices.Repeat([]uint8{1}, n)...), 2, n)))
			assert.Equal(t, make([]float32, n), b.read(y)[:n], "%d entries", n)
			assert.NotZero(t, slices.Max(b.finite(y)[n:]))
		}
	})
	for _, s := range b.subjects(F32) {
		if !s.masked {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			in := &bench{t, b.dev}
			v := s.some(1, 2, true)
			clear(v.mask)
			clear(v.secondMask)
			in.result(s, 2, v) // which must be finite
		})
	}
	t.Run("soft scores", func(t *testing.T) {
		gputest.CountCase()
		b := &bench{t, b.dev}
		a := b.noLight(func(c *ConditionalRoutedAttentionConfig) {
			c.RouterStraightThrough, c.MultiplyKeysByScore = false, true
		})
		y := b.attend(a, normal(1, 2*30*smallDim), 2, make([]uint8, 60))
		assert.Empty(t, rowsUnlike(y, b.host(a.Parameters())["null_q_token"]))
	})
}
