package colt5

import (
	"context"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Comparisons with the CPU reference, as in reference_test.go, of modules without routers.

func TestLocalMHAReference(t *testing.T) {
	prime := Default[LocalMHAConfig]()
	prime.Dim, prime.WindowSize, prime.DimHead, prime.Heads, prime.UseRotaryPosEmb = 7, 5, 5, 3, false
	rotary := prime
	rotary.Dim, rotary.WindowSize, rotary.DimHead, rotary.Heads, rotary.UseRotaryPosEmb = 20, 5, 12, 2, true
	if testing.Short() {
		prime = smallLocalMHA()
		prime.Causal, prime.PreNorm, prime.UseRotaryPosEmb = false, false, false
		rotary = prime
		rotary.UseRotaryPosEmb = true
	}
	causal := func(c LocalMHAConfig, exact bool) LocalMHAConfig { c.Causal, c.ExactWindowSize = true, exact; return c }
	preNorm := func(c LocalMHAConfig) LocalMHAConfig { c.PreNorm = true; return c }
	for i, test := range []struct {
		name   string
		c      LocalMHAConfig
		b, n   int
		mask   bool
		budget int // bytes of workspace; 0: as many as it takes
	}{
		{"one token", prime, 2, 1, true, 0},
		{"prime", prime, 2, 53, false, 0},
		{"rotary, norm, masked, in groups", preNorm(rotary), 3, 61, true, 20000},
		{"norm, masked", preNorm(prime), 3, 53, true, 0},
		{"causal, exact", causal(prime, true), 2, 53, true, 0},
		{"causal, exact, rotary, in groups", causal(rotary, true), 2, 61, true, 20000},
		{"causal, blocks, rotary, norm", preNorm(causal(rotary, false)), 2, 53, false, 0},
		{"window longer than the sequence", func() LocalMHAConfig { c := rotary; c.WindowSize = 100; return c }(), 2, 31, true, 0},
	} {
		if testing.Short() && i != 5 {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx, c := newFixture(t), test.c
			m := mustNewSeeded(fx, NewLocalMHA, c)
			if test.budget > 0 {
				m.layer.(*localMHA).budget = test.budget
			}
			x, y, o := normal(3, test.b*test.n*c.Dim), fx.tensor(F32, test.b, test.n, c.Dim), LocalMHAOptions{}
			var mask []uint8
			if test.mask {
				mask = randomMaskWithGap(4, test.b, test.n)
				o.Mask = fx.bytes(mask, test.b, test.n)
			}
			in := fx.floats(x, test.b, test.n, c.Dim)
			require.NoError(t, m.Forward(t.Context(), y, in, o))
			rc, p := refConfig[ref.LocalMHAConfig](c), ref.Params(fx.parameters(m.Parameters()))
			fx.checkReference(fx.read(y), ref.LocalMHA(x, mask, test.b, test.n, rc, p, ""), ref.LocalMHA32(x, mask, test.b, test.n, rc, p, ""))
			fx.checkBackward(m.Parameters(), feed{"x": in, "mask": o.Mask}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return m.Forward(ctx, y, in["x"], LocalMHAOptions{Mask: in["mask"]})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.LocalMHABackward(x, mask, dy, test.b, test.n, rc, p, ""), ref.LocalMHABackward32(x, mask, dy, test.b, test.n, rc, p, "")
			})
		})
	}
}

// The light branch of a ConditionalRoutedAttention is a LocalMHA with the same weights, bit for bit.
func TestLocalMHAIsLightBranch(t *testing.T) {
	fx := newFixture(t)
	c := smallAttention()
	c.UseNullQTokens = false
	routed := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
	local := Default[LocalMHAConfig]()
	local.Dim, local.WindowSize, local.DimHead, local.Heads, local.PreNorm, local.UseRotaryPosEmb = c.Dim, c.LightWindowSize/2, c.LightDimHead, c.LightHeads, true, false
	m := mustNew(fx, NewLocalMHA, local)
	weights := fx.parameters(routed.Parameters())
	for _, p := range m.Parameters() {
		require.NoError(t, p.Tensor.Write(t.Context(), weights["light_attn."+p.Name]))
	}
	for _, p := range routed.Parameters() { // without a heavy output the light one is all
		if p.Name == "heavy_attn.to_out.weight" {
			require.NoError(t, p.Tensor.Write(t.Context(), make([]float32, p.Tensor.Len())))
		}
	}
	x, y, want := fx.floats(normal(1, 2*smallN*smallDim), 2, smallN, smallDim), fx.tensor(F32, 2, smallN, smallDim), fx.tensor(F32, 2, smallN, smallDim)
	require.NoError(t, m.Forward(t.Context(), y, x, LocalMHAOptions{}))
	require.NoError(t, routed.Forward(t.Context(), want, x, AttentionOptions{}))
	assert.Equal(t, fx.read(want), fx.read(y))
}

// Modules that process rows take tensors of any rank.
func TestRowModulesReference(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s; TestEveryModule runs the modules")
	}
	for _, shape := range [][]int{{7}, {1, 7}, {53, 7}, {3, 5, 7}, {2, 1, 3, 2, 7}} {
		gputest.CountCase()
		fx, rows := newFixture(t), product(shape)/7
		x := fx.floats(normal(1, 7*rows), shape...)
		norm, ff := mustNewSeeded(fx, NewRMSNorm, RMSNormConfig{7}), mustNewSeeded(fx, NewFeedForward, FeedForwardConfig{Dim: 7, Mult: 2.5})
		gamma := normal(2, 7)
		require.NoError(t, norm.Parameters()[0].Tensor.Write(t.Context(), gamma))
		y := fx.tensor(F32, shape...)
		require.NoError(t, norm.Forward(t.Context(), y, x, CallOptions{}))
		data := fx.read(x)
		fx.checkReference(fx.read(y), ref.Result{Y: ref.RMSNorm(data, gamma, rows, 7)}, ref.ResultOf[float32]{Y: ref.RMSNorm32(data, gamma, rows, 7)})
		require.NoError(t, ff.Forward(t.Context(), y, x, CallOptions{}))
		p := fx.parameters(ff.Parameters())
		weights := ref.FeedForwardParams{Gamma: p["0.gamma"], W1: p["1.weight"], B1: p["1.bias"], W2: p["3.weight"], B2: p["3.bias"], Dim: 7, Hidden: 17}
		fx.checkReference(fx.read(y), ref.Result{Y: ref.FeedForward(data, rows, weights)}, ref.ResultOf[float32]{Y: ref.FeedForward32(data, rows, weights)})
		fx.checkBackward(ff.Parameters(), feed{"x": x}, shape, func(ctx context.Context, y *Tensor, in feed) error {
			return ff.Forward(ctx, y, in["x"], CallOptions{})
		}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
			return ref.FeedForwardBackward(data, dy, rows, 7, p, ""), ref.FeedForwardBackward32(data, dy, rows, 7, p, "")
		})
		fx.checkBackward(norm.Parameters(), feed{"x": x}, shape, func(ctx context.Context, y *Tensor, in feed) error {
			return norm.Forward(ctx, y, in["x"], CallOptions{})
		}, func(dy []float32) (g ref.Gradients, g32 ref.GradientsOf[float32]) {
			dx, dgamma := ref.RMSNormBackward(data, gamma, dy, rows, 7)
			dx32, dgamma32 := ref.RMSNormBackward32(data, gamma, dy, rows, 7)
			g.Inputs, g.Params = map[string][]float64{"x": dx}, map[string][]float64{"gamma": dgamma}
			g32.Inputs, g32.Params = map[string][]float32{"x": dx32}, map[string][]float32{"gamma": dgamma32}
			return g, g32
		})
	}
}

func TestRowModulesArguments(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	norm := mustNew(fx, NewRMSNorm, RMSNormConfig{7})
	x := fx.tensor(F32, 2, 3, 7)
	call := func(y, x *Tensor) error { return norm.Forward(t.Context(), y, x, CallOptions{}) }
	for want, err := range map[string]error{
		"x is nil, want f32[* * 7]":       call(x, nil),
		"x is f32[2 3], want f32[2 7]":    call(x, fx.tensor(F32, 2, 3)),
		"x is i32[2 7], want f32[2 7]":    call(x, fx.tensor(I32, 2, 7)),
		"y is nil, want f32[2 3 7]":       call(nil, x),
		"y is f32[6 7], want f32[2 3 7]":  call(fx.tensor(F32, 6, 7), x),
		"y is u8[2 3 7], want f32[2 3 7]": call(fx.tensor(U8, 2, 3, 7), x),
	} {
		assert.ErrorContains(t, err, "colt5: RMSNorm.Forward: "+want)
	}
}
