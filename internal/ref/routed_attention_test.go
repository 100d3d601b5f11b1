package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRoutedAttentionHandComputed(t *testing.T) {
	// Heads have one element, so the weight of key k for query q is e^(q k). The null key is 0 with weight 1; its value
	// is 10, for head 1 20.
	null := []float32{0, 0, 10, 20}
	one := func(a RoutedAttentionArgs) RoutedAttentionArgs {
		a.Lists, a.Heads, a.DimHead, a.Null = max(a.Lists, 1), max(a.Heads, 1), 1, null
		a.Queries, a.Routes = max(a.Queries, 1), max(a.Routes, 1)
		if a.Heads == 1 {
			a.Null = []float32{0, 10}
		}
		return a
	}
	ln2, ln3 := log(2), log(3)
	near := func(t *testing.T, a RoutedAttentionArgs, want []float64) {
		t.Helper()
		assert.InDeltaSlice(t, want, RoutedAttention(a), 1e-7) // the logarithms are float32
		assert.NoError(t, MaxErr(RoutedAttention32(a), want).Within(1e-6), "float32")
	}
	for _, c := range []struct {
		name string
		a    RoutedAttentionArgs
		want []float64
	}{
		{"two keys", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5, ln3, 7}, Keys: 2}, []float64{(10 + 2*5 + 3*7) / 6.}},
		{"no valid key", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5, ln3, 7}, Valid: []uint8{0, 0}, Keys: 2}, []float64{10}},
		{"one valid key", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5, ln3, 7}, Valid: []uint8{0, 1}, Keys: 2}, []float64{(10 + 3*7) / 4.}},
		{"an empty query and one with score 0", RoutedAttentionArgs{Q: []float32{1, 1, 1}, KV: []float32{ln2, 5}, Keys: 1, Queries: 3,
			QueryValid: []uint8{0, 1, 1}, QueryScores: []float32{1, 0, 1}}, []float64{0, 0, (10 + 2*5) / 3.}},
		{"scores of values, one of them 0", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5, ln3, 7}, Keys: 2,
			KeyScores: []float32{0, 0.5}, ScoreValues: true}, []float64{(10 + 3*3.5) / 6.}},
		{"scores of keys", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5}, Keys: 1, KeyScores: []float32{2}, ScoreKeys: true},
			[]float64{(10 + 4*5) / 5.}},
		{"scores of queries", RoutedAttentionArgs{Q: []float32{1}, KV: []float32{ln2, 5}, Keys: 1, QueryScores: []float32{3}},
			[]float64{(10 + 8*5) / 9.}},
		{"two routes of two lists", RoutedAttentionArgs{Q: []float32{1, 1, 1, 1}, KV: []float32{ln2, 1, ln2, 2, ln3, 3, ln3, 4}, Keys: 1, Lists: 2,
			Heads: 2, Routes: 2}, []float64{(10 + 2*1) / 3., (20 + 3*3) / 4., (10 + 2*2) / 3., (20 + 3*4) / 4.}},
		{"indices of two items, some out of range", RoutedAttentionArgs{Q: []float32{1, 1}, KV: []float32{ln2, 1, ln3, 2, ln2, 3, ln3, 4}, Keys: 3,
			Lists: 2, KVRows: 2, Indices: []int32{1, -1, 2, 0, 1, 2}}, []float64{(10 + 3*2) / 4., (10 + 2*3 + 3*4) / 6.}},
		{"prefixes", RoutedAttentionArgs{Q: []float32{1, 1, 1}, KV: []float32{ln2, 1, ln3, 2}, Lists: 3, PerItem: 3, KVRows: 2, Prefix: 1},
			[]float64{10, (10 + 2*1) / 3., (10 + 2*1 + 3*2) / 6.}},
		{"prefixes longer than the rows, with padding", RoutedAttentionArgs{Q: []float32{1, 1}, KV: []float32{ln2, 1, ln3, 2}, Lists: 2, PerItem: 2,
			KVRows: 2, Prefix: 5, Valid: []uint8{0, 1}}, []float64{10, (10 + 3*2) / 4.}},
	} {
		t.Run(c.name, func(t *testing.T) { near(t, one(c.a), c.want) })
	}
	// The scale is D^-0.5: with D = 4, q . k = 2 ln 2 has weight 2.
	a := RoutedAttentionArgs{Q: []float32{1, 1, 1, 1}, KV: []float32{ln2, ln2, 0, 0, 1, 2, 3, 4}, Null: make([]float32, 8), Lists: 1, Queries: 1, Keys: 1,
		Heads: 1, DimHead: 4, Routes: 1}
	near(t, a, []float64{2 / 3., 4 / 3., 2, 8 / 3.})
	a.Q[0] = 3000 // large logits
	near(t, a, []float64{1, 2, 3, 4})

	a.Valid = make([]uint8, 2)
	assertPanics(t, "ref: RoutedAttention: len(valid) is 2, want 1", func() { RoutedAttention(a) })
	a.KV = a.KV[:7]
	assertPanics(t, "ref: RoutedAttention: len(kv) is 7, want 8", func() { RoutedAttention(a) })
	a.KVRows, a.Indices = 2, []int32{math.MaxInt32}
	assertPanics(t, "ref: RoutedAttention: len(kv) is 7, want 16", func() { RoutedAttention(a) })
}
