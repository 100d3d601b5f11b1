package ref

// AutoregressiveConfig is the config of [ConditionalRoutedAutoregressiveAttention].
type AutoregressiveConfig struct {
	AttentionConfig         // HasLightAttn is ignored: the light branch always exists
	HeavyWindowSize    int  `json:"heavy_window_size"` // 0: LightWindowSize
	LightRotaryEmb     bool `json:"light_rotary_emb"`
	CausalQueryRouting bool

	// Random routing, if not nil: logits that replace those of the routing tokens. Every score is then 1.
	RandomQ  []float32 `json:"-"` // [B, N]
	RandomKV []float32 `json:"-"` // [B, R, N]; all windows of an item share them, each sees the prefix before it
}

// ConditionalRoutedAutoregressiveAttention is causal light attention of all tokens, plus heavy attention from selected
// tokens of each window to selected tokens of the windows before it.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//
//	windows of HeavyWindowSize tokens, the last one padded; for window m >= 1:
//	y = light(x) + scatter(heavy(q routed in the window, kv routed from all tokens before it) * score of q)
//
// Window 0 gets the light output only. In the other windows, rows that are not queries get null_q_token. The routes
// have a row per item and window m >= 1; indices of queries are relative to the start of the window, those of kv to the
// start of the sequence.
//
// With CausalQueryRouting, token i of window m is a query if its logit is at least the NumHeavyTokensQ-th largest of
// window m-1 (or if that window has at most NumHeavyTokensQ tokens). At most the first NumHeavyTokensQ such tokens are
// queries.
func ConditionalRoutedAutoregressiveAttention(x []float32, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) Result {
	return autoregressive(convert[float64](x), mask, b, n, c, p, prefix)
}

// ConditionalRoutedAutoregressiveAttention32 is [ConditionalRoutedAutoregressiveAttention] in plain float32.
func ConditionalRoutedAutoregressiveAttention32(x []float32, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) ResultOf[float32] {
	return autoregressive(x, mask, b, n, c, p, prefix)
}

func autoregressive[T Float](x []T, mask []uint8, b, n int, c AutoregressiveConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedAutoregressiveAttention", p, prefix, func(m module[T]) []T { return m.autoregressive(x, mask, b, n, c) })
}

// light is the config of the light branch.
func (c AutoregressiveConfig) light() LocalMHAConfig {
	l := c.AttentionConfig.light(c.LightWindowSize, true)
	l.UseRotaryPosEmb = c.LightRotaryEmb
	return l
}

func (m module[T]) autoregressive(x []T, mask []uint8, b, n int, c AutoregressiveConfig) []T {
	checkLen(m.name, "x", len(x), b*n*c.Dim)
	checkOptional(m.name, "mask", mask, b*n)
	var rotate func(qkv []T)
	if c.LightRotaryEmb {
		rotate = func(qkv []T) { rotateQueriesAndKeys(qkv, n, c.light()) }
	}
	y := m.child("light_attn.").lightAttention(x, mask, b, n, c.AttentionConfig, causalWindow(c.LightWindowSize), rotate)
	w := windowedSequence[T]{size: c.HeavyWindowSize, c: c.Dim, b: b, n: n}
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
	if tokens, valid := w.queries(); c.CausalQueryRouting && w.size > c.NumHeavyTokensQ {
		q = m.routeCausalQueries(w, routerQ, convert[T](c.RandomQ))
		m.routes[m.prefix+"q_router"] = q
	} else {
		q = m.routeBy("q_router", routerQ, tokens, valid, b*later, w.size, c.Dim, 1, w.queryLogits(convert[T](c.RandomQ)))
	}
	tokens, valid := w.prefixes()
	kv := m.routeBy("kv_router", routerKV, tokens, valid, b*later, w.windows*w.size, c.Dim, routes, w.keyLogits(convert[T](c.RandomKV), routes))

	h := m.heavyAttention(c.heavy())
	parallel(b*later, func(lo, hi int) {
		for row := lo; row < hi; row++ {
			item, start := row/later, (row%later+1)*w.size
			whole := w.x[item*w.windows*w.size*c.Dim:][:w.windows*w.size*c.Dim]
			queries := selectTokens(whole[start*c.Dim:], q, row, c.Dim, start)
			out := y[(item*n+start)*c.Dim : (item*n+min(start+w.size, n))*c.Dim]
			h.add(out, queries, selectTokensPerRoute(whole, kv, row, routes, c.Dim))
		}
	})
	return y
}

// windowedSequence is a batch of sequences padded to a multiple of the window size.
type windowedSequence[T Float] struct {
	size, windows, c, b, n int

	x     []T     // [B, windows * size, C]
	valid []uint8 // [B, windows * size]; 0: masked or padding
}

func (w *windowedSequence[T]) pad(x []T, mask []uint8) {
	length := w.windows * w.size
	w.x, w.valid = make([]T, w.b*length*w.c), make([]uint8, w.b*length)
	for item := range w.b {
		copy(w.x[item*length*w.c:], x[item*w.n*w.c:(item+1)*w.n*w.c])
		for i := range w.n {
			if isValid(mask, item*w.n+i) {
				w.valid[item*length+i] = 1
			}
		}
	}
}

// queries returns the windows m >= 1, [B * (windows - 1), size, C], and their mask.
func (w windowedSequence[T]) queries() (x []T, valid []uint8) {
	for row := range w.b * w.windows {
		if row%w.windows > 0 {
			x = append(x, w.x[row*w.size*w.c:(row+1)*w.size*w.c]...)
			valid = append(valid, w.valid[row*w.size:(row+1)*w.size]...)
		}
	}
	return x, valid
}

// prefixes returns the whole sequence for each window m >= 1, [B * (windows - 1), windows * size, C], and a mask of the
// tokens before the window.
func (w windowedSequence[T]) prefixes() (x []T, valid []uint8) {
	length := w.windows * w.size
	for item := range w.b {
		for m := 1; m < w.windows; m++ {
			x = append(x, w.x[item*length*w.c:(item+1)*length*w.c]...)
			row := make([]uint8, length)
			copy(row, w.valid[item*length:][:m*w.size])
			valid = append(valid, row...)
		}
	}
	return x, valid
}

// padLogits returns logits [rows, N] padded to whole windows, nil for nil.
func (w windowedSequence[T]) padLogits(logits []T, rows int) []T {
	if logits == nil {
		return nil
	}
	length := w.windows * w.size
	padded := make([]T, rows*length)
	for row := range rows {
		copy(padded[row*length:], logits[row*w.n:][:w.n])
	}
	return padded
}

// queryLogits returns logits [B, N] in the order of queries.
func (w windowedSequence[T]) queryLogits(logits []T) (list []T) {
	padded := w.padLogits(logits, w.b)
	for i, v := range padded {
		if i/w.size%w.windows > 0 {
			list = append(list, v)
		}
	}
	return list
}

// keyLogits returns logits [B, R, N] in the order of prefixes: repeated for each window m >= 1.
func (w windowedSequence[T]) keyLogits(logits []T, routes int) (list []T) {
	padded, item := w.padLogits(logits, w.b*routes), routes*w.windows*w.size
	for from := 0; from < len(padded); from += item {
		for range w.windows - 1 {
			list = append(list, padded[from:][:item]...)
		}
	}
	return list
}

// routeCausalQueries selects the queries of windows m >= 1 from logits up to and including each token only. random
// [B, N], if not nil, replaces the logits.
func (m module[T]) routeCausalQueries(w windowedSequence[T], c RouterConfig, random []T) RoutingOf[T] {
	k := c.NumTokens
	logits := routerLogits(RouterLogitsArgsOf[T]{
		X: w.x, Tokens: m.weight("q_router.routing_token", w.c), CosineScale: c.CosineScale, B: w.b * w.windows, N: w.size, C: w.c, R: 1,
	})
	if random != nil {
		logits = w.padLogits(random, w.b)
	}
	slots := w.b * (w.windows - 1) * k
	r := RoutingOf[T]{Routed: true, K: k, Indices: make([]int32, slots), Valid: make([]uint8, slots), Scores: make([]T, slots)}
	row := 0
	for window := range w.b * w.windows {
		if window%w.windows == 0 {
			continue
		}
		before := topIndices(logits[(window-1)*w.size:window*w.size], w.valid[(window-1)*w.size:window*w.size], w.size)
		used := 0
		for i := range w.size {
			logit := logits[window*w.size+i]
			if w.valid[window*w.size+i] == 0 || used == k || len(before) > k && logit < logits[(window-1)*w.size+int(before[k-1])] {
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
