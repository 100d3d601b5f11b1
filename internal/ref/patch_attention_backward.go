package ref

// PatchAttentionBackward is the gradient of [PatchAttention]: [attendQueryBackward] of every pixel and head, with the
// keys of its patch. Round as in [RoutedAttentionBackward].
//
//	dy [Height, Width, Heads, DimHead]    dqkv [Height, Width, 3, Heads, DimHead]
func PatchAttentionBackward(a PatchAttentionArgs, dy []float32) []float64 {
	return patchAttentionBackward(convertPatch[float64](a), convert[float64](dy))
}

// PatchAttentionBackward32 is [PatchAttentionBackward] in plain float32.
func PatchAttentionBackward32(a PatchAttentionArgs, dy []float32) []float32 {
	return patchAttentionBackward(a, dy)
}

func patchAttentionBackward[T Float](a PatchAttentionArgsOf[T], dy []T) []T {
	const op = "PatchAttentionBackward"
	pixels := a.Height * a.Width
	checkLen(op, "QKV", len(a.QKV), pixels*3*a.Heads*a.DimHead)
	checkLen(op, "dy", len(dy), pixels*a.Heads*a.DimHead)
	dqkv := make([]T, len(a.QKV))
	parallel(a.Heads, func(lo, hi int) {
		for head := lo; head < hi; head++ {
			for i := range pixels {
				q := queryBackward[T]{q: a.part(a.QKV, i, 0, head), dq: a.part(dqkv, i, 0, head), score: 1, round: a.Round}
				for _, j := range a.visible(i) {
					q.keys, q.dkeys = append(q.keys, a.part(a.QKV, j, 1, head)), append(q.dkeys, a.part(dqkv, j, 1, head))
					q.values, q.dvalues = append(q.values, a.part(a.QKV, j, 2, head)), append(q.dvalues, a.part(dqkv, j, 2, head))
				}
				attendQueryBackward(q, dy[(i*a.Heads+head)*a.DimHead:][:a.DimHead])
			}
		}
	})
	return dqkv
}
