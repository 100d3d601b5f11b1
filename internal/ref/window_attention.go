package ref

// WindowAttentionArgs are the arguments of [WindowAttention].
type WindowAttentionArgs struct {
	QKV                  []float32 // [B, N, 3, H, D]
	Mask                 []uint8   // [B, N]; nil: all valid
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
func WindowAttention(a WindowAttentionArgs) []float64 { return windowAttention[float64](a) }

// WindowAttention32 is [WindowAttention] in plain float32.
func WindowAttention32(a WindowAttentionArgs) []float32 { return windowAttention[float32](a) }

func windowAttention[T Float](a WindowAttentionArgs) []T {
	const op = "WindowAttention"
	h, d, w := a.Heads, a.DimHead, a.Window
	checkLen(op, "qkv", len(a.QKV), a.B*a.N*3*h*d)
	checkOptional(op, "mask", a.Mask, a.B*a.N)
	qkv, y := convert[T](a.QKV), make([]T, a.B*a.N*h*d)
	row := func(token, part, head int) []T { return qkv[((token*3+part)*h+head)*d:][:d] }
	parallel(a.B*a.N, func(lo, hi int) {
		for token := lo; token < hi; token++ {
			item, i := token/a.N*a.N, token%a.N
			for head := range h {
				var keys, values [][]T
				for j := max(0, (i/w-1)*w); j < min(a.N, (i/w+2)*w); j++ {
					near := j <= i || !a.Causal
					if !a.Causal {
						near = i-j <= w && j-i <= w
					}
					if a.Exact {
						near = near && i-j <= w
					}
					if near && isValid(a.Mask, item+j) {
						keys, values = append(keys, row(item+j, 1, head)), append(values, row(item+j, 2, head))
					}
				}
				if len(keys) > 0 {
					attendQuery(y[(token*h+head)*d:][:d], row(token, 0, head), keys, values, nil, 1, false, false, a.Round)
				}
			}
		}
	})
	return y
}
