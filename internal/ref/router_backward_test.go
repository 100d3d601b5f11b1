package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestRouterBackward compares the gradients of scores and selected tokens with finite differences of soft scores.
func TestRouterBackward(t *testing.T) {
	const b, n, c, r = 2, 13, 4, 2
	a := RouterArgs{RouterConfig: softRouter, X: coarse(1, b*n*c, 1), Tokens: coarse(2, r*c, 1), B: b, N: n, C: c, R: r}
	a.NumTokens = 5
	for name, change := range map[string]func(a *RouterArgs){
		"plain":        func(*RouterArgs) {},
		"mask":         func(a *RouterArgs) { a.Mask = append(make([]uint8, n), randomMask(3, n, 0.8)...) },
		"cosine":       func(a *RouterArgs) { a.CosineScale = 8 },
		"short block":  func(a *RouterArgs) { a.BlockSize = 5 },                 // 5, 5 and 3 tokens for 2 slots each
		"whole block":  func(a *RouterArgs) { a.BlockSize, a.NumTokens = 6, 8 }, // the last block has 1 token for 3 slots
		"not routed":   func(a *RouterArgs) { a.NumTokens, a.Mask = 13, randomMask(4, b*n, 0.7) },
		"random":       func(a *RouterArgs) { a.RandomLogits = normal(5, b*r*n, 1) },
		"own tokens":   func(a *RouterArgs) { a.Tokens, a.TokensPerItem = coarse(6, b*r*c, 1), true },
		"few unmasked": func(a *RouterArgs) { a.Mask = make([]uint8, b*n); a.Mask[3], a.Mask[n], a.Mask[n+7] = 1, 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			a := a
			change(&a)
			result := CoordinateDescentRouter(a)
			dscores, dselected := normal(7, len(result.Scores), 1), normal(8, len(result.Tokens), 1)
			loss := func() float64 {
				got := CoordinateDescentRouter(a)
				return lossOf(got.Scores, dscores) + lossOf(got.Tokens, dselected)
			}
			g, g32 := CoordinateDescentRouterBackward(a, dscores, dselected), CoordinateDescentRouterBackward32(a, dscores, dselected)
			checkGradient(t, "x", a.X, loss, g.X, g32.X)
			checkGradient(t, "tokens", a.Tokens, loss, g.Tokens, g32.Tokens)
			assert.Equal(t, result.Routed && a.RandomLogits == nil, g.Logits != nil)

			// Straight-through: the same gradient of the logits, if the tokens are not multiplied by the scores.
			soft := CoordinateDescentRouterBackward(a, dscores, nil)
			a.StraightThrough = true
			assert.Equal(t, soft, CoordinateDescentRouterBackward(a, dscores, nil))
		})
	}
	assertPanics(t, "ref: CoordinateDescentRouterBackward: len(dscores) is 1, want 20",
		func() { CoordinateDescentRouterBackward(a, make([]float32, 1), nil) })
}
