package ref

// RouterLogitsBackward is the gradient of [RouterLogits].
//
//	dlogits [B, R, N]    dx [B, N, C]    dtokens: the shape of Tokens
//
//	dot product: dx[b, i] = sum_r dlogits[b, r, i] * token[r]    dtokens[r] = sum_{b, i} dlogits[b, r, i] * x[b, i]
//	cosine: the same sums g with unit vectors u in place of x and token, times CosineScale, then
//	        dv = (g - u (u . g)) / ||v|| for each vector v; g / 1e-12 where ||v|| is at most 1e-12
func RouterLogitsBackward(a RouterLogitsArgs, dlogits []float32) (dx, dtokens []float64) {
	return routerLogitsBackward(RouterLogitsArgsOf[float64]{
		X: convert[float64](a.X), Tokens: convert[float64](a.Tokens),
		TokensPerItem: a.TokensPerItem, CosineScale: a.CosineScale, B: a.B, N: a.N, C: a.C, R: a.R,
	}, convert[float64](dlogits))
}

// RouterLogitsBackward32 is [RouterLogitsBackward] in plain float32.
func RouterLogitsBackward32(a RouterLogitsArgs, dlogits []float32) (dx, dtokens []float32) {
	return routerLogitsBackward(a, dlogits)
}

func routerLogitsBackward[T Float](a RouterLogitsArgsOf[T], dlogits []T) (dx, dtokens []T) {
	const op = "RouterLogitsBackward"
	tokenSets := 1
	if a.TokensPerItem {
		tokenSets = a.B
	}
	checkLen(op, "x", len(a.X), a.B*a.N*a.C)
	checkLen(op, "tokens", len(a.Tokens), tokenSets*a.R*a.C)
	checkLen(op, "dlogits", len(dlogits), a.B*a.R*a.N)
	x, tokens := unitRows(a.X, a.C, a.CosineScale), unitRows(a.Tokens, a.C, a.CosineScale)
	dx, dtokens = make([]T, len(x)), make([]T, len(tokens))
	scale := T(1)
	if a.CosineScale != 0 {
		scale = T(a.CosineScale)
	}
	for i, d := range dlogits {
		b, r, token := i/(a.R*a.N), i/a.N%a.R, i%a.N
		at, set := (b*a.N+token)*a.C, (b%tokenSets*a.R+r)*a.C
		addScaled(dx[at:at+a.C], tokens[set:set+a.C], d*scale)
		addScaled(dtokens[set:set+a.C], x[at:at+a.C], d*scale)
	}
	if a.CosineScale != 0 {
		unitRowsBackward(dx, a.X, a.C)
		unitRowsBackward(dtokens, a.Tokens, a.C)
	}
	return dx, dtokens
}

// unitRowsBackward converts gradients of the unit vectors of the rows of x into gradients of x, in place.
func unitRowsBackward[T Float](g, x []T, c int) {
	for lo := 0; lo < len(x); lo += c {
		row, d := x[lo:lo+c], g[lo:lo+c]
		length := norm(row)
		var along T
		if length > normFloor {
			along = dot(row, d) / length
		}
		for i, v := range row {
			d[i] = (d[i] - v/max(length, normFloor)*along) / max(length, normFloor)
		}
	}
}
