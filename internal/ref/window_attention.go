package ref

// WindowAttentionArgs are the arguments of [WindowAttention].
type WindowAttentionArgs = WindowAttentionArgsOf[float32]

// WindowAttentionArgsOf is [WindowAttentionArgs] with tensors of one precision.
type WindowAttentionArgsOf[T Float] struct {
	QKV                  []T     // [B, N, 3, H, D]
	Mask                 []uint8 // [B, N]; nil: all valid
	B, N, Heads, DimHead int
	Window               int
	Causal               bool
	Exact                bool // with Causal
	Round                Rounding
}

// WindowAttention is local attention. Blocks have Window tokens. A token attends to the valid tokens of its own and
// both neighbouring blocks that are at most Window away; with Causal, to those of its own and the previous block up to
// itself; with Exact, to itself and the Window tokens before it. Without any such token its output is 0.
//
//	qkv [B, N, 3, H, D]    mask [B, N] optional    y [B, N, H, D]
func WindowAttention(a WindowAttentionArgs) []float64 {
	return windowAttention(convertWindow[float64](a))
}

// WindowAttention32 is [WindowAttention] in plain float32.
func WindowAttention32(a WindowAttentionArgs) []float32 { return windowAttention(a) }

// convertWindow returns the arguments in precision T.
func convertWindow[T Float](a WindowAttentionArgs) WindowAttentionArgsOf[T] {
	return WindowAttentionArgsOf[T]{
		QKV: convert[T](a.QKV), Mask: a.Mask, B: a.B, N: a.N, Heads: a.Heads, DimHead: a.DimHead,
		Window: a.Window, Causal: a.Causal, Exact: a.Exact, Round: a.Round,
	}
}

func windowAttention[T Float](a WindowAttentionArgsOf[T]) []T {
	a.check()
	h, d := a.Heads, a.DimHead
	y := make([]T, a.B*a.N*h*d)
	parallel(a.B*a.N, func(lo, hi int) {
		for token := lo; token < hi; token++ {
			visible := a.visible(token)
			for head := range h {
				var keys, values [][]T
				for _, j := range visible {
					keys, values = append(keys, a.part(a.QKV, j, 1, head)), append(values, a.part(a.QKV, j, 2, head))
				}
				if len(keys) > 0 {
					attendQuery(y[(token*h+head)*d:][:d], a.part(a.QKV, token, 0, head), keys, values, nil, 1, false, false, a.Round)
				}
			}
		}
	})
	return y
}

func (a WindowAttentionArgsOf[T]) check() {
	const op = "WindowAttention"
	checkLen(op, "qkv", len(a.QKV), a.B*a.N*3*a.Heads*a.DimHead)
	checkOptional(op, "mask", a.Mask, a.B*a.N)
}

// part returns a token's query (part 0), key (1) or value (2) of a head in a tensor with the layout of QKV.
func (a WindowAttentionArgsOf[T]) part(qkv []T, token, part, head int) []T {
	return qkv[((token*3+part)*a.Heads+head)*a.DimHead:][:a.DimHead]
}

// visible returns the tokens, counted over the batch, that a token attends to.
func (a WindowAttentionArgsOf[T]) visible(token int) []int {
	w, item, i := a.Window, token/a.N*a.N, token%a.N
	var tokens []int
	for j := max(0, (i/w-1)*w); j < min(a.N, (i/w+2)*w); j++ {
		near := j <= i || !a.Causal
		if !a.Causal {
			near = i-j <= w && j-i <= w
		}
		if a.Exact {
			near = near && i-j <= w
		}
		if near && isValid(a.Mask, item+j) {
			tokens = append(tokens, item+j)
		}
	}
	return tokens
}
