package ref

// lightAttentionState is a light branch after the forward pass.
type lightAttentionState[T Float] struct {
	m        gradientModule[T]
	c        LocalMHAConfig
	x        []T // input of the norm
	b, n     int
	qkv, out LinearArgsOf[T]
	windows  WindowAttentionArgsOf[T]
	patches  []PatchAttentionArgsOf[T] // one per image; nil: windows are used
}

// forwardWindows is an optional LayerNorm, attention to the neighbourhood, and a projection: [LocalMHA].
func (m gradientModule[T]) forwardWindows(x []T, mask []uint8, b, n int, c LocalMHAConfig) ([]T, lightAttentionState[T]) {
	s, inner := lightAttentionState[T]{m: m, c: c, x: x, b: b, n: n}, c.Heads*c.DimHead
	if c.PreNorm {
		x = m.layerNorm("norm", x, b*n, c.Dim)
	}
	s.qkv = m.linearArgs("to_qkv", x, b*n, c.Dim, 3*inner, false)
	s.windows = WindowAttentionArgsOf[T]{
		QKV: linear(s.qkv), Mask: mask, B: b, N: n, Heads: c.Heads, DimHead: c.DimHead, Window: c.WindowSize,
		Causal: c.Causal, Exact: c.Causal && c.ExactWindowSize,
	}
	s.rotate(s.windows.QKV, 1)
	s.out = m.linearArgs("to_out", windowAttention(s.windows), b*n, inner, c.Dim, false)
	return linear(s.out), s
}

// rotate rotates the queries and keys of qkv in place.
func (s lightAttentionState[T]) rotate(qkv []T, direction float64) {
	if !s.c.UseRotaryPosEmb {
		return
	}
	inner := s.c.Heads * s.c.DimHead
	a := RotaryArgsOf[T]{Heads: s.c.Heads, DimHead: s.c.DimHead, Stride: 3 * inner, Lists: s.b, Rows: s.n}
	keys := a
	if !s.c.Causal {
		a.First = s.c.WindowSize
	}
	a.X = qkv
	copy(qkv, rotary(a, direction))
	keys.X = qkv[inner : len(qkv)-inner]
	copy(keys.X, rotary(keys, direction))
}

// forwardPatches is RMSNorm, attention within the patches of images, and a projection.
func (m gradientModule[T]) forwardPatches(x []T, b, height, width int, c AttentionConfig) ([]T, lightAttentionState[T]) {
	inner, n := c.LightHeads*c.LightDimHead, height*width
	s := lightAttentionState[T]{m: m, x: x, b: b, n: n}
	s.qkv = m.linearArgs("to_qkv", x, b*n, c.Dim, 3*inner, false)
	s.qkv.Gamma = m.weight("norm.gamma", c.Dim)
	qkv := linear(s.qkv)
	var attended []T
	for item := range b {
		a := PatchAttentionArgsOf[T]{
			QKV: qkv[item*n*3*inner : (item+1)*n*3*inner], Height: height, Width: width, Heads: c.LightHeads, DimHead: c.LightDimHead,
			Patch: c.LightWindowSize,
		}
		s.patches = append(s.patches, a)
		attended = append(attended, patchAttention(a)...)
	}
	s.out = m.linearArgs("to_out", attended, b*n, inner, c.Dim, false)
	return linear(s.out), s
}

// backward returns the gradient of x. Steps: to_qkv and to_out; qkv after the rotation, [B, N, 3, H, D].
func (s lightAttentionState[T]) backward(dy []T) []T {
	out := s.m.linearBackward("to_out", s.out, dy)
	var dqkv []T
	if s.patches != nil {
		for item, a := range s.patches {
			size := len(out.X) / s.b
			dqkv = append(dqkv, patchAttentionBackward(a, out.X[item*size:(item+1)*size])...)
		}
	} else {
		dqkv = windowAttentionBackward(s.windows, out.X)
	}
	s.m.keep("qkv", dqkv)
	s.rotate(dqkv, -1)
	dx := s.m.linearBackward("to_qkv", s.qkv, dqkv)
	if s.patches != nil {
		s.m.add("norm.gamma", 0, dx.Gamma)
		return dx.X
	}
	if s.c.PreNorm {
		return s.m.layerNormBackward("norm", s.x, dx.X, s.b*s.n, s.c.Dim)
	}
	return dx.X
}
