package colt5

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

func refImage(c ConditionalRoutedImageAttentionConfig) ref.ImageAttentionConfig {
	r := refConfig[ref.ImageAttentionConfig](c)
	r.Router = refRouter(c.Router, c.RouterStraightThrough, 1)
	return r
}

func TestImageAttentionReference(t *testing.T) {
	type config = ConditionalRoutedImageAttentionConfig
	prime := Default[ConditionalRoutedImageAttentionConfig]()
	prime.Dim, prime.LightHeads, prime.LightDimHead, prime.LightWindowSize, prime.HeavyHeads, prime.HeavyDimHead, prime.NumRoutedKV = 7, 3, 5, 3, 3, 17, 3
	prime.NumHeavyTokensQ, prime.NumHeavyTokensKV = 4, 5
	if testing.Short() {
		small := smallImage()
		prime.Dim, prime.LightHeads, prime.LightDimHead, prime.HeavyHeads, prime.HeavyDimHead, prime.NumRoutedKV =
			small.Dim, small.LightHeads, small.LightDimHead, small.HeavyHeads, small.HeavyDimHead, small.NumRoutedKV
	}
	allFlags := func(c *config) {
		useSoftScores(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	window := func(c *config) { c.RouteScope = RouteScopeWindow }
	channelFirst := func(c *config) { c.ChannelFirst = true }
	nothingRouted := func(c *config) { c.NumHeavyTokensQ, c.NumHeavyTokensKV = 100, 100 }
	for _, test := range []struct {
		name             string
		b, height, width int
		change           []func(*config)
	}{
		{"one patch", 2, 3, 3, nil},
		{"patches of one pixel, masked", 2, 5, 7, []func(*config){func(c *config) { c.LightWindowSize = 1 }}},
		{"image", 2, 9, 6, nil},
		{"image, all flags, channels first, masked", 2, 6, 9, []func(*config){allFlags, channelFirst}},
		{"image, blocks, no null token", 2, 6, 9, []func(*config){func(c *config) { c.Router.RouteBlockSize, c.UseNullQTokens = 20, false }}},
		{"image, nothing routed", 2, 6, 9, []func(*config){nothingRouted, channelFirst}},
		{"image, nothing routed, masked", 2, 6, 9, []func(*config){nothingRouted}},
		{"windows", 2, 9, 6, []func(*config){window}},
		{"windows, all flags, channels first, masked", 2, 6, 9, []func(*config){window, allFlags, channelFirst}},
		{"windows, nothing routed", 2, 6, 9, []func(*config){window, nothingRouted, channelFirst}},
		{"windows, masked", 3, 9, 15, []func(*config){window}},
		{"windows, nothing routed, masked", 2, 6, 9, []func(*config){window, nothingRouted}},
	} {
		if testing.Short() && test.name != "windows, masked" {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx, c := newFixture(t), prime
			for _, change := range test.change {
				change(&c)
			}
			a, shape := mustNewSeeded(fx, NewConditionalRoutedImageAttention, c), []int{test.b, test.height, test.width, c.Dim}
			if c.ChannelFirst {
				shape = []int{test.b, c.Dim, test.height, test.width}
			}
			x, y := normal(3, product(shape)), fx.tensor(F32, shape...)
			var mask []uint8
			var o ImageOptions
			if strings.Contains(test.name, "masked") {
				mask = randomMaskWithGap(4, test.b, test.height*test.width)
				o.Mask = fx.bytes(mask, test.b, test.height, test.width)
			}
			in := fx.floats(x, shape...)
			require.NoError(t, a.Forward(t.Context(), y, in, o))
			rc, p := refImage(c), ref.Params(fx.parameters(a.Parameters()))
			fx.checkReference(fx.read(y), ref.ConditionalRoutedImageAttention(x, mask, test.b, test.height, test.width, rc, p, ""),
				ref.ConditionalRoutedImageAttention32(x, mask, test.b, test.height, test.width, rc, p, ""))
			fx.checkBackward(a.Parameters(), feed{"x": in, "mask": o.Mask}, shape, func(ctx context.Context, y *Tensor, in feed) error {
				return a.Forward(ctx, y, in["x"], ImageOptions{Mask: in["mask"]})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.ConditionalRoutedImageAttentionBackward(x, mask, dy, test.b, test.height, test.width, rc, p, ""),
					ref.ConditionalRoutedImageAttentionBackward32(x, mask, dy, test.b, test.height, test.width, rc, p, "")
			})
		})
	}
}
