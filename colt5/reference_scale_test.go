package colt5

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Inputs times a power of two. From a length of 1.8e19 on, the sum of squares of a row overflows; below a length of 1e-12
// a norm divides by 1e-12. The attention has no light branch, whose LayerNorm is not for rows of that length.
func TestInputScaleReference(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const b, n = 2, 53
	c := primeAttention()
	c.HasLightAttn = false
	attention := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
	ff := mustNewSeeded(fx, NewFeedForward, FeedForwardConfig{Dim: c.Dim, Mult: 2.5})
	rc, p, ffp := refAttention(c), ref.Params(fx.parameters(attention.Parameters())), fx.parameters(ff.Parameters())
	weights := ref.FeedForwardParams{Gamma: ffp["0.gamma"], W1: ffp["1.weight"], B1: ffp["1.bias"], W2: ffp["3.weight"], B2: ffp["3.bias"], Dim: 7, Hidden: 17}
	tame := normal(3, b*n*c.Dim)
	for _, e := range []int{-60, 0, 60, 62, 100} {
		x := make([]float32, len(tame))
		for i, v := range tame {
			x[i] = float32(math.Ldexp(float64(v), e))
		}
		plainX := tame // plain f32 overflows where x is large
		if e < 0 {
			plainX = x
		}
		in, y := fx.floats(x, b, n, c.Dim), fx.tensor(F32, b, n, c.Dim)
		require.NoError(t, ff.Forward(t.Context(), y, in, CallOptions{}))
		bound := ref.Bound(ref.FeedForward32(plainX, b*n, weights), ref.FeedForward(plainX, b*n, weights), referenceFloor)
		assert.NoError(t, ref.MaxErr(fx.read(y), ref.FeedForward(x, b*n, weights)).Within(bound), "feedforward, 2^%d", e)

		require.NoError(t, attention.Forward(t.Context(), y, in, AttentionOptions{}))
		bound = ref.Bound(ref.ConditionalRoutedAttention32(plainX, nil, b, n, rc, p, "").Y, ref.ConditionalRoutedAttention(plainX, nil, b, n, rc, p, "").Y, referenceFloor)
		assert.NoError(t, ref.MaxErr(fx.read(y), ref.ConditionalRoutedAttention(x, nil, b, n, rc, p, "").Y).Within(bound), "attention, 2^%d", e)
	}
}

// Tokens that point in the direction of the routing token have equal cosines, so that the first ones are selected.
func TestCollinearCosineRouting(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const n = 50
	for _, dim := range []int{1, 2, 4, 8} {
		c := Default[RouterConfig]()
		c.Dim, c.CosineSimRouting, c.LearnedRoutingTokens = dim, true, true
		r := mustNew(fx, NewCoordinateDescentRouter, c)
		x, token := make([]float32, n*dim), make([]float32, dim)
		token[0] = 0.7
		for i := range n {
			x[i*dim] = float32(0.1 + 0.37*float64(i))
		}
		out := RouterResult{Indices: fx.tensor(I32, 1, 1, 3), Logits: fx.tensor(F32, 1, 1, n)}
		require.NoError(t, r.Forward(t.Context(), out, fx.floats(x, 1, n, dim), 3, RouterOptions{RoutingTokens: fx.floats(token, 1, 1, dim)}))
		for _, logit := range fx.read(out.Logits) {
			assert.Equal(t, float32(8), logit)
		}
		assert.Equal(t, []int32{0, 1, 2}, fx.readInts(out.Indices))
	}
}
