package ref

// LocalMHAConfig is the config of [LocalMHA], with the argument names of the PyTorch implementation.
type LocalMHAConfig struct {
	Dim             int  `json:"dim"`
	WindowSize      int  `json:"window_size"`
	DimHead         int  `json:"dim_head"`
	Heads           int  `json:"heads"`
	Causal          bool `json:"causal"`
	PreNorm         bool `json:"prenorm"`
	ExactWindowSize bool `json:"exact_windowsize"` // only with Causal may it be false
	UseRotaryPosEmb bool `json:"use_rotary_pos_emb"`
}

// LocalMHA is an optional LayerNorm, attention to the neighbourhood, and a projection.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//	token i sees the valid tokens j with |i - j| <= w, and with Causal j <= i
//	with Causal, without ExactWindowSize: j <= i of its own block of w tokens and of the previous one
//
// With UseRotaryPosEmb query i is rotated as position i, or without Causal as position i + w, and key j as position j.
func LocalMHA(x []float32, mask []uint8, b, n int, c LocalMHAConfig, p Params, prefix string) Result {
	return localMHA(convert[float64](x), mask, b, n, c, p, prefix)
}

// LocalMHA32 is [LocalMHA] in plain float32.
func LocalMHA32(x []float32, mask []uint8, b, n int, c LocalMHAConfig, p Params, prefix string) ResultOf[float32] {
	return localMHA(x, mask, b, n, c, p, prefix)
}

func localMHA[T Float](x []T, mask []uint8, b, n int, c LocalMHAConfig, p Params, prefix string) ResultOf[T] {
	return runModule("LocalMHA", p, prefix, func(m module[T]) []T {
		checkLen(m.name, "x", len(x), b*n*c.Dim)
		checkOptional(m.name, "mask", mask, b*n)
		if c.PreNorm {
			x = m.layerNorm("norm", x, b*n, c.Dim)
		}
		var rotate func(qkv []T)
		if c.UseRotaryPosEmb {
			rotate = func(qkv []T) { rotateQueriesAndKeys(qkv, n, c) }
		}
		return m.attend(x, mask, b, n, AttentionConfig{Dim: c.Dim, LightHeads: c.Heads, LightDimHead: c.DimHead}, c.keyRange(n), rotate)
	})
}

func (c LocalMHAConfig) keyRange(n int) func(i int) (lo, hi int) {
	w := c.WindowSize
	switch {
	case !c.Causal:
		return bidirectionalWindow(n, w)
	case !c.ExactWindowSize:
		return causalWindow(w)
	}
	return func(i int) (lo, hi int) { return max(0, i-w), i + 1 }
}

// rotateQueriesAndKeys rotates qkv [B, N, 3, H, D]: key j as position j, query i as position i, or without Causal i + w.
func rotateQueriesAndKeys[T Float](qkv []T, n int, c LocalMHAConfig) {
	inner, d := c.Heads*c.DimHead, c.DimHead
	for row := range len(qkv) / (3 * inner) {
		query := row % n
		if !c.Causal {
			query += c.WindowSize
		}
		for h := range c.Heads {
			q, k := qkv[3*row*inner+h*d:][:d], qkv[(3*row+1)*inner+h*d:][:d]
			copy(q, rotated(q, query))
			copy(k, rotated(k, row%n))
		}
	}
}
