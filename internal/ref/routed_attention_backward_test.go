package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// routedCases are arguments of all layouts of KV, without scores: two lists of three queries, four heads.
func routedCases() map[string]RoutedAttentionArgs {
	const lists, queries, h, d, keys, rows = 4, 3, 4, 2, 5, 7
	base := RoutedAttentionArgs{Q: coarse(1, lists*queries*h*d, 1), Null: coarse(2, 2*h*d, 1), Lists: lists,
		Queries: queries, Keys: keys, Heads: h, DimHead: d, Routes: 2}
	slots, indexed, prefix := base, base, base
	slots.KV, slots.Valid = coarse(3, lists*keys*h*2*d, 1), randomMask(4, lists*2*keys, 0.7)
	clear(slots.Valid[:2*keys]) // the first list sees the null key only
	indexed.KV, indexed.PerItem, indexed.KVRows = coarse(5, lists/2*rows*h*2*d, 1), 2, rows
	for i := range lists * 2 * keys {
		indexed.Indices = append(indexed.Indices, int32(i*i%9)-1) // some are -1 or 7: empty; some occur twice
	}
	indexed.Valid = randomMask(6, lists*2*keys, 0.8)
	prefix.KV, prefix.PerItem, prefix.KVRows, prefix.Prefix, prefix.Keys = indexed.KV, 2, rows, 4, rows
	prefix.Valid = randomMask(7, lists/2*rows, 0.8)
	return map[string]RoutedAttentionArgs{"slots": slots, "indices": indexed, "prefix": prefix}
}

func TestRoutedAttentionBackward(t *testing.T) {
	for name, a := range routedCases() {
		for _, scored := range []bool{false, true} {
			if scored && name == "prefix" {
				continue // all keys of a prefix have score 1
			}
			t.Run(name, func(t *testing.T) {
				if scored {
					a.ScoreKeys, a.ScoreValues = true, true
					a.KeyScores, a.QueryScores = coarse(8, a.Lists*2*a.Keys, 1), coarse(9, a.Lists*a.Queries, 1)
					for i := range a.QueryScores {
						a.QueryScores[i] += 4 // no query may have score 0
					}
				} else {
					a.QueryValid = randomMask(9, a.Lists*a.Queries, 0.7)
				}
				dy := normal(10, len(a.Q), 1)
				loss := func() float64 { return lossOf(RoutedAttention(a), dy) }
				g, g32 := RoutedAttentionBackward(a, dy), RoutedAttentionBackward32(a, dy)
				checkGradient(t, "q", a.Q, loss, g.Q, g32.Q)
				checkGradient(t, "kv", a.KV, loss, g.KV, g32.KV)
				checkGradient(t, "null", a.Null, loss, g.Null, g32.Null)
				if scored {
					checkGradient(t, "key scores", a.KeyScores, loss, g.KeyScores, g32.KeyScores)
					checkGradient(t, "query scores", a.QueryScores, loss, g.QueryScores, g32.QueryScores)
				} else {
					assert.Nil(t, g.KeyScores)
					assert.Nil(t, g.QueryScores)
				}
			})
		}
	}
}

// TestRoutedAttentionBackwardOneScore checks values that are scored when keys are not, and the reverse.
func TestRoutedAttentionBackwardOneScore(t *testing.T) {
	for _, scoreKeys := range []bool{false, true} {
		a := routedCases()["indices"]
		a.KeyScores, a.ScoreKeys, a.ScoreValues = coarse(8, a.Lists*2*a.Keys, 1), scoreKeys, !scoreKeys
		dy := normal(10, len(a.Q), 1)
		a.KeyScores[0] = 0 // its key or value is multiplied by 0; it is not skipped
		loss := func() float64 { return lossOf(RoutedAttention(a), dy) }
		g, g32 := RoutedAttentionBackward(a, dy), RoutedAttentionBackward32(a, dy)
		checkGradient(t, "key scores", a.KeyScores, loss, g.KeyScores, g32.KeyScores)
		checkGradient(t, "kv", a.KV, loss, g.KV, g32.KV)
	}
}

// TestRoutedAttentionBackwardEmpty checks that empty queries have gradient 0, and that without visible keys the null
// value gets all of dy.
func TestRoutedAttentionBackwardEmpty(t *testing.T) {
	a := RoutedAttentionArgs{
		Q: []float32{1, 2}, KV: []float32{3, 4, 5, 6}, Null: []float32{1, 2}, Valid: []uint8{0, 0}, QueryScores: []float32{0, 2},
		Lists: 1, Queries: 2, Keys: 2, Heads: 1, DimHead: 1, Routes: 1,
	}
	g := RoutedAttentionBackward(a, []float32{7, 5})
	assert.Equal(t, []float64{0, 0}, g.Q)
	assert.Equal(t, []float64{0, 0, 0, 0}, g.KV)
	assert.Equal(t, []float64{0, 5}, g.Null)
	assert.Equal(t, []float64{0, 0}, g.QueryScores)
	assertPanics(t, "ref: RoutedAttentionBackward: len(dy) is 1, want 2", func() { RoutedAttentionBackward(a, []float32{7}) })
}
