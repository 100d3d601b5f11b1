package ref

// WindowAttentionBackward is the gradient of [WindowAttention]: [attendQueryBackward] of every query and head, with the
// keys that the query sees.
//
//	dy [B, N, H, D]    dqkv [B, N, 3, H, D]
//
// A query that sees no token has gradient 0, as have masked keys and values. Round as in [RoutedAttentionBackward].
func WindowAttentionBackward(a WindowAttentionArgs, dy []float32) []float64 {
	return windowAttentionBackward(convertWindow[float64](a), convert[float64](dy))
}

// WindowAttentionBackward32 is [WindowAttentionBackward] in plain float32.
func WindowAttentionBackward32(a WindowAttentionArgs, dy []float32) []float32 {
	return windowAttentionBackward(a, dy)
}

func windowAttentionBackward[T Float](a WindowAttentionArgsOf[T], dy []T) []T {
	a.check()
	checkLen("WindowAttentionBackward", "dy", len(dy), a.B*a.N*a.Heads*a.DimHead)
	dqkv := make([]T, len(a.QKV))
	parallel(a.B*a.Heads, func(lo, hi int) {
		for unit := lo; unit < hi; unit++ {
			item, head := unit/a.Heads, unit%a.Heads
			for token := item * a.N; token < (item+1)*a.N; token++ {
				visible := a.visible(token)
				if len(visible) == 0 {
					continue
				}
				q := queryBackward[T]{q: a.part(a.QKV, token, 0, head), dq: a.part(dqkv, token, 0, head), score: 1, round: a.Round}
				for _, j := range visible {
					q.keys, q.dkeys = append(q.keys, a.part(a.QKV, j, 1, head)), append(q.dkeys, a.part(dqkv, j, 1, head))
					q.values, q.dvalues = append(q.values, a.part(a.QKV, j, 2, head)), append(q.dvalues, a.part(dqkv, j, 2, head))
				}
				attendQueryBackward(q, dy[(token*a.Heads+head)*a.DimHead:][:a.DimHead])
			}
		}
	})
	return dqkv
}
