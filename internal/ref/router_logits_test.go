package ref

import (
	"math"
	"testing"
)

func TestRouterLogitsHandComputed(t *testing.T) {
	x := []float32{1, 2, 3, -1, 0, 0, 3, 4} // 2 items, 2 tokens of 2
	for _, c := range []struct {
		name string
		a    RouterLogitsArgs
		want []float64
	}{
		{"one route", RouterLogitsArgs{Tokens: []float32{2, 1}, R: 1}, []float64{4, 5, 0, 10}},
		{"two routes", RouterLogitsArgs{Tokens: []float32{2, 1, 0, -1}, R: 2}, []float64{4, 5, -2, 1, 0, 10, 0, -4}},
		{"tokens of each item", RouterLogitsArgs{Tokens: []float32{2, 1, 0, -1}, R: 1, TokensPerItem: true}, []float64{4, 5, 0, -4}},
		{"cosine", RouterLogitsArgs{Tokens: []float32{0, -5}, R: 1, CosineScale: 8},
			[]float64{-16 / math.Sqrt(5), 8 / math.Sqrt(10), 0, -32. / 5}},
		{"cosine with a zero token", RouterLogitsArgs{Tokens: []float32{0, 0}, R: 1, CosineScale: 8}, []float64{0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.X, c.a.B, c.a.N, c.a.C = x, 2, 2, 2
			assertNear(t, c.want, RouterLogits(c.a), RouterLogits32(c.a))
		})
	}
	a := RouterLogitsArgs{X: x, Tokens: make([]float32, 4), B: 2, N: 2, C: 2, R: 1}
	assertPanics(t, "ref: RouterLogits: len(tokens) is 4, want 2", func() { RouterLogits(a) })
	a.N = 1
	assertPanics(t, "ref: RouterLogits: len(x) is 8, want 4", func() { RouterLogits(a) })
}
