package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// oneIteration gives soft scores that are easy to compute by hand: a = log k - log(valid entries), score = exp(min(s +
// a, 0)).
var oneIteration = CoorDescentConfig{Iters: 1, Eps: 1, EpsDecay: 1}

func TestRouterDefaults(t *testing.T) {
	assert.Equal(t, RouterConfig{
		NumTokens: 7, FetchKRatio: 1.125, StraightThrough: true,
		Descent: CoorDescentConfig{Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7},
	}, DefaultRouterConfig(7))
}

// TestRouterHandComputed has C = 1 and the routing token 1, so the logits equal the tokens.
func TestRouterHandComputed(t *testing.T) {
	x := []float32{0, 3, -1, 2, 4, 1}
	exp := math.Exp
	for _, c := range []struct {
		name                   string
		numTokens, block       int
		ratio                  float64
		mask                   []uint8
		indices                []int32
		valid                  []uint8
		hard, soft, softScores []float64 // scores of the slots with and without straight-through; soft scores of all tokens
	}{
		{ // a = log 1.5 - log 6 = -log 4
			"whole row", 1, 0, 1.5, nil, []int32{4}, []uint8{1}, []float64{1}, []float64{1},
			[]float64{1. / 4, 1, exp(-1) / 4, 1, 1, exp(1) / 4},
		},
		{ // k is 6, not 10: a = 0
			"k is at most n", 5, 0, 2, nil, []int32{4, 1, 3, 5, 0}, []uint8{1, 1, 1, 1, 1}, []float64{1, 1, 1, 1, 1},
			[]float64{1, 1, 1, 1, 1}, []float64{1, 1, exp(-1), 1, 1, 1},
		},
		{ // three valid tokens: a = log 1 - log 3
			"masked", 2, 0, 0.5, []uint8{1, 0, 1, 0, 0, 1}, []int32{5, 0}, []uint8{1, 1}, []float64{1, 1},
			[]float64{exp(1) / 3, 1. / 3}, []float64{1. / 3, 0, exp(-1) / 3, 0, 0, exp(1) / 3},
		},
		{ // one valid token: a = log 1 - log 1
			"fewer valid than slots", 2, 0, 0.5, []uint8{0, 0, 1, 0, 0, 0}, []int32{2, 0}, []uint8{1, 0}, []float64{1, 0},
			[]float64{exp(-1), 0}, []float64{0, 0, exp(-1), 0, 0, 0},
		},
		{
			"all masked", 2, 0, 0.5, make([]uint8, 6), []int32{0, 0}, []uint8{0, 0}, []float64{0, 0}, []float64{0, 0}, make([]float64, 6),
		},
		{ // one token of each block: a = log 0.75 - log 3 = -log 4
			"two blocks", 2, 3, 0.75, nil, []int32{1, 4}, []uint8{1, 1}, []float64{1, 1}, []float64{1, 1},
			[]float64{1. / 4, 1, exp(-1) / 4, 1, 1, exp(1) / 4},
		},
		{ // ceil(3 / 2) = 2 tokens of the block of 4 and both of the short block, which needs no descent: a = log 1 - log 4
			"short block", 3, 4, 0.5, nil, []int32{1, 3, 4, 5}, []uint8{1, 1, 1, 1}, []float64{1, 1, 1, 1},
			[]float64{1, 1, 1, 1}, []float64{1. / 4, 1, exp(-1) / 4, 1, 1, 1},
		},
		{ // ceil(5 / 3) = 2 tokens of each block of 2: all are selected
			"blocks as long as their count", 5, 2, 0.5, []uint8{1, 1, 1, 1, 0, 1}, []int32{1, 0, 3, 2, 5, 0}, []uint8{1, 1, 1, 1, 1, 0},
			[]float64{1, 1, 1, 1, 1, 0}, []float64{1, 1, 1, 1, 1, 0}, []float64{1, 1, 1, 1, 0, 1},
		},
		{ // ceil(5 / 2) = 3 slots, but the last block has two tokens, one of them masked
			"more slots than tokens in the last block", 5, 4, 1. / 3, []uint8{1, 1, 1, 1, 0, 1}, []int32{1, 3, 0, 5, 0, 0}, []uint8{1, 1, 1, 1, 0, 0},
			[]float64{1, 1, 1, 1, 0, 0}, []float64{1, 1, 1. / 4, 1, 0, 0}, []float64{1. / 4, 1, exp(-1) / 4, 1, 0, 1},
		},
	} {
		for _, hard := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				a := RouterArgs{
					RouterConfig: RouterConfig{NumTokens: c.numTokens, BlockSize: c.block, FetchKRatio: c.ratio, StraightThrough: hard, Descent: oneIteration},
					X:            x, Mask: c.mask, Tokens: []float32{1}, B: 1, N: 6, C: 1, R: 1,
				}
				got, got32 := CoordinateDescentRouter(a), CoordinateDescentRouter32(a)
				scores := c.soft
				if hard {
					scores = c.hard
				}
				tokens := make([]float64, len(scores))
				for i, s := range scores {
					tokens[i] = s * float64(x[c.indices[i]])
				}
				assert.True(t, got.Routed)
				assert.Equal(t, len(scores), got.K)
				assert.Equal(t, c.indices, got.Indices)
				assert.Equal(t, c.valid, got.Valid)
				assert.Equal(t, c.indices, got32.Indices)
				assert.Equal(t, c.valid, got32.Valid)
				assertNear(t, scores, got.Scores, got32.Scores)
				assertNear(t, tokens, got.Tokens, got32.Tokens)
				assertNear(t, c.softScores, got.SoftScores, got32.SoftScores)
				assertNear(t, []float64{0, 3, -1, 2, 4, 1}, got.Logits, got32.Logits)
			})
		}
	}
}

// TestRouterRoutesAndItems checks two routes of two items, with shared routing tokens and with routing tokens per item.
func TestRouterRoutesAndItems(t *testing.T) {
	a := RouterArgs{
		RouterConfig: RouterConfig{NumTokens: 1, FetchKRatio: 1, StraightThrough: true, Descent: oneIteration},
		X:            []float32{1, 5, 2, 3, 4, 1 /* item 1 */, 10, 20, 30, 5, 0, 70},
		Tokens:       []float32{1, 0, 0, 1}, B: 2, N: 3, C: 2, R: 2,
	}
	got := CoordinateDescentRouter(a)
	assert.Equal(t, []int32{2, 0, 1, 2}, got.Indices) // largest first component, largest second one, of each item
	assert.Equal(t, []float64{4, 1, 1, 5, 30, 5, 0, 70}, got.Tokens)
	assert.Equal(t, []float64{1, 2, 4, 5, 3, 1, 10, 30, 0, 20, 5, 70}, got.Logits)

	a.Tokens, a.TokensPerItem = []float32{1, 0, 0, 1, -1, 0, 0, -1}, true
	assert.Equal(t, []int32{2, 0, 2, 1}, CoordinateDescentRouter(a).Indices)

	// All routes of an item share its mask.
	a.Mask = []uint8{1, 1, 0, 1, 1, 0}
	assert.Equal(t, []int32{1, 0, 0, 1}, CoordinateDescentRouter(a).Indices)
}

func TestRouterSelectsAll(t *testing.T) {
	for _, n := range []int{3, 4} { // NumTokens = N and NumTokens > N
		a := RouterArgs{
			RouterConfig: RouterConfig{NumTokens: n, BlockSize: 2, FetchKRatio: 1, Descent: oneIteration},
			X:            []float32{1, 2, 3, 4, 5, 6}, Mask: []uint8{1, 0, 1, 0, 1, 1}, Tokens: []float32{1, 1}, B: 2, N: 3, C: 1, R: 2,
		}
		got, got32 := CoordinateDescentRouter(a), CoordinateDescentRouter32(a)
		assert.False(t, got.Routed)
		assert.Equal(t, 3, got.K)
		assert.Nil(t, got.Indices)
		assert.Nil(t, got.SoftScores)
		assert.Equal(t, []uint8{1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1}, got.Valid)
		assertNear(t, []float64{1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1}, got.Scores, got32.Scores)
		assertNear(t, []float64{1, 0, 3, 1, 0, 3, 0, 5, 6, 0, 5, 6}, got.Tokens, got32.Tokens)
	}
}

func TestRandomRouting(t *testing.T) {
	a := RouterArgs{
		RouterConfig: RouterConfig{NumTokens: 2, FetchKRatio: 1, Descent: oneIteration}, // not straight-through, but the scores are 1
		X:            []float32{1, 2, 3, 4}, Mask: []uint8{1, 1, 1, 0}, B: 1, N: 4, C: 1, R: 1,
		RandomLogits: []float32{0.5, 0.1, 0.7, 0.9},
	}
	got := CoordinateDescentRouter(a)
	assert.Equal(t, []int32{2, 0}, got.Indices)
	assert.Equal(t, []float64{1, 1}, got.Scores)
	assert.Equal(t, []float64{3, 1}, got.Tokens)
	assert.Nil(t, got.SoftScores)
	a.Mask = nil
	assert.Equal(t, []int32{3, 2}, CoordinateDescentRouter(a).Indices)
}

func TestRouterPanics(t *testing.T) {
	a := RouterArgs{RouterConfig: DefaultRouterConfig(1), X: make([]float32, 4), Tokens: make([]float32, 2), B: 1, N: 2, C: 2, R: 1}
	for _, c := range []struct {
		change func(a *RouterArgs)
		want   string
	}{
		{func(a *RouterArgs) { a.N = 3 }, "CoordinateDescentRouter: len(x) is 4, want 6"},
		{func(a *RouterArgs) { a.Mask = []uint8{1} }, "CoordinateDescentRouter: len(mask) is 1, want 2"},
		{func(a *RouterArgs) { a.RandomLogits = a.X }, "CoordinateDescentRouter: len(random logits) is 4, want 2"},
		{func(a *RouterArgs) { a.R = 2 }, "RouterLogits: len(tokens) is 2, want 4"},
	} {
		bad := a
		c.change(&bad)
		assertPanics(t, "ref: "+c.want, func() { CoordinateDescentRouter(bad) })
	}
	for _, change := range []func(a *RouterArgs){
		func(a *RouterArgs) { a.NumTokens = 0 }, func(a *RouterArgs) { a.BlockSize = -1 }, func(a *RouterArgs) { a.FetchKRatio = 0 },
	} {
		bad := a
		change(&bad)
		assert.Panics(t, func() { CoordinateDescentRouter(bad) })
	}
}
