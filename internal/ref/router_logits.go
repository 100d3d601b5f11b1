package ref

// RouterLogitsArgs are the arguments of [RouterLogits].
type RouterLogitsArgs = RouterLogitsArgsOf[float32]

// RouterLogitsArgsOf is [RouterLogitsArgs] with tensors of one precision.
type RouterLogitsArgsOf[T Float] struct {
	X      []T // [B, N, C]
	Tokens []T // [R, C], or [B, R, C] if TokensPerItem
	B, N   int
	C, R   int
	// TokensPerItem: every batch item has routing tokens of its own.
	TokensPerItem bool
	// CosineScale multiplies the cosine similarity (8 in the PyTorch implementation). 0: dot product instead of cosine
	// similarity.
	CosineScale float64
}

// RouterLogits is the similarity of every token with every routing token.
//
//	x [B, N, C]    token [R, C] or [B, R, C]    logits [B, R, N]
//	logits[b, r, i] = x[b, i] . token[r]
//	cosine:           CosineScale * (x[b, i] / max(||x[b, i]||, 1e-12)) . (token[r] / max(||token[r]||, 1e-12))
func RouterLogits(a RouterLogitsArgs) []float64 {
	return routerLogits(RouterLogitsArgsOf[float64]{
		X: convert[float64](a.X), Tokens: convert[float64](a.Tokens),
		TokensPerItem: a.TokensPerItem, CosineScale: a.CosineScale, B: a.B, N: a.N, C: a.C, R: a.R,
	})
}

// RouterLogits32 is [RouterLogits] in plain float32.
func RouterLogits32(a RouterLogitsArgs) []float32 { return routerLogits(a) }

func routerLogits[T Float](a RouterLogitsArgsOf[T]) []T {
	tokenSets := 1
	if a.TokensPerItem {
		tokenSets = a.B
	}
	checkLen("RouterLogits", "x", len(a.X), a.B*a.N*a.C)
	checkLen("RouterLogits", "tokens", len(a.Tokens), tokenSets*a.R*a.C)
	tokens := unitRows(a.Tokens, a.C, a.CosineScale)
	y := make([]T, a.B*a.R*a.N)
	parallel(a.B*a.N, func(lo, hi int) {
		for row := lo; row < hi; row++ {
			b, i := row/a.N, row%a.N
			set := tokens[(b%tokenSets)*a.R*a.C:]
			v := unitRows(a.X[row*a.C:(row+1)*a.C], a.C, a.CosineScale)
			for r := range a.R {
				logit := dot(v, set[r*a.C:(r+1)*a.C])
				if a.CosineScale != 0 {
					logit *= T(a.CosineScale)
				}
				y[(b*a.R+r)*a.N+i] = logit
			}
		}
	})
	return y
}

// unitRows returns the rows of x scaled to norm 1. It returns x if cosineScale is 0.
func unitRows[T Float](x []T, c int, cosineScale float64) []T {
	if cosineScale == 0 {
		return x
	}
	y := make([]T, len(x))
	for lo := 0; lo < len(x); lo += c {
		row := x[lo : lo+c]
		length := max(norm(row), normFloor)
		for i, v := range row {
			y[lo+i] = v / length
		}
	}
	return y
}
