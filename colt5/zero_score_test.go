package colt5

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A selected query whose soft score underflows to 0 gets heavy * 0 = 0, not the null query token: only rows
// that are not selected get that one. With the default options (20 iterations, eps 0.03) scores underflow for logits
// below about -15, which occur with unit normal routing tokens and large C.
func TestSelectedWithScoreZero(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	t.Parallel()
	fx := newFixture(t)
	const n, dim = 6, 2
	// The soft scores of the three selected tokens are 1, 0 and 0: exp(-100 / 0.03) underflows in f32.
	x := []float32{1, 1, -100, 1, -200, 1, -300, 1, -400, 1, -500, 1}
	run := func(t *testing.T, m anyModule, forward func(y, x *Tensor) error, name string) {
		fx := fx.sub(t)
		fx.setParameter(m, name+"q_router.routing_token", []float32{1, 0})
		for _, s := range m.Parameters() {
			if s.Name == name+"null_q_token" {
				fx.setParameter(m, s.Name, []float32{7, 7})
			}
		}
		y := fx.tensor(F32, 1, n, dim)
		require.NoError(t, forward(y, fx.floats(x, 1, n, dim)))
		got := fx.read(y)
		assert.Equal(t, []float32{0, 0}, got[4:6], "row 2 is selected with score 0")
		assert.Equal(t, []float32{7, 7}, got[6:8], "row 3 is not selected")
	}
	t.Run("attention", func(t *testing.T) {
		c := Default[ConditionalRoutedAttentionConfig]()
		c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.HasLightAttn, c.RouterStraightThrough = dim, 3, 3, false, false
		c.HeavyDimHead, c.HeavyHeads = 4, 1
		m := mustNewSeeded(fx.sub(t), NewConditionalRoutedAttention, c)
		run(t, m, func(y, x *Tensor) error { return m.Forward(t.Context(), y, x, AttentionOptions{}) }, "")
	})
	t.Run("cross", func(t *testing.T) {
		c := Default[ConditionalRoutedCrossAttentionConfig]()
		c.Dim, c.NumTokensQ, c.NumTokensKV, c.RouterStraightThrough = dim, 3, 3, false
		c.DimHead, c.Heads = 4, 1
		m := mustNewSeeded(fx.sub(t), NewConditionalRoutedCrossAttention, c)
		run(t, m, func(y, x *Tensor) error { return m.Forward(t.Context(), y, x, x, CrossAttentionOptions{}) }, "")
	})
}
