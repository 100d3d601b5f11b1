package ref

// AutoregressiveConfig is the config of [ConditionalRoutedAutoregressiveAttention].
type AutoregressiveConfig struct {
	AttentionConfig        // HasLightAttn is not used: there always is one
	HeavyWindowSize    int `json:"heavy_window_size"` // 0: LightWindowSize
	CausalQueryRouting bool
}

// ConditionalRoutedAutoregressiveAttention is causal light attention of all
// tokens, and heavy attention of chosen tokens of each window to chosen tokens
// of the windows before it.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//
//	windows of HeavyWindowSize, the last padded; for window m >= 1:
//	y = light(x) + scatter(heavy(q routed in the window, kv routed from all tokens before it) * score of q)
//
// Window 0 has the light output alone; elsewhere rows that are no query get
// null_q_token. The routes hold a row for each item and window from 1 on:
// indices of queries count from the window's start, those of kv from 0.
//
// With CausalQueryRouting token i of window m is a query if its logit is at
// least the NumHeavyTokensQ-th largest of window m-1 (always, if that window
// has no more tokens), first come first served up to NumHeavyTokensQ.
func ConditionalRoutedAutoregressiveAttention(x []float32, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) Result {
	return autoregressive(convert[float64](x), mask, b, n, c, p, prefix)
}

// ConditionalRoutedAutoregressiveAttention32 is [ConditionalRoutedAutoregressiveAttention] in plain float32.
func ConditionalRoutedAutoregressiveAttention32(x []float32, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) ResultOf[float32] {
	return autoregressive(x, mask, b, n, c, p, prefix)
}

func autoregressive[T Float](x []T, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) ResultOf[T] {
	return within("ConditionalRoutedAutoregressiveAttention", p, prefix, func(m module[T]) []T { return m.autoregressive(x, mask, b, n, c) })
}

func (m module[T]) autoregressive(x []T, mask []uint8, b, n int, c AutoregressiveConfig) []T {
	checkLen(m.name, "x", len(x), b*n*c.Dim)
	checkOptional(m.name, "mask", mask, b*n)
	y := m.under("light_attn.").lightAttention(x, mask, b, n, c.AttentionConfig, causal(c.LightWindowSize))
	w := windowed[T]{size: c.HeavyWindowSize, c: c.Dim, b: b, n: n}
	if w.size == 0 {
		w.size = c.LightWindowSize
	}
	if w.windows = (n + w.size - 1) / w.size; w.windows < 2 {
		return y
	}
	w.pad(x, mask)

	routes, later := max(c.NumRoutedKV, 1), w.windows-1
	routerQ, routerKV := c.routers()
	var q RoutingOf[T]
	if tokens, real := w.queries(); c.CausalQueryRouting && w.size > c.NumHeavyTokensQ {
		q = m.causalQueries(w, routerQ)
		m.routes[m.prefix+"q_router"] = q
	} else {
		q = m.route("q_router", routerQ, tokens, real, b*later, w.size, c.Dim, 1)
	}
	tokens, real := w.prefixes()
	kv := m.route("kv_router", routerKV, tokens, real, b*later, w.windows*w.size, c.Dim, routes)

	h := m.heavyAttention(c.heavy())
	parallel(b*later, func(lo, hi int) {
		for row := lo; row < hi; row++ {
			item, start := row/later, (row%later+1)*w.size
			whole := w.x[item*w.windows*w.size*c.Dim:][:w.windows*w.size*c.Dim]
			queries := pick(whole[start*c.Dim:], q, row, c.Dim, start)
			out := y[(item*n+start)*c.Dim : (item*n+min(start+w.size, n))*c.Dim]
			h.add(out, queries, pickAll(whole, kv, row, routes, c.Dim))
		}
	})
	return y
}

// windowed is a sequence padded to whole windows.
type windowed[T Float] struct {
	size, windows, c, b, n int

	x    []T     // [B, windows * size, C]
	real []uint8 // [B, windows * size] 0: masked or padding
}

func (w *windowed[T]) pad(x []T, mask []uint8) {
	length := w.windows * w.size
	w.x, w.real = make([]T, w.b*length*w.c), make([]uint8, w.b*length)
	for item := range w.b {
		copy(w.x[item*length*w.c:], x[item*w.n*w.c:(item+1)*w.n*w.c])
		for i := range w.n {
			if isValid(mask, item*w.n+i) {
				w.real[item*length+i] = 1
			}
		}
	}
}

// queries returns the windows from 1 on: [B * (windows - 1), size, C], and which tokens are real.
func (w windowed[T]) queries() (x []T, real []uint8) {
	for row := range w.b * w.windows {
		if row%w.windows > 0 {
			x = append(x, w.x[row*w.size*w.c:(row+1)*w.size*w.c]...)
			real = append(real, w.real[row*w.size:(row+1)*w.size]...)
		}
	}
	return x, real
}

// prefixes returns for each window from 1 on the whole sequence, [B * (windows - 1), windows * size, C], where only what lies
// before the window is real.
func (w windowed[T]) prefixes() (x []T, real []uint8) {
	length := w.windows * w.size
	for item := range w.b {
		for m := 1; m < w.windows; m++ {
			x = append(x, w.x[item*length*w.c:(item+1)*length*w.c]...)
			row := make([]uint8, length)
			copy(row, w.real[item*length:][:m*w.size])
			real = append(real, row...)
		}
	}
	return x, real
}

// causalQueries routes the queries of windows from 1 on without looking ahead.
func (m module[T]) causalQueries(w windowed[T], c RouterConfig) RoutingOf[T] {
	k := c.NumTokens
	logits := routerLogits(RouterLogitsArgsOf[T]{
		X: w.x, Tokens: m.weight("q_router.routing_token", w.c), CosineScale: c.CosineScale, B: w.b * w.windows, N: w.size, C: w.c, R: 1,
	})
	slots := w.b * (w.windows - 1) * k
	r := RoutingOf[T]{Routed: true, K: k, Indices: make([]int32, slots), Valid: make([]uint8, slots), Scores: make([]T, slots)}
	row := 0
	for window := range w.b * w.windows {
		if window%w.windows == 0 {
			continue
		}
		before := largest(logits[(window-1)*w.size:window*w.size], w.real[(window-1)*w.size:window*w.size], w.size)
		used := 0
		for i := range w.size {
			logit := logits[window*w.size+i]
			if w.real[window*w.size+i] == 0 || used == k || len(before) > k && logit < logits[(window-1)*w.size+int(before[k-1])] {
				continue
			}
			slot := row*k + used
			r.Indices[slot], r.Valid[slot], r.Scores[slot] = int32(i), 1, 1
			used++
		}
		r.Logits = append(r.Logits, logits[window*w.size:(window+1)*w.size]...)
		row++
	}
	return r
}
