package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// signFeedForward returns a feedforward layer with C = 1. The norm maps x to its sign, so one hidden unit gives
// gelu(sign * w1 + b1) * w2 and the other one gelu(1); b2 is added.
func signFeedForward(w1, b1, w2, b2 float32) FeedForwardParams {
	return FeedForwardParams{
		Gamma: []float32{1}, W1: []float32{w1, 0}, B1: []float32{b1, 1}, W2: []float32{w2, 1}, B2: []float32{b2}, Dim: 1, Hidden: 2,
	}
}

func TestFeedForwardHandComputed(t *testing.T) {
	p := signFeedForward(1, 0, 2, 10)
	x := []float32{7, -3, 0}
	const second = gelu1 // the second hidden unit is always gelu(0 + 1)
	want := []float64{2*gelu1 + second + 10, 2*geluMinus1 + second + 10, second + 10}
	assertNear(t, want, FeedForward(x, 3, p), FeedForward32(x, 3, p))

	// Gamma scales the norm, the first bias is added before the GELU: gelu(+-1 * 2 * 1 - 1) is gelu(1), gelu(-3).
	p.Gamma, p.B1 = []float32{2}, []float32{-1, 1}
	minus3 := -3 * 0.5 * (1 + math.Erf(-3/math.Sqrt2))
	want = []float64{2*gelu1 + second + 10, 2*minus3 + second + 10}
	assertNear(t, want, FeedForward(x[:2], 2, p), FeedForward32(x[:2], 2, p))
	assertPanics(t, "ref: Linear: len(x) is 2, want 3", func() { FeedForward(x[:2], 3, p) })
}

func TestConditionalRoutedFeedForwardHandComputed(t *testing.T) {
	const up, down = gelu1 + gelu1, geluMinus1 + gelu1 // light of a positive and a negative token
	x := []float32{2, 1, -1, 3, 8, -9, 7, -8}          // two items of four
	a := ConditionalRoutedFeedForwardArgs{
		Router: RouterArgs{
			RouterConfig: RouterConfig{NumTokens: 2, FetchKRatio: 1, StraightThrough: true, Descent: oneIteration},
			X:            x, Tokens: []float32{1}, B: 2, N: 4, C: 1, R: 1,
		},
		Light: signFeedForward(1, 0, 1, 0), Heavy: signFeedForward(1, 0, 1, 100),
	}
	check := func(name string, want []float64) {
		t.Run(name, func(t *testing.T) {
			assertNear(t, want, ConditionalRoutedFeedForward(a), ConditionalRoutedFeedForward32(a))
		})
	}
	const both, bothDown = up + up + 100, down + down + 100
	check("the two largest", []float64{both, up, down, both, both, down, both, down})

	a.Router.Mask = []uint8{1, 1, 1, 0, 0, 0, 0, 1}
	check("masked, and fewer than two", []float64{both, both, down, up, up, down, up, bothDown})

	// Scores: the heavy branch reads the token itself, and its output is scaled. a = log 2 - log 4.
	a.Router.Mask, a.Router.StraightThrough = nil, false
	a.Router.X = []float32{-1, -2, -3, -4, 8, -9, 7, -8}
	check("soft scores", []float64{down + math.Exp(-1)/2*(down+100), down + math.Exp(-2)/2*(down+100), down, down, both, down, both, down})

	a.Router.NumTokens, a.Router.Mask = 4, []uint8{1, 0, 1, 1, 1, 1, 1, 0}
	check("not routed: all but padding", []float64{bothDown, down, bothDown, bothDown, both, bothDown, both, down})

	a.Router.R = 2
	assert.Panics(t, func() { ConditionalRoutedFeedForward(a) })
}
