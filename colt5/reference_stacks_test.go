package colt5

import (
	"context"
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/require"
)

// Comparisons with the CPU reference, as in reference_test.go, of modules that are composed of other modules.

func TestViTReference(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers; TestVerifyPyTorch of vkbench has a case")
	}
	prime := Default[ConditionalRoutedViTConfig]()
	prime.ImageSize, prime.PatchSize, prime.Channels, prime.NumClasses, prime.Dim, prime.Depth = Size{12, 27}, Size{2, 3}, 2, 11, 20, 1
	prime.AttnNumHeavyTokensQ, prime.AttnNumHeavyTokensKV, prime.AttnNumRoutedKV, prime.AttnHeavyHeads, prime.AttnHeavyDimHead = 5, 6, 2, 2, 20
	prime.AttnLightHeads, prime.AttnLightDimHead, prime.AttnLightWindowSize, prime.FFNumHeavyTokens, prime.FFHeavyMult, prime.FFLightMult = 2, 12, 3, 10, 1.3, 0.4
	soft, windows, deep, whole := prime, prime, prime, prime
	soft.RouterStraightThrough, soft.Router.EpsInit, soft.Router.EpsDecay = false, 0, 1
	windows.RouteScope, deep.Depth = RouteScopeWindow, 3
	whole.AttnNumHeavyTokensQ, whole.AttnNumHeavyTokensKV, whole.FFNumHeavyTokens = 54, 54, 54
	for name, c := range map[string]ConditionalRoutedViTConfig{"prime": prime, "soft": soft, "windows": windows, "deep": deep, "nothing routed": whole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx := newFixture(t)
			v := mustNewSeeded(fx, NewConditionalRoutedViT, c)
			x, y := normal(3, 2*2*12*27), fx.tensor(F32, 2, 11)
			in := fx.floats(x, 2, 2, 12, 27)
			require.NoError(t, v.Forward(t.Context(), y, in, ViTOptions{}))
			rc := ref.ViTConfig{
				ImageHeight: 12, ImageWidth: 27, PatchHeight: 2, PatchWidth: 3, Channels: 2, Depth: c.Depth, NumClasses: 11,
				Attention: refImage(c.attention()), NumHeavyFFTokens: c.FFNumHeavyTokens, Router: refRouter(c.Router, c.RouterStraightThrough, 1),
			}
			p := ref.Params(fx.parameters(v.Parameters()))
			fx.checkReference(fx.read(y), ref.ConditionalRoutedViT(x, 2, rc, p, ""), ref.ConditionalRoutedViT32(x, 2, rc, p, ""))
			fx.checkBackward(v.Parameters(), feed{"x": in}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return v.Forward(ctx, y, in["x"], ViTOptions{})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.ConditionalRoutedViTBackward(x, dy, 2, rc, p, ""), ref.ConditionalRoutedViTBackward32(x, dy, 2, rc, p, "")
			})
		})
	}
}

// primeBlock has the sizes of primeAttention.
func primeBlock() ConditionalRoutedTransformerBlockConfig {
	if testing.Short() {
		return smallBlock()
	}
	a, c := primeAttention(), Default[ConditionalRoutedTransformerBlockConfig]()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV =
		a.Dim, a.LightHeads, a.LightDimHead, a.LightWindowSize, a.HeavyHeads, a.HeavyDimHead, a.NumRoutedKV
	c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens, c.HeavyFFMult = a.NumHeavyTokensQ, a.NumHeavyTokensKV, 6, 2.5
	return c
}

// randomIDs returns random token ids below vocabulary, as int32 and, for a vocabulary of at most 256, the same as
// bytes.
func randomIDs(seed uint64, count, vocabulary int) (ids []int32, bytes []uint8) {
	for _, v := range normal(seed, count) {
		id := int32(v*1000) % int32(vocabulary)
		ids, bytes = append(ids, max(id, -id)), append(bytes, uint8(max(id, -id)))
	}
	return ids, bytes
}

func TestEncoderReference(t *testing.T) {
	for i, test := range []struct {
		depth, vocabulary, b, n   int
		bytes, mask, soft, blocks bool
	}{
		{depth: 1, b: 2, n: 29},
		{depth: 2, b: 3, n: 53, mask: true},
		{depth: 3, b: 2, n: 53, mask: true, soft: true},
		{depth: 1, vocabulary: 37, b: 2, n: 53, mask: true},
		{depth: 2, vocabulary: 300, bytes: true, b: 2, n: 53, blocks: true},
		{depth: 3, vocabulary: 1000, b: 1, n: 1},
	} {
		if testing.Short() && i != 1 {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx := newFixture(t)
			c := EncoderConfig{Depth: test.depth, NumTokens: int(test.vocabulary), ConditionalRoutedTransformerBlockConfig: primeBlock()}
			if c.RouterStraightThrough = !test.soft; test.soft {
				useSoftScores(&c.Router)
			}
			if test.blocks {
				c.Router.RouteBlockSize = 20
			}
			e := mustNewSeeded(fx, NewEncoder, c)
			var x []float32
			var ids []int32
			var tensor *Tensor
			switch list, bytes := randomIDs(5, test.b*test.n, max(test.vocabulary, 1)); {
			case test.vocabulary == 0:
				x = normal(3, test.b*test.n*c.Dim)
				tensor = fx.floats(x, test.b, test.n, c.Dim)
			case test.bytes:
				for _, v := range bytes {
					ids = append(ids, int32(v))
				}
				tensor = fx.bytes(bytes, test.b, test.n)
			default:
				ids, tensor = list, fx.ints(list, test.b, test.n)
			}
			var mask []uint8
			o := BlockOptions{}
			if test.mask {
				mask = randomMaskWithGap(4, test.b, test.n)
				o.Mask = fx.bytes(mask, test.b, test.n)
			}
			y := fx.tensor(F32, test.b, test.n, c.Dim)
			require.NoError(t, e.Forward(t.Context(), y, tensor, o))
			rc := ref.BlockConfig{AttentionConfig: refAttention(c.Attention()), NumHeavyFFTokens: c.NumHeavyFFTokens}
			p := ref.Params(fx.parameters(e.Parameters()))
			fx.checkReference(fx.read(y), ref.Encoder(x, ids, mask, test.b, test.n, c.Depth, rc, p, ""),
				ref.Encoder32(x, ids, mask, test.b, test.n, c.Depth, rc, p, ""))
			fx.checkBackward(e.Parameters(), feed{"x": tensor, "mask": o.Mask}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return e.Forward(ctx, y, in["x"], BlockOptions{Mask: in["mask"]})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.EncoderBackward(x, ids, mask, dy, test.b, test.n, c.Depth, rc, p, ""),
					ref.EncoderBackward32(x, ids, mask, dy, test.b, test.n, c.Depth, rc, p, "")
			})
		})
	}
}

func TestBlockReference(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx, c := newFixture(t), primeBlock()
	m := mustNewSeeded(fx, NewConditionalRoutedTransformerBlock, c)
	const items, n = 3, 53
	x, mask, y := normal(1, items*n*c.Dim), randomMaskWithGap(2, items, n), fx.tensor(F32, items, n, c.Dim)
	rc := ref.BlockConfig{AttentionConfig: refAttention(c.Attention()), NumHeavyFFTokens: c.NumHeavyFFTokens}
	p := ref.Params(fx.parameters(m.Parameters()))
	run := func(o BlockOptions) {
		t.Helper()
		o.Mask = fx.bytes(mask, items, n)
		require.NoError(t, m.Forward(t.Context(), y, fx.floats(x, items, n, c.Dim), o))
		fx.checkReference(fx.read(y), ref.ConditionalRoutedTransformerBlock(x, mask, items, n, rc, p, ""),
			ref.ConditionalRoutedTransformerBlock32(x, mask, items, n, rc, p, ""))
		inputs := feed{"x": fx.floats(x, items, n, c.Dim), "mask": o.Mask}
		fx.checkBackward(m.Parameters(), inputs, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
			o := o
			o.Mask = in["mask"]
			return m.Forward(ctx, y, in["x"], o)
		}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
			return ref.ConditionalRoutedTransformerBlockBackward(x, mask, dy, items, n, rc, p, ""),
				ref.ConditionalRoutedTransformerBlockBackward32(x, mask, dy, items, n, rc, p, "")
		})
	}
	run(BlockOptions{})
	// Token counts in the call options replace those of the config.
	rc.NumHeavyTokensQ, rc.NumHeavyTokensKV, rc.NumHeavyFFTokens = 53, 3, 17
	run(BlockOptions{NumHeavyAttnTokensQ: 53, NumHeavyAttnTokensKV: 3, NumHeavyFFTokens: 17})
}

func TestAutoregressiveTransformerReference(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers; TestVerifyPyTorch of vkbench has a case of its layers")
	}
	for _, test := range []struct {
		depth, vocabulary, n int
		causal               bool
	}{{1, 50, 1, true}, {2, 50, 47, false}, {3, 50, 47, true}} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx := newFixture(t)
			c := AutoregressiveTransformerConfig{
				Depth: test.depth, NumTokens: test.vocabulary, FFMult: inShortMode(2, 1.3), ConditionalRoutedAutoregressiveAttentionConfig: rotaryAutoregressive(),
			}
			c.CausalQueryRouting = test.causal
			m := mustNewSeeded(fx, NewAutoregressiveTransformer, c)
			ids, _ := randomIDs(1, 2*test.n, test.vocabulary)
			y := fx.tensor(F32, 2, test.n, test.vocabulary)
			in := fx.ints(ids, 2, test.n)
			require.NoError(t, m.Forward(t.Context(), y, in, AutoregressiveOptions{}))
			rc, p := refAutoregressive(c.ConditionalRoutedAutoregressiveAttentionConfig), ref.Params(fx.parameters(m.Parameters()))
			fx.checkReference(fx.read(y), ref.AutoregressiveTransformer(ids, 2, test.n, test.depth, rc, p, ""),
				ref.AutoregressiveTransformer32(ids, 2, test.n, test.depth, rc, p, ""))
			fx.checkBackward(m.Parameters(), feed{"x": in}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return m.Forward(ctx, y, in["x"], AutoregressiveOptions{})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.AutoregressiveTransformerBackward(ids, dy, 2, test.n, test.depth, rc, p, ""),
					ref.AutoregressiveTransformerBackward32(ids, dy, 2, test.n, test.depth, rc, p, "")
			})
		})
	}
}
