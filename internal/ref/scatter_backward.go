package ref

// ScatterGrads are the gradients of [Scatter]. Those of absent arguments are nil.
type ScatterGrads = ScatterGradsOf[float64]

// ScatterGradsOf is [ScatterGrads] in one precision. Shapes are those of the arguments.
type ScatterGradsOf[T Float] struct{ Base, Row, Value, Score []T }

// ScatterBackward is the gradient of [Scatter].
//
//	dy [B, N, C]
//
//	dvalue[b, k] = dy[b, indices[b, k]] * score[b, k]    dscore[b, k] = dy[b, indices[b, k]] . value[b, k]
//	dbase[b, i]  = dy[b, i], with Add everywhere, without only where no slot writes row i
//	drow         = sum of dy[b, i] over the rows that no slot writes
//
// Slots that [Scatter] skips have gradient 0.
func ScatterBackward(a ScatterArgs, dy []float32) ScatterGrads {
	return scatterBackward[float64](a, dy)
}

// ScatterBackward32 is [ScatterBackward] in plain float32.
func ScatterBackward32(a ScatterArgs, dy []float32) ScatterGradsOf[float32] {
	return scatterBackward[float32](a, dy)
}

func scatterBackward[T Float](a ScatterArgs, upstream []float32) ScatterGradsOf[T] {
	const op = "ScatterBackward"
	checkOptional(op, "base", a.Base, a.B*a.N*a.C)
	checkOptional(op, "row", a.Row, a.C)
	checkLen(op, "value", len(a.Value), a.B*a.K*a.C)
	checkLen(op, "indices", len(a.Indices), a.B*a.K)
	checkOptional(op, "score", a.Score, a.B*a.K)
	checkOptional(op, "valid", a.Valid, a.B*a.K)
	checkLen(op, "dy", len(upstream), a.B*a.N*a.C)
	score, value, dy := convert[T](a.Score), convert[T](a.Value), convert[T](upstream)
	g := ScatterGradsOf[T]{
		Base: like(convert[T](a.Base)), Row: like(convert[T](a.Row)), Value: make([]T, len(value)), Score: like(score),
	}
	written := make([]bool, a.B*a.N)
	for slot, index := range a.Indices {
		if isSkipped(score, a.Valid, slot) {
			continue
		}
		checkIndex(op, "indices", index, a.N)
		row, factor := slot/a.K*a.N+int(index), T(1)
		written[row] = true
		d := dy[row*a.C : (row+1)*a.C]
		if score != nil {
			factor = score[slot]
			g.Score[slot] = dot(d, value[slot*a.C:(slot+1)*a.C])
		}
		addScaled(g.Value[slot*a.C:(slot+1)*a.C], d, factor)
	}
	for i, v := range dy {
		if a.Row != nil && !written[i/a.C] {
			g.Row[i%a.C] += v
		}
		if a.Base != nil && (a.Add || !written[i/a.C]) {
			g.Base[i] = v
		}
	}
	return g
}
