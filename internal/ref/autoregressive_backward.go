package ref

// ConditionalRoutedAutoregressiveAttentionBackward is the gradient of [ConditionalRoutedAutoregressiveAttention]. Window
// 0 has no heavy branch and no null query token. Keys and values that several windows select get the sum.
//
//	dy [B, N, C]
//
// With CausalQueryRouting the scores of queries have the gradient of [CausalSelectBackward]. Steps: those of
// [ConditionalRoutedAttentionBackward]; keys and values of all rows are projected, scores have a row per item and window
// m >= 1, and logits are [B, N] for queries, [B, R, N] for keys and values, summed over the windows.
func ConditionalRoutedAutoregressiveAttentionBackward(x []float32, mask []uint8, dy []float32, b, n int,
	c AutoregressiveConfig, p Params, prefix string) Gradients {
	return autoregressiveBackward(convert[float64](x), mask, convert[float64](dy), b, n, c, p, prefix)
}

// ConditionalRoutedAutoregressiveAttentionBackward32 is [ConditionalRoutedAutoregressiveAttentionBackward] in plain
// float32.
func ConditionalRoutedAutoregressiveAttentionBackward32(x []float32, mask []uint8, dy []float32, b, n int,
	c AutoregressiveConfig, p Params, prefix string) GradientsOf[float32] {
	return autoregressiveBackward(x, mask, dy, b, n, c, p, prefix)
}

func autoregressiveBackward[T Float](x []T, mask []uint8, dy []T, b, n int, c AutoregressiveConfig, p Params,
	prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedAutoregressiveAttention", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardAutoregressive(x, mask, b, n, c)
		return onlyX(y, s.backward(dy))
	})
}

// autoregressiveState is an autoregressive attention after the forward pass.
type autoregressiveState[T Float] struct {
	m       gradientModule[T]
	c       AutoregressiveConfig
	x       []T
	light   lightAttentionState[T]
	windows windowedSequence[T]
	q, kv   routerState[T] // rows of items and windows m >= 1
	causal  bool           // q.routing has the causal rule
	heavy   heavyState[T]
}

func (m gradientModule[T]) forwardAutoregressive(x []T, mask []uint8, b, n int,
	c AutoregressiveConfig) ([]T, autoregressiveState[T]) {
	s := autoregressiveState[T]{m: m, c: c, x: x}
	y, light := m.child("light_attn.").forwardWindows(x, mask, b, n, c.light())
	s.light = light
	w := windowedSequence[T]{size: c.HeavyWindowSize, c: c.Dim, b: b, n: n}
	if w.size == 0 {
		w.size = c.LightWindowSize
	}
	w.windows = (n + w.size - 1) / w.size
	s.windows = w
	if w.windows < 2 {
		return y, s
	}
	w.pad(x, mask)
	s.windows = w
	routerQ, routerKV := c.routers()
	later, routes := w.windows-1, max(c.NumRoutedKV, 1)
	tokens, valid := w.queries()
	if s.causal = c.CausalQueryRouting && w.size > c.NumHeavyTokensQ; s.causal {
		s.q = routerState[T]{m: m, name: "q_router", args: RouterArgsOf[T]{RouterConfig: routerQ, B: b * later, N: w.size,
			C: c.Dim, R: 1}}
		s.q.routing = m.routeCausalQueries(w, routerQ, convert[T](c.RandomQ))
		m.routes[m.prefix+"q_router"] = s.q.routing
	} else {
		s.q = m.forwardRouter("q_router", routerQ, tokens, valid, b*later, w.size, c.Dim, 1, w.queryLogits(convert[T](c.RandomQ)))
	}
	tokens, valid = w.prefixes()
	s.kv = m.forwardRouter("kv_router", routerKV, tokens, valid, b*later, w.windows*w.size, c.Dim, routes,
		w.keyLogits(convert[T](c.RandomKV), routes))

	in := heavyInput[T]{x: x, context: x, base: y, q: s.q.list(), kv: s.kv.list(), windows: later, firstNull: w.size}
	in.q.b, in.q.n, in.q.k, in.kv.n = b, n, later*in.q.k, n
	in.q.indices = w.absolute(in.q.indices)
	y, s.heavy = m.forwardHeavy(in, c.heavy())
	return y, s
}

// absolute returns indices in the windows m >= 1 of all items as indices in the item.
func (w windowedSequence[T]) absolute(indices []int32) []int32 {
	list, rows := make([]int32, len(indices)), w.b*(w.windows-1)
	for slot, index := range indices {
		row := slot / (len(indices) / rows)
		list[slot] = int32((row%(w.windows-1)+1)*w.size) + index
	}
	return list
}

func (s autoregressiveState[T]) backward(dy []T) []T {
	if s.windows.windows < 2 {
		return s.light.backward(dy)
	}
	g := s.heavy.backward(dy)
	dx := addTensors(g.x, g.context)
	dx = addTensors(dx, s.light.backward(g.base))
	dx = addTensors(dx, s.routerBackward(s.q, g.qScores, s.queryLogitsBackward(g.qScores)))
	return addTensors(dx, s.routerBackward(s.kv, g.kvScores, s.keyLogitsBackward(g.kvScores)))
}

// routerBackward returns the gradient of x. dlogits is [B, R, N] or nil.
func (s autoregressiveState[T]) routerBackward(r routerState[T], dscores, dlogits []T) []T {
	routes := r.args.R
	return s.m.logitsBackward(r.name, RouterLogitsArgsOf[T]{
		X: s.x, Tokens: s.m.weight(r.name+".routing_token", routes*s.c.Dim), CosineScale: s.c.Router.CosineScale,
		B: s.windows.b, N: s.windows.n, C: s.c.Dim, R: routes,
	}, dscores, dlogits)
}

// queryLogitsBackward returns the gradient of the logits of queries, [B, N].
func (s autoregressiveState[T]) queryLogitsBackward(dscores []T) []T {
	w, later := s.windows, s.windows.windows-1
	var padded []T // [B, windows, size]
	if s.c.RandomQ != nil {
		return nil
	}
	if s.causal {
		padded = s.causalLogitsBackward(dscores)
	} else {
		dlogits := routerScoresBackward(s.q.args, s.q.routing, dscores)
		if dlogits == nil {
			return nil
		}
		for item := range w.b {
			padded = append(append(padded, make([]T, w.size)...), dlogits[item*later*w.size:(item+1)*later*w.size]...)
		}
	}
	var list []T
	for item := range w.b {
		list = append(list, padded[item*w.windows*w.size:][:w.n]...)
	}
	return list
}

// causalLogitsBackward returns the gradient of the logits of causal query routing, [B, windows * size].
func (s autoregressiveState[T]) causalLogitsBackward(dscores []T) []T {
	w, r := s.windows, s.q.routing
	logits := routerLogits(RouterLogitsArgsOf[T]{
		X: w.x, Tokens: s.m.weight("q_router.routing_token", w.c), CosineScale: s.c.Router.CosineScale, B: w.b,
		N: w.windows * w.size, C: w.c, R: 1,
	})
	var indices []int32
	var valid []uint8
	var scores []T
	absolute, perItem := w.absolute(r.Indices), (w.windows-1)*r.K
	for item := range w.b { // the first window has empty slots
		lo, hi := item*perItem, (item+1)*perItem
		indices = append(append(indices, make([]int32, r.K)...), absolute[lo:hi]...)
		valid = append(append(valid, make([]uint8, r.K)...), r.Valid[lo:hi]...)
		scores = append(append(scores, make([]T, r.K)...), dscores[lo:hi]...)
	}
	return causalSelectBackward(logits, w.valid, indices, valid, scores, w.b, w.windows*w.size, w.size, r.K)
}

// keyLogitsBackward returns the gradient of the logits of keys and values, [B, R, N]: the sum over the windows.
func (s autoregressiveState[T]) keyLogitsBackward(dscores []T) []T {
	w, later, routes := s.windows, s.windows.windows-1, s.kv.args.R
	dlogits := routerScoresBackward(s.kv.args, s.kv.routing, dscores)
	if dlogits == nil {
		return nil
	}
	sum, length := make([]T, w.b*routes*w.n), w.windows*w.size
	for row := range w.b * later * routes {
		item, route := row/(later*routes), row%routes
		addScaled(sum[(item*routes+route)*w.n:][:w.n], dlogits[row*length:][:w.n], 1)
	}
	return sum
}
