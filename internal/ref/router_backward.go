package ref

// RouterGrads are the gradients of [CoordinateDescentRouter].
type RouterGrads = RouterGradsOf[float64]

// RouterGradsOf is [RouterGrads] in one precision.
type RouterGradsOf[T Float] struct {
	X      []T // [B, N, C]
	Tokens []T // shape of the routing tokens
	Logits []T // [B, R, N]; nil if not routed, and with random routing
}

// CoordinateDescentRouterBackward is the gradient of [CoordinateDescentRouter].
//
//	dscores [B, R, K]    dselected [B, R, K, C], of the selected tokens times their scores    either may be nil
//
//	g          = dscores + dselected . x[index]                 dx[index] += dselected * score
//	dsoft      = g at the selected entries, else 0              dlogits    = coordinate descent backward of dsoft
//	dx, dtoken = router logits backward of dlogits
//
// Straight-through has the same gradient: its scores of 1 are differentiated as the soft scores. The selection has no
// gradient, nor have empty slots, masked entries, blocks whose tokens are all selected, and random routing.
func CoordinateDescentRouterBackward(a RouterArgs, dscores, dselected []float32) RouterGrads {
	return routerBackward(convertRouter[float64](a), convert[float64](dscores), convert[float64](dselected))
}

// CoordinateDescentRouterBackward32 is [CoordinateDescentRouterBackward] in plain float32.
func CoordinateDescentRouterBackward32(a RouterArgs, dscores, dselected []float32) RouterGradsOf[float32] {
	return routerBackward(a, dscores, dselected)
}

func routerBackward[T Float](a RouterArgsOf[T], dscores, dselected []T) RouterGradsOf[T] {
	const op = "CoordinateDescentRouterBackward"
	r := coordinateDescentRouter(a)
	checkOptional(op, "dscores", dscores, len(r.Scores))
	checkOptional(op, "dselected", dselected, len(r.Tokens))
	g := RouterGradsOf[T]{X: make([]T, len(a.X)), Tokens: make([]T, len(a.Tokens))}
	total := make([]T, len(r.Scores))
	copy(total, dscores)
	if dselected != nil {
		list := r.list(a.B, a.N, a.R)
		dx, d := gatherBackward(a.X, list.indices, list.scores, list.valid, a.B, a.N, a.C, a.R*list.k, dselected)
		addScaled(g.X, dx, 1)
		addScaled(total, d, 1)
	}
	if g.Logits = routerScoresBackward(a, r, total); g.Logits == nil {
		return g
	}
	dx, dtokens := routerLogitsBackward(a.logitsArgs(), g.Logits)
	addScaled(g.X, dx, 1)
	addScaled(g.Tokens, dtokens, 1)
	return g
}

// routerScoresBackward returns the gradient of the logits [B, R, N] of a routing; nil if it does not depend on them.
func routerScoresBackward[T Float](a RouterArgsOf[T], r RoutingOf[T], dscores []T) []T {
	if !r.Routed || a.RandomLogits != nil {
		return nil
	}
	dlogits := make([]T, a.B*a.R*a.N)
	dsoft := make([]T, len(dlogits))
	for slot, index := range r.Indices {
		if r.Valid[slot] != 0 {
			dsoft[slot/r.K*a.N+int(index)] = dscores[slot]
		}
	}
	size, _, count := a.blocks()
	for row := range a.B * a.R {
		for start := 0; start < a.N; start += size {
			lo, n := row*a.N+start, min(size, a.N-start)
			if n <= count {
				continue
			}
			ds, _ := coorDescentBackward(r.Logits[lo:lo+n], maskSlice(a.Mask, row/a.R*a.N+start, n), dsoft[lo:lo+n], 1, n,
				a.descent(count, n))
			copy(dlogits[lo:], ds)
		}
	}
	return dlogits
}

// tokenList lists rows of a tensor [B, N, C].
type tokenList[T Float] struct {
	b, n, r, k int
	indices    []int32 // [B, R, K] row in the item; nil: row k
	valid      []uint8 // [B, R, K]; nil: all valid
	scores     []T     // [B, R, K]; nil: 1
}

// list returns the selected tokens of a routing. Without routing they are all valid tokens.
func (r RoutingOf[T]) list(b, n, routes int) tokenList[T] {
	l := tokenList[T]{b: b, n: n, r: routes, k: r.K, indices: r.Indices, valid: r.Valid, scores: r.Scores}
	if !r.Routed {
		for range b * routes {
			for i := range n {
				l.indices = append(l.indices, int32(i))
			}
		}
	}
	return l
}
