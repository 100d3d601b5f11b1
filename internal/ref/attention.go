package ref

import "math"

// HeavyAttentionConfig is the config of the heavy branch of attention.
type HeavyAttentionConfig struct {
	Dim, DimHead, Heads    int
	MultiplyKeysByScore    bool
	MultiplyQueriesByScore bool
	RotaryEmb              bool
	NoNullQTokens          bool // rows that are not queries get zeros instead of the null query token
}

// AttentionConfig is the config of [ConditionalRoutedAttention], with the argument names of the PyTorch implementation.
// Router must be set.
type AttentionConfig struct {
	Dim              int `json:"dim"`
	NumHeavyTokensQ  int `json:"num_heavy_tokens_q"`
	NumHeavyTokensKV int `json:"num_heavy_tokens_kv"`
	NumRoutedKV      int `json:"num_routed_kv"` // routes of the key and value router; 0: 1

	LightDimHead    int `json:"light_dim_head"`
	LightHeads      int `json:"light_heads"`
	LightWindowSize int `json:"light_window_size"`
	HeavyDimHead    int `json:"heavy_dim_head"`
	HeavyHeads      int `json:"heavy_heads"`

	UseNullQTokens         bool `json:"use_null_q_tokens"`
	HasLightAttn           bool `json:"has_light_attn"`
	MultiplyKeysByScore    bool `json:"multiply_keys_by_score"`
	MultiplyQueriesByScore bool `json:"multiply_queries_by_score"`
	RotaryEmb              bool `json:"rotary_emb"`

	Router RouterConfig `json:"-"` // of both routers; NumTokens is ignored
}

func (c AttentionConfig) heavy() HeavyAttentionConfig {
	return HeavyAttentionConfig{
		Dim: c.Dim, DimHead: c.HeavyDimHead, Heads: c.HeavyHeads, MultiplyKeysByScore: c.MultiplyKeysByScore,
		MultiplyQueriesByScore: c.MultiplyQueriesByScore, RotaryEmb: c.RotaryEmb, NoNullQTokens: !c.UseNullQTokens,
	}
}

// routers returns the configs of the query router and of the key and value router.
func (c AttentionConfig) routers() (q, kv RouterConfig) {
	q, kv = c.Router, c.Router
	q.NumTokens, kv.NumTokens = c.NumHeavyTokensQ, c.NumHeavyTokensKV
	return q, kv
}

// ConditionalRoutedAttention is light attention of all tokens plus heavy attention of the selected tokens.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//	y = light(x) + scatter(heavy(q routed by q_router, kv routed by kv_router with NumRoutedKV routes) * score of q)
//
// Rows that are not queries, including masked ones, get null_q_token (or nothing) instead of the heavy output, also if
// nothing is routed.
func ConditionalRoutedAttention(x []float32, mask []uint8, b, n int, c AttentionConfig, p Params, prefix string) Result {
	return attention(convert[float64](x), mask, b, n, c, p, prefix)
}

// ConditionalRoutedAttention32 is [ConditionalRoutedAttention] in plain float32.
func ConditionalRoutedAttention32(x []float32, mask []uint8, b, n int, c AttentionConfig, p Params, prefix string) ResultOf[float32] {
	return attention(x, mask, b, n, c, p, prefix)
}

func attention[T Float](x []T, mask []uint8, b, n int, c AttentionConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedAttention", p, prefix, func(m module[T]) []T { return m.attention(x, mask, b, n, c) })
}

func (m module[T]) attention(x []T, mask []uint8, b, n int, c AttentionConfig) []T {
	checkLen(m.name, "x", len(x), b*n*c.Dim)
	checkOptional(m.name, "mask", mask, b*n)
	y := make([]T, b*n*c.Dim)
	if c.HasLightAttn {
		y = m.child("light_attn.").lightAttention(x, mask, b, n, c, bidirectionalWindow(n, c.LightWindowSize/2), nil)
	}
	routerQ, routerKV := c.routers()
	q := m.route("q_router", routerQ, x, mask, b, n, c.Dim, 1)
	kv := m.route("kv_router", routerKV, x, mask, b, n, c.Dim, max(c.NumRoutedKV, 1))
	h := m.heavyAttention(c.heavy())
	parallel(b, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			item := x[i*n*c.Dim : (i+1)*n*c.Dim]
			h.add(y[i*n*c.Dim:(i+1)*n*c.Dim], selectTokens(item, q, i, c.Dim, 0), selectTokensPerRoute(item, kv, i, max(c.NumRoutedKV, 1), c.Dim))
		}
	})
	return y
}

// lightAttention is LayerNorm, local attention and a projection, over b sequences of n tokens. keyRange returns the
// keys of query i. rotate is that of attend.
func (m module[T]) lightAttention(x []T, mask []uint8, b, n int, c AttentionConfig, keyRange func(i int) (lo, hi int), rotate func(qkv []T)) []T {
	return m.attend(m.layerNorm("norm", x, b*n, c.Dim), mask, b, n, c, keyRange, rotate)
}

// attend is light attention without the norm. rotate, if not nil, changes the queries and keys [B, N, 3, H, D].
func (m module[T]) attend(x []T, mask []uint8, b, n int, c AttentionConfig, keyRange func(i int) (lo, hi int), rotate func(qkv []T)) []T {
	heads, d := c.LightHeads, c.LightDimHead
	inner := heads * d
	qkv := m.linear("to_qkv", x, b*n, c.Dim, 3*inner) // all q, all k, all v
	if rotate != nil {
		rotate(qkv)
	}
	out := make([]T, b*n*inner)
	parallel(b*n, func(from, to int) {
		for row := from; row < to; row++ {
			item, i := row/n, row%n
			lo, hi := keyRange(i)
			for h := range heads {
				var keys, values [][]T
				for j := item*n + lo; j < item*n+hi; j++ {
					if isValid(mask, j) {
						keys = append(keys, qkv[(3*j+1)*inner+h*d:][:d])
						values = append(values, qkv[(3*j+2)*inner+h*d:][:d])
					}
				}
				softmaxOver(out[row*inner+h*d:][:d], qkv[3*row*inner+h*d:][:d], keys, values)
			}
		}
	})
	return m.linear("to_out", out, b*n, inner, c.Dim)
}

// bidirectionalWindow returns the keys of token i of n: the tokens at most w away in its own block of w tokens and in
// both neighbouring blocks.
func bidirectionalWindow(n, w int) func(i int) (lo, hi int) {
	return func(i int) (lo, hi int) {
		block := i / w * w
		return max(0, block-w, i-w), min(n, block+2*w, i+w+1)
	}
}

// causalWindow returns the keys of token i: its own block of w tokens and the previous one, up to the token itself.
func causalWindow(w int) func(i int) (lo, hi int) {
	return func(i int) (lo, hi int) { return max(0, i/w*w-w), i + 1 }
}

// softmaxOver adds sum_j softmax_j(q . keys[j] / sqrt(D)) * values[j] to out. Without keys it does nothing.
func softmaxOver[T Float](out, q []T, keys, values [][]T) {
	if len(keys) == 0 {
		return
	}
	scale := T(1 / math.Sqrt(float64(len(q))))
	logits := make([]T, len(keys))
	for j, k := range keys {
		logits[j] = dot(q, k) * scale
	}
	top, total := logits[0], T(0)
	for _, l := range logits {
		top = max(top, l)
	}
	for j, l := range logits {
		logits[j] = expT(l - top)
		total += logits[j]
	}
	for j, l := range logits {
		for i, v := range values[j] {
			out[i] += l / total * v
		}
	}
}

// selectedTokens are the tokens of the valid slots of one row of a routing.
type selectedTokens[T Float] struct {
	tokens    [][]T // [K][C], not multiplied by the scores
	rows      []int // their rows in x
	positions []int // for rotary embeddings
	scores    []T
}

// selectTokens returns the selected tokens of one row of a routing over x [N, C]. start is the position of the first
// row of x.
func selectTokens[T Float](x []T, r RoutingOf[T], row, c, start int) selectedTokens[T] {
	var list selectedTokens[T]
	for k := range r.K {
		slot, index := row*r.K+k, k
		if isSkipped(r.Scores, r.Valid, slot) {
			continue
		}
		if r.Routed {
			index = int(r.Indices[slot])
		}
		list.tokens = append(list.tokens, x[index*c:(index+1)*c])
		list.rows = append(list.rows, index)
		list.positions = append(list.positions, start+index)
		list.scores = append(list.scores, r.Scores[slot])
	}
	return list
}

// selectTokensPerRoute calls selectTokens for each route of an item.
func selectTokensPerRoute[T Float](x []T, r RoutingOf[T], item, routes, c int) []selectedTokens[T] {
	var list []selectedTokens[T]
	for route := range routes {
		list = append(list, selectTokens(x, r, item*routes+route, c, 0))
	}
	return list
}

// heavyAttention holds the weights of heavy attention.
type heavyAttention[T Float] struct {
	HeavyAttentionConfig
	gamma, nullKV, toQ, toKV, toOut, nullQ []T
}

func (m module[T]) heavyAttention(c HeavyAttentionConfig) heavyAttention[T] {
	inner := c.Heads * c.DimHead
	h := heavyAttention[T]{
		HeavyAttentionConfig: c, gamma: m.weight("heavy_attn.norm.gamma", c.Dim), nullKV: m.weight("heavy_attn.null_kv", 2*inner),
		toQ: m.weight("heavy_attn.to_q.weight", inner*c.Dim), toKV: m.weight("heavy_attn.to_kv.weight", 2*inner*c.Dim),
		toOut: m.weight("heavy_attn.to_out.weight", c.Dim*inner), nullQ: make([]T, c.Dim),
	}
	if !c.NoNullQTokens {
		h.nullQ = m.weight("null_q_token", c.Dim)
	}
	return h
}

// add adds the heavy output, multiplied by the query's score, to the rows of y [N, C] that are queries, and the null
// query token to all other rows. The heads are divided among the routes.
func (h heavyAttention[T]) add(y []T, q selectedTokens[T], kv []selectedTokens[T]) {
	out := h.attend(q, kv)
	isQuery := map[int]bool{}
	for slot, row := range q.rows {
		isQuery[row] = true
		for i, v := range out[slot] {
			y[row*h.Dim+i] += v * q.scores[slot]
		}
	}
	for row := range len(y) / h.Dim {
		if isQuery[row] {
			continue
		}
		for i, v := range h.nullQ {
			y[row*h.Dim+i] += v
		}
	}
}

// attend returns the heavy output of each query.
func (h heavyAttention[T]) attend(q selectedTokens[T], kv []selectedTokens[T]) [][]T {
	d, inner := h.DimHead, h.Heads*h.DimHead
	merged, out := make([][]T, len(q.tokens)), make([][]T, len(q.tokens))
	for slot := range merged {
		merged[slot], out[slot] = make([]T, inner), make([]T, h.Dim)
	}
	queries := h.normalise(q.tokens)
	perRoute := h.Heads / len(kv)
	for route, list := range kv {
		context := h.normalise(list.tokens)
		for head := route * perRoute; head < (route+1)*perRoute; head++ {
			keys, values := [][]T{h.nullKV[head*d:][:d]}, [][]T{h.nullKV[inner+head*d:][:d]}
			for slot, token := range context {
				k, v := h.project(h.toKV, 2*head, token), h.project(h.toKV, 2*head+1, token)
				if h.MultiplyKeysByScore {
					scaleBy(k, list.scores[slot])
				}
				scaleBy(v, list.scores[slot])
				keys, values = append(keys, h.rotate(k, list.positions[slot])), append(values, v)
			}
			for slot, token := range queries {
				query := h.project(h.toQ, head, token)
				if h.MultiplyQueriesByScore {
					scaleBy(query, q.scores[slot])
				}
				softmaxOver(merged[slot][head*d:][:d], h.rotate(query, q.positions[slot]), keys, values)
			}
		}
	}
	for slot := range out {
		matVec(out[slot], h.toOut, merged[slot])
	}
	return out
}

// normalise returns the RMSNorm of tokens.
func (h heavyAttention[T]) normalise(tokens [][]T) [][]T {
	list := make([][]T, len(tokens))
	for i, token := range tokens {
		list[i] = make([]T, h.Dim)
		rmsNormRow(list[i], token, h.gamma)
	}
	return list
}

// project multiplies a token by rows i * DimHead to (i+1) * DimHead - 1 of a weight.
func (h heavyAttention[T]) project(w []T, i int, token []T) []T {
	out := make([]T, h.DimHead)
	matVec(out, w[i*h.DimHead*h.Dim:(i+1)*h.DimHead*h.Dim], token)
	return out
}

// rotate applies the rotary embedding of a position to a head.
func (h heavyAttention[T]) rotate(v []T, position int) []T {
	if !h.RotaryEmb {
		return v
	}
	return rotated(v, position)
}

// rotated returns the rotary embedding of a head at a position.
func rotated[T Float](v []T, position int) []T {
	out, half := make([]T, len(v)), len(v)/2
	for i := range half {
		sin, cos := math.Sincos(float64(position) * math.Pow(10000, -2*float64(i)/float64(len(v))))
		out[i] = v[i]*T(cos) - v[i+half]*T(sin)
		out[i+half] = v[i+half]*T(cos) + v[i]*T(sin)
	}
	return out
}

// scaleBy multiplies v by f in place.
func scaleBy[T Float](v []T, f T) {
	for i := range v {
		v[i] *= f
	}
}
