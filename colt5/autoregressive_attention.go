package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedAutoregressiveAttentionConfig configures a ConditionalRoutedAutoregressiveAttention. Start from
// Default[ConditionalRoutedAutoregressiveAttentionConfig]: zero values are not the defaults.
type ConditionalRoutedAutoregressiveAttentionConfig struct {
	Dim                    int            `json:"dim"`                       // C, at least 1
	NumHeavyTokensQ        int            `json:"num_heavy_tokens_q"`        // queries of a heavy window, at least 1; the default of a call
	NumHeavyTokensKV       int            `json:"num_heavy_tokens_kv"`       // keys and values of a window and route, at least 1; the default of a call
	NumRoutedKV            int            `json:"num_routed_kv"`             // R, routes of keys and values; a divisor of HeavyHeads
	LightDimHead           int            `json:"light_dim_head"`            // 1 to 128; even with LightRotaryEmb
	LightHeads             int            `json:"light_heads"`               // at least 1
	LightWindowSize        int            `json:"light_window_size"`         // block size: a token attends to its own block and the previous one; at least 1
	HeavyWindowSize        int            `json:"heavy_window_size"`         // tokens of a heavy window; 0: LightWindowSize
	HeavyDimHead           int            `json:"heavy_dim_head"`            // 1 to 128; even with RotaryEmb
	HeavyHeads             int            `json:"heavy_heads"`               // at least 1
	RotaryEmb              bool           `json:"rotary_emb"`                // rotary position embedding of heavy queries and keys
	LightRotaryEmb         bool           `json:"light_rotary_emb"`          // the same of light queries and keys, which the colt5-attention package does not have
	RouterStraightThrough  bool           `json:"router_straight_through"`   // a selected token scores 1, not its soft score
	MultiplyKeysByScore    bool           `json:"multiply_keys_by_score"`    // heavy keys too, not only values
	MultiplyQueriesByScore bool           `json:"multiply_queries_by_score"` // heavy queries too, not only their outputs
	UseNullQTokens         bool           `json:"use_null_q_tokens"`         // tokens not selected as queries get a learned token; false: 0
	Router                 RouterSettings `json:"router_kwargs"`             // RouteBlockSize must be 0
	Precision              DType          `json:"precision"`                 // of the matrix products: F32 (the default), F16 or BF16

	// CausalQueryRouting makes the selection of queries causal: a token is a query if its logit reaches the
	// NumHeavyTokensQ-th largest logit of the previous window; the first NumHeavyTokensQ such tokens of a window are
	// taken. Without it the selection of queries depends on all tokens of the window; keys and values never depend on
	// later windows. It requires RouterStraightThrough.
	CausalQueryRouting bool `json:"causal_query_routing"`
}

func (c *ConditionalRoutedAutoregressiveAttentionConfig) setDefaults() {
	*c = ConditionalRoutedAutoregressiveAttentionConfig{
		NumRoutedKV: 1, LightDimHead: 64, LightHeads: 8, LightWindowSize: 128, HeavyDimHead: 64, HeavyHeads: 8,
		RouterStraightThrough: true, UseNullQTokens: true, Router: Default[RouterSettings](),
	}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedAutoregressiveAttentionConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c ConditionalRoutedAutoregressiveAttentionConfig) check(k checker) error {
	if c.CausalQueryRouting && !c.RouterStraightThrough {
		return k.errorf("CausalQueryRouting", "is true and RouterStraightThrough false, want both")
	}
	return firstError(
		k.dim("Dim", c.Dim), k.atLeast("NumHeavyTokensQ", c.NumHeavyTokensQ, 1), k.atLeast("NumHeavyTokensKV", c.NumHeavyTokensKV, 1),
		k.heads("Light", c.LightHeads, c.LightDimHead), k.evenHeads("LightDimHead", c.LightDimHead, "LightRotaryEmb", c.LightRotaryEmb),
		k.window("LightWindowSize", c.LightWindowSize), k.atLeast("HeavyWindowSize", c.HeavyWindowSize, 0), k.heavy("Heavy", c.heavy(), "NumRoutedKV", c.NumRoutedKV),
		c.Router.check(k.in("Router.")), k.mustBeZero("Router.RouteBlockSize", c.Router.RouteBlockSize, "windows route on their own"),
	)
}

func (c ConditionalRoutedAutoregressiveAttentionConfig) heavy() heavyConfig {
	return heavyConfig{c.Dim, c.HeavyDimHead, c.HeavyHeads, c.RotaryEmb, c.MultiplyKeysByScore, c.MultiplyQueriesByScore}
}

func (c ConditionalRoutedAutoregressiveAttentionConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedAutoregressiveAttentionConfig) build(w *weights) layer {
	return w.autoregressiveAttention("", c)
}

// window is the size of a heavy window.
func (c ConditionalRoutedAutoregressiveAttentionConfig) window() int {
	if c.HeavyWindowSize > 0 {
		return c.HeavyWindowSize
	}
	return c.LightWindowSize
}

// ConditionalRoutedAutoregressiveAttention lets every token attend to earlier tokens of its own block and of the block
// before (light branch). In each heavy window but the first, the tokens that one router selects also attend to the
// tokens that another router selects from all earlier windows (heavy branch).
//
//	x, y [B, N, C] F32
//	y = light_attn(x) + scatter(heavy_attn(tokens of q_router in window m, tokens of kv_router in windows < m) * score)
//
// A token that is not selected as a query gets the null query token; in the first window, which has no queries, it gets
// 0. A sequence not longer than a heavy window has the light branch only. Source: arXiv 2303.09752; the autoregressive
// form follows the colt5-attention package.
type ConditionalRoutedAutoregressiveAttention struct {
	module[ConditionalRoutedAutoregressiveAttentionConfig]
}

// AutoregressiveOptions are the optional arguments of ConditionalRoutedAutoregressiveAttention.Forward and
// AutoregressiveTransformer.Forward.
type AutoregressiveOptions struct {
	NumHeavyTokensQ  int // 0: the configuration's
	NumHeavyTokensKV int // 0: the configuration's

	// RandomSeed, if not 0, routes at random: logits from this seed instead of the dot products, for each router others. The
	// windows of an item share the logits of keys and values; each sees the prefix before it. Static selects evenly spaced
	// tokens: of n tokens, the i-th of k is number floor(i * n / k). In both every selected token scores 1, and routers get no
	// gradient. These are control experiments.
	RandomSeed uint64
	Static     bool

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedAutoregressiveAttention makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedAutoregressiveAttention(ctx context.Context, dev *vk.Device, c ConditionalRoutedAutoregressiveAttentionConfig) (*ConditionalRoutedAutoregressiveAttention, error) {
	m, err := newModule(ctx, "ConditionalRoutedAutoregressiveAttention", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedAutoregressiveAttention{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C]. The two share no memory.
func (a *ConditionalRoutedAutoregressiveAttention) Forward(ctx context.Context, y, x *Tensor, o AutoregressiveOptions) error {
	c := o.call(a.config, sequenceArgs(y, x, nil, a.config.Dim))
	return a.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (a *ConditionalRoutedAutoregressiveAttention) Prepare(ctx context.Context, y, x *Tensor, o AutoregressiveOptions) error {
	c := o.call(a.config, sequenceArgs(y, x, nil, a.config.Dim))
	return a.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *ConditionalRoutedAutoregressiveAttention) Close() error { return closeModule(a) }

// Memory predicts what a call with x [b, n, C] needs on a device with these capabilities.
func (c ConditionalRoutedAutoregressiveAttentionConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return AutoregressiveOptions{}.call(c, sequenceArgs(nil, nil, nil, c.Dim)).measure(
		"ConditionalRoutedAutoregressiveAttention", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

// call is the call of an autoregressive attention, or of a stack of them.
func (o AutoregressiveOptions) call(c ConditionalRoutedAutoregressiveAttentionConfig, args args) call {
	return call{
		args:   args,
		counts: [maxCounts]tokenCount{{"NumHeavyTokensQ", o.NumHeavyTokensQ, c.NumHeavyTokensQ}, {"NumHeavyTokensKV", o.NumHeavyTokensKV, c.NumHeavyTokensKV}},
		stats:  o.Stats, routing: o.Routing, randomSeed: o.RandomSeed, static: o.Static,
	}
}

// autoregressiveAttention is the weights and the steps of a ConditionalRoutedAutoregressiveAttention.
type autoregressiveAttention struct {
	config                         ConditionalRoutedAutoregressiveAttentionConfig
	qRoutingToken, kvRoutingTokens *Tensor
	null                           *Tensor // [C]; nil: none
	light                          windowAttention
	heavy                          heavyAttention
	budget                         int // bytes of workspace of the light branch; lightBytes except in tests
}

func (w *weights) autoregressiveAttention(prefix string, c ConditionalRoutedAutoregressiveAttentionConfig) *autoregressiveAttention {
	a := &autoregressiveAttention{config: c, budget: lightBytes}
	a.qRoutingToken = w.routingToken(prefix+"q_router.routing_token", 1, c.Dim, c.Router)
	a.kvRoutingTokens = w.routingToken(prefix+"kv_router.routing_token", c.NumRoutedKV, c.Dim, c.Router)
	a.light = w.windowAttention(prefix+"light_attn.", lightConfig{
		dim: c.Dim, dimHead: c.LightDimHead, heads: c.LightHeads, window: c.LightWindowSize, causal: true, rotary: c.LightRotaryEmb,
	})
	a.heavy = w.heavyAttention(prefix+"heavy_attn", c.heavy())
	if c.UseNullQTokens {
		a.null = w.add(prefix+"null_q_token", gaussian(1), c.Dim)
	}
	return a
}

// record records the layer as a module of its own.
func (l *autoregressiveAttention) record(b *builder) {
	b.nextLayer()
	l.forward(b, attentionInput{attentionSizes: attentionSizesOf(b), y: b.arg("y"), x: b.arg("x")})
}

// forward records the layer. Query and key lists are numbered by window. Those of the first window are empty.
func (l *autoregressiveAttention) forward(b *builder, a attentionInput) {
	c, window := l.config, l.config.window()
	if a.n <= window {
		recordInterleaved(l.light.phases(lightOutput{b: b, x: a.x, y: a.y, residual: a.residual}, vk.Range{}, a.b, a.n, l.budget))
		return
	}
	q, kv := l.routers(a)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: a.x, context: a.x, q: q, kv: kv, projectAllKeys: true}
	out := unselectedRows{b: b, q: q, y: a.y, x: a.x, null: l.null, dim: c.Dim, residual: a.residual, prefix: window}
	heavy := phases{func() { b.recordLogits(a.x, q, kv) }, func() {
		l.recordTopK(b, q, kv)
		out.recordMembershipMask()
		b.finishRouting(vk.Range{}, q)
		b.finishRouting(vk.Range{}, kv)
	}, h.projectInputs, h.rotate, h.attend}
	recordInterleaved(heavy, l.light.phases(out.lightOutput(), vk.Range{}, a.b, a.n, l.budget))
	out.release()
	h.project(a.y, a.y, true)
}

// routers makes the states of both routers.
func (l *autoregressiveAttention) routers(a attentionInput) (q, kv *routerState) {
	c := l.config
	q = newRouterState(a.name+"q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, l.queryRouting(a.attentionSizes), false)
	kv = newRouterState(a.name+"kv_router", l.kvRoutingTokens, c.Router, c.RouterStraightThrough, l.keyRouting(a.attentionSizes), false)
	return q, kv
}

// recordTopK records the lists of both routers.
func (l *autoregressiveAttention) recordTopK(b *builder, q, kv *routerState) {
	if l.config.CausalQueryRouting && q.routed && !b.call.static {
		l.recordCausalTopK(b, q)
	} else {
		b.recordRouterTopK(vk.Range{}, q)
	}
	b.recordRouterTopK(vk.Range{}, kv)
}

// queryRouting is the selection of the queries: each window but the first separately. Padding to a whole window is
// masked.
func (l *autoregressiveAttention) queryRouting(a attentionSizes) selectionShape {
	c, window := l.config, l.config.window()
	windows := (a.n + window - 1) / window
	s := selectionShape{b: a.b, n: a.n, r: 1, c: c.Dim, routed: window > a.tokensQ, block: window, perBlock: min(window, a.tokensQ), skipBlocks: 1, padLastBlock: true}
	s.k = windows * s.perBlock
	s.selectAllUpTo = s.perBlock
	s.kEff = float64(s.perBlock) * c.Router.FetchKRatio
	return s
}

// keyRouting is the selection of the keys and values of a window: from all earlier windows, with k_eff of the padded
// sequence.
func (l *autoregressiveAttention) keyRouting(a attentionSizes) selectionShape {
	c, window := l.config, l.config.window()
	windows := (a.n + window - 1) / window
	s := selectionShape{b: a.b, n: a.n, r: c.NumRoutedKV, c: c.Dim, routed: windows*window > a.tokensKV, block: windows * window, windows: windows, windowSize: window}
	s.perBlock, s.k = a.tokensKV, a.tokensKV
	s.kEff = float64(s.perBlock) * c.Router.FetchKRatio
	return s
}

// recordCausalTopK records the selection of the queries of a window by the threshold of the previous window.
func (l *autoregressiveAttention) recordCausalTopK(b *builder, q *routerState) {
	windowTopK := *q
	windowTopK.skipBlocks = 0 // the first window sets the threshold for the second
	windowTopK.values = b.floats(q.lists(), q.k)
	b.recordSelection(vk.Range{}, &windowTopK)
	q.indices, q.valid = b.floats(q.lists(), q.k), b.floats(q.lists(), q.k)
	if b.gradients != nil {
		q.thresholds = b.floats(q.lists(), q.blocks())
	}
	record(b, pipelines.NewCausalSelect, pipelines.CausalSelectConfig{}, pipelines.CausalSelectArgs{
		Logits: q.logits.Range, Values: windowTopK.values.Range, Valid: windowTopK.valid.Range, Indices: q.indices.Range, QueryValid: q.valid.Range, Thresholds: q.thresholds.Range,
		B: q.b, N: q.n, Window: q.block, K: q.perBlock,
	})
	b.release(windowTopK.values, windowTopK.indices, windowTopK.valid)
	if b.call.replay { // the thresholds stay those of the logits
		b.release(q.indices, q.valid)
		b.replayLists(q)
	}
}
