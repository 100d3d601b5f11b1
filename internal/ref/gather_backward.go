package ref

// GatherBackward is the gradient of [Gather].
//
//	dy [B, K, C]    dx [B, N, C]    dscore [B, K], nil without Score
//
//	dx[b, i] = sum of dy[b, k] * score[b, k] over the slots k with indices[b, k] = i, in the order of slots
//	dscore[b, k] = dy[b, k] . x[b, indices[b, k]]
//
// Slots that [Gather] skips have gradient 0.
func GatherBackward(a GatherArgs, dy []float32) (dx, dscore []float64) {
	return gatherBackward(convert[float64](a.X), a.Indices, convert[float64](a.Score), a.Valid, a.B, a.N, a.C, a.K,
		convert[float64](dy))
}

// GatherBackward32 is [GatherBackward] in plain float32.
func GatherBackward32(a GatherArgs, dy []float32) (dx, dscore []float32) {
	return gatherBackward(a.X, a.Indices, a.Score, a.Valid, a.B, a.N, a.C, a.K, dy)
}

func gatherBackward[T Float](x []T, indices []int32, score []T, valid []uint8, b, n, c, k int, dy []T) (dx, dscore []T) {
	const op = "GatherBackward"
	checkLen(op, "x", len(x), b*n*c)
	checkLen(op, "indices", len(indices), b*k)
	checkOptional(op, "score", score, b*k)
	checkOptional(op, "valid", valid, b*k)
	checkLen(op, "dy", len(dy), b*k*c)
	dx, dscore = make([]T, len(x)), like(score)
	for slot, index := range indices {
		if isSkipped(score, valid, slot) {
			continue
		}
		checkIndex(op, "indices", index, n)
		at, upstream, factor := (slot/k*n+int(index))*c, dy[slot*c:(slot+1)*c], T(1)
		if score != nil {
			factor = score[slot]
			dscore[slot] = dot(upstream, x[at:at+c])
		}
		addScaled(dx[at:at+c], upstream, factor)
	}
	return dx, dscore
}
