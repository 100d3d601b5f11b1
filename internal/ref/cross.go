package ref

// CrossAttentionConfig is the config of [ConditionalRoutedCrossAttention], with the argument names of the PyTorch
// implementation. Router must be set.
type CrossAttentionConfig struct {
	Dim             int `json:"dim"`
	NumTokensQ      int `json:"num_tokens_q"`
	NumTokensKV     int `json:"num_tokens_kv"`
	DimHead         int `json:"dim_head"`
	Heads           int `json:"heads"`
	KVRoutingTokens int `json:"kv_routing_tokens"` // 0: 1
	RouteBlockSize  int `json:"route_block_size"`  // block size of the context router; 0: no blocks

	UseNullQTokens         bool `json:"use_null_q_tokens"`
	MultiplyKeysByScore    bool `json:"multiply_keys_by_score"`
	MultiplyQueriesByScore bool `json:"multiply_queries_by_score"`
	RotaryEmb              bool `json:"rotary_emb"`

	Router RouterConfig `json:"-"` // of both routers; NumTokens and BlockSize are ignored
}

func (c CrossAttentionConfig) heavy() HeavyAttentionConfig {
	return HeavyAttentionConfig{
		Dim: c.Dim, DimHead: c.DimHead, Heads: c.Heads, MultiplyKeysByScore: c.MultiplyKeysByScore,
		MultiplyQueriesByScore: c.MultiplyQueriesByScore, RotaryEmb: c.RotaryEmb, NoNullQTokens: !c.UseNullQTokens,
	}
}

// routers returns the configs of the query router and of the context router.
func (c CrossAttentionConfig) routers() (q, kv RouterConfig) {
	q, kv = c.Router, c.Router
	q.NumTokens, q.BlockSize = c.NumTokensQ, 0
	kv.NumTokens, kv.BlockSize = c.NumTokensKV, c.RouteBlockSize
	return q, kv
}

// CrossAttentionInput is the input of [ConditionalRoutedCrossAttention].
type CrossAttentionInput struct {
	X           []float32 // [B, N, C]
	Context     []float32 // [B, M, C]
	Mask        []uint8   // [B, N] optional
	ContextMask []uint8   // [B, M] optional
	B, N, M     int
}

// ConditionalRoutedCrossAttention is heavy attention from selected tokens of x to selected tokens of the context. It
// has no light branch.
//
//	x [B, N, C]    context [B, M, C]    y [B, N, C]
//	y = scatter(heavy(q routed from x, kv routed from context) * score of q); other rows, masked ones included: null_q_token
func ConditionalRoutedCrossAttention(in CrossAttentionInput, c CrossAttentionConfig, p Params, prefix string) Result {
	return cross[float64](in, c, p, prefix)
}

// ConditionalRoutedCrossAttention32 is [ConditionalRoutedCrossAttention] in plain float32.
func ConditionalRoutedCrossAttention32(in CrossAttentionInput, c CrossAttentionConfig, p Params, prefix string) ResultOf[float32] {
	return cross[float32](in, c, p, prefix)
}

func cross[T Float](in CrossAttentionInput, c CrossAttentionConfig, p Params, prefix string) ResultOf[T] {
	return runModule("ConditionalRoutedCrossAttention", p, prefix, func(m module[T]) []T {
		checkLen(m.name, "x", len(in.X), in.B*in.N*c.Dim)
		checkLen(m.name, "context", len(in.Context), in.B*in.M*c.Dim)
		x, context, routes := convert[T](in.X), convert[T](in.Context), max(c.KVRoutingTokens, 1)
		routerQ, routerKV := c.routers()
		q := m.route("q_router", routerQ, x, in.Mask, in.B, in.N, c.Dim, 1)
		kv := m.route("kv_router", routerKV, context, in.ContextMask, in.B, in.M, c.Dim, routes)
		h := m.heavyAttention(c.heavy())
		y, perX, perContext := make([]T, len(x)), in.N*c.Dim, in.M*c.Dim
		parallel(in.B, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				queries := selectTokens(x[i*perX:(i+1)*perX], q, i, c.Dim, 0)
				h.add(y[i*perX:(i+1)*perX], queries, selectTokensPerRoute(context[i*perContext:(i+1)*perContext], kv, i, routes, c.Dim))
			}
		})
		return y
	})
}
