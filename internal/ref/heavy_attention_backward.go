package ref

// heavyInput is the input of a heavy branch.
type heavyInput[T Float] struct {
	x, context []T // [B, N, C], [B, M, C]
	base       []T // [B, N, C] what the result is added to
	q, kv      tokenList[T]

	// windows counts the lists of queries and keys per item, of which q has one after the other in an item's slots. If
	// it is not 0, keys and values of all rows are projected once. 0: one list per item and route, and only its rows
	// are projected.
	windows   int
	firstNull int // the null query token is added to the rows from here on that are not queries
}

// heavyState is a heavy branch after the forward pass.
type heavyState[T Float] struct {
	m      gradientModule[T]
	c      HeavyAttentionConfig
	in     heavyInput[T]
	query  LinearArgsOf[T]
	keys   []LinearArgsOf[T] // one per route, or one for all rows
	attend RoutedAttentionArgsOf[T]
	out    LinearArgsOf[T]
}

// forwardHeavy is heavy attention with the kernels of the GPU path: norm and projection, rotation, attention, projection.
func (m gradientModule[T]) forwardHeavy(in heavyInput[T], c HeavyAttentionConfig) ([]T, heavyState[T]) {
	s, inner, q, kv := heavyState[T]{m: m, c: c, in: in}, c.Heads*c.DimHead, in.q, in.kv
	gamma := m.weight("heavy_attn.norm.gamma", c.Dim)
	s.query = m.linearArgs("heavy_attn.to_q", in.x, q.k, c.Dim, inner, false)
	s.query.Gamma, s.query.Batch, s.query.InRows, s.query.Gather, s.query.Valid = gamma, q.b, q.n, q.indices, q.valid

	whole := m.linearArgs("heavy_attn.to_kv", in.context, len(in.context)/c.Dim, c.Dim, 2*inner, false)
	whole.Gamma = gamma
	s.keys = []LinearArgsOf[T]{whole}
	if in.windows == 0 {
		s.keys = nil
		for route := range kv.r {
			a := whole
			a.Out = whole.Out / kv.r
			a.W = whole.W[route*a.Out*a.In : (route+1)*a.Out*a.In]
			a.Batch, a.InRows, a.Rows, a.Lists, a.List, a.Gather, a.Valid = kv.b, kv.n, kv.k, kv.r, route, kv.indices, kv.valid
			s.keys = append(s.keys, a)
		}
	}
	s.attend = RoutedAttentionArgsOf[T]{
		Q: linear(s.query), Valid: kv.valid, KeyScores: kv.scores, Null: m.weight("heavy_attn.null_kv", 2*inner),
		ScoreValues: true, ScoreKeys: c.MultiplyKeysByScore, QueryValid: q.valid,
		Lists: q.b * max(in.windows, 1), Queries: q.k / max(in.windows, 1), Keys: kv.k, Heads: c.Heads, DimHead: c.DimHead, Routes: kv.r,
	}
	if c.MultiplyQueriesByScore {
		s.attend.QueryScores = q.scores
	}
	if in.windows > 0 {
		s.attend.Indices, s.attend.PerItem, s.attend.KVRows = kv.indices, in.windows, kv.n
	}
	for _, a := range s.keys {
		s.attend.KV = append(s.attend.KV, linear(a)...)
	}
	s.rotate(s.attend.Q, s.attend.KV, 1)

	s.out = m.linearArgs("heavy_attn.to_out", routedAttention(s.attend), q.k, inner, c.Dim, false)
	s.out.Batch, s.out.OutRows, s.out.Scatter, s.out.Valid, s.out.Score = q.b, q.n, q.indices, q.valid, q.scores
	s.out.Residual, s.out.Base = in.base, in.base
	if !c.NoNullQTokens {
		s.out.Base = make([]T, len(in.base))
		null := m.weight("null_q_token", c.Dim)
		for i, v := range in.base {
			if s.out.Base[i] = v; s.hasNull(i) {
				s.out.Base[i] += null[i%c.Dim]
			}
		}
	}
	return linear(s.out), s
}

// hasNull reports whether element i of y belongs to a row that gets the null query token unless it is a query.
func (s heavyState[T]) hasNull(i int) bool { return i/s.c.Dim%s.in.q.n >= s.in.firstNull }

// rotate rotates queries and keys in place.
func (s heavyState[T]) rotate(q, kv []T, direction float64) {
	if !s.c.RotaryEmb {
		return
	}
	d, in := s.c.DimHead, s.in
	copy(q, rotary(RotaryArgsOf[T]{
		X: q, Positions: in.q.indices, Valid: in.q.valid, Heads: s.c.Heads, DimHead: d, Lists: in.q.b, Rows: in.q.k,
	}, direction))
	if in.windows > 0 {
		copy(kv, rotary(RotaryArgsOf[T]{X: kv, Heads: s.c.Heads, DimHead: d, HeadStride: 2 * d, Lists: in.q.b, Rows: in.kv.n}, direction))
		return
	}
	size := len(kv) / in.kv.r
	for route := range in.kv.r {
		part := kv[route*size : (route+1)*size]
		copy(part, rotary(RotaryArgsOf[T]{
			X: part, Positions: in.kv.indices, Valid: in.kv.valid, Heads: s.c.Heads / in.kv.r, DimHead: d, HeadStride: 2 * d,
			Lists: in.kv.b, Rows: in.kv.k, Routes: in.kv.r, Route: route,
		}, direction))
	}
}

// heavyGrads are the gradients of the inputs of a heavy branch, and of the scores of its lists.
type heavyGrads[T Float] struct{ x, context, base, qScores, kvScores []T }

// backward adds the gradients of the weights.
//
// Steps: heavy_attn.to_q, .to_kv and .to_out; heavy_attn.q [B, K, H, D] and .kv after the rotation, kv being [R, B, K,
// H/R, 2, D], or [B, M, H, 2, D] if all rows are projected.
func (s heavyState[T]) backward(dy []T) heavyGrads[T] {
	out := s.m.linearBackward("heavy_attn.to_out", s.out, dy)
	if !s.c.NoNullQTokens {
		null := make([]T, s.c.Dim)
		for i, v := range out.Base {
			if s.hasNull(i) {
				null[i%s.c.Dim] += v
			}
		}
		s.m.add("null_q_token", 0, null)
	}
	attended := routedAttentionBackward(s.attend, out.X)
	s.m.add("heavy_attn.null_kv", 0, attended.Null)
	s.m.keep("heavy_attn.q", attended.Q)
	s.m.keep("heavy_attn.kv", attended.KV)
	s.rotate(attended.Q, attended.KV, -1)

	q := s.m.linearBackward("heavy_attn.to_q", s.query, attended.Q)
	s.m.add("heavy_attn.norm.gamma", 0, q.Gamma)
	g := heavyGrads[T]{
		x: q.X, context: make([]T, len(s.in.context)), base: addTensors(out.Residual, out.Base), qScores: out.Score,
		kvScores: attended.KeyScores,
	}
	if attended.QueryScores != nil {
		g.qScores = addTensors(g.qScores, attended.QueryScores)
	}
	var products, inputs []T
	size := len(attended.KV) / len(s.keys)
	for route, a := range s.keys {
		kv := linearBackward(a, attended.KV[route*size:(route+1)*size])
		s.m.add("heavy_attn.to_kv.weight", route*len(a.W), kv.W)
		s.m.add("heavy_attn.norm.gamma", 0, kv.Gamma)
		addScaled(g.context, kv.X, 1)
		products, inputs = append(products, kv.Product...), append(inputs, kv.Normalised...)
	}
	s.m.keep("heavy_attn.to_kv.product", products)
	s.m.keep("heavy_attn.to_kv.input", inputs)
	return g
}
