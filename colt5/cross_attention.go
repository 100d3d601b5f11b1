package colt5

import (
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedCrossAttentionConfig configures a ConditionalRoutedCrossAttention. Start from
// DefaultConditionalRoutedCrossAttentionConfig, zero values are not the defaults.
type ConditionalRoutedCrossAttentionConfig struct {
	Dim                   int           `json:"dim"`                     // C of x and context, at least 1
	NumTokensQ            int           `json:"num_tokens_q"`            // queries chosen from x, at least 1; a call may want others
	NumTokensKV           int           `json:"num_tokens_kv"`           // keys and values of a route chosen from context, at least 1; a call may want others
	DimHead               int           `json:"dim_head"`                // 1 to 128
	Heads                 int           `json:"heads"`                   // at least 1
	KVRoutingTokens       int           `json:"kv_routing_tokens"`       // R, routes of keys and values; a divisor of Heads
	RouteBlockSize        OptionalInt   `json:"route_block_size"`        // each block of so many context tokens routes on its own; 0: the whole context
	RouterStraightThrough bool          `json:"router_straight_through"` // a chosen token scores 1, not its soft score
	MultiplyKeysByScore   bool          `json:"multiply_keys_by_score"`  // keys too, not only values
	UseNullQTokens        bool          `json:"use_null_q_tokens"`       // what is no query gets a learned token; else 0
	Router                RouterOptions `json:"router_kwargs"`           // of both; RouteBlockSize is not used, the one above is
	Precision             DType         `json:"precision"`               // of the matrix products; Float32 is the default
}

// DefaultConditionalRoutedCrossAttentionConfig returns the reference's defaults; Dim and the numbers of tokens are left to the caller.
func DefaultConditionalRoutedCrossAttentionConfig() ConditionalRoutedCrossAttentionConfig {
	return ConditionalRoutedCrossAttentionConfig{
		DimHead: 64, Heads: 8, KVRoutingTokens: 1, RouterStraightThrough: true, UseNullQTokens: true, Router: DefaultRouterOptions(),
	}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *ConditionalRoutedCrossAttentionConfig) UnmarshalJSON(data []byte) error {
	type plain ConditionalRoutedCrossAttentionConfig
	*c = DefaultConditionalRoutedCrossAttentionConfig()
	return decode("ConditionalRoutedCrossAttentionConfig", data, (*plain)(c))
}

func (c ConditionalRoutedCrossAttentionConfig) check(op string) error {
	return firstError(
		atLeast(op, "Dim", c.Dim, 1), atLeast(op, "NumTokensQ", c.NumTokensQ, 1), atLeast(op, "NumTokensKV", c.NumTokensKV, 1),
		checkHeavy(op, "", c.heavy(), "KVRoutingTokens", c.KVRoutingTokens), atLeast(op, "RouteBlockSize", int(c.RouteBlockSize), 0), c.Router.check(op),
		zero(op, "Router.RouteBlockSize", int(c.Router.RouteBlockSize), "use the config's own RouteBlockSize"),
	)
}

func (c ConditionalRoutedCrossAttentionConfig) heavy() heavyConfig {
	return heavyConfig{dim: c.Dim, dimHead: c.DimHead, heads: c.Heads, multiplyKeys: c.MultiplyKeysByScore}
}

// ConditionalRoutedCrossAttention lets the tokens of x that a router chooses attend to the tokens that another router chooses from a long
// context: 1,024 queries over a million memories, for example.
//
//	x, y [B, N, C] F32    mask [B, N] U8    context [B, M, C] F32    context mask [B, M] U8
//	y = scatter(heavy_attn(tokens of q_router from x, tokens of kv_router from context) * score)
//
// A token that is no query, a masked one for example, gets the null query token. There is no light branch and no residual.
type ConditionalRoutedCrossAttention struct {
	module
	config ConditionalRoutedCrossAttentionConfig
	layer  crossAttention
}

// CrossAttentionOptions are the optional arguments of a ConditionalRoutedCrossAttention.
type CrossAttentionOptions struct {
	Mask        *Tensor // [B, N] U8; nil: all tokens of x are real
	ContextMask *Tensor // [B, M] U8; nil: all tokens of the context are real
	NumTokensQ  int     // 0: the config's
	NumTokensKV int     // 0: the config's
}

// NewConditionalRoutedCrossAttention makes the module on a device, with initial values of seed 0.
func NewConditionalRoutedCrossAttention(dev *vk.Device, c ConditionalRoutedCrossAttentionConfig) (*ConditionalRoutedCrossAttention, error) {
	a := &ConditionalRoutedCrossAttention{config: c}
	err := a.start("ConditionalRoutedCrossAttention", dev, c.Precision, c.check, func(w *weights) { a.layer = w.crossAttention(c) })
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Config is what the module was made with.
func (a *ConditionalRoutedCrossAttention) Config() ConditionalRoutedCrossAttentionConfig {
	return a.config
}

// Forward computes y [B, N, C] from x [B, N, C] and context [B, M, C]; y shares no memory with them.
func (a *ConditionalRoutedCrossAttention) Forward(y, x, context *Tensor, o CrossAttentionOptions) error {
	const op = "ConditionalRoutedCrossAttention.Forward"
	a.mu.Lock()
	defer a.mu.Unlock()
	tensors := [...]*Tensor{y, x, o.Mask, context, o.ContextMask}
	p, err := a.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return a.run(op, p, tensors[:])
}

func (a *ConditionalRoutedCrossAttention) prepared(op string, tensors []*Tensor, o CrossAttentionOptions) (*plan, error) {
	if a.closed {
		return nil, errClosed(op)
	}
	b, n, err := sequences(op, a.dev, tensors, a.config.Dim)
	if err != nil {
		return nil, err
	}
	context := tensors[3]
	if err := context.want(op, "context", a.dev, F32, b, -1, a.config.Dim); err != nil {
		return nil, err
	}
	s := crossSizes{b: b, n: n, m: context.shape[1], masked: o.Mask != nil, contextMasked: o.ContextMask != nil}
	if err := o.ContextMask.optional(op, "ContextMask", a.dev, U8, b, s.m); err != nil {
		return nil, err
	}
	if s.tokensQ, err = checkTokens(op, "NumTokensQ", o.NumTokensQ, a.config.NumTokensQ); err != nil {
		return nil, err
	}
	if s.tokensKV, err = checkTokens(op, "NumTokensKV", o.NumTokensKV, a.config.NumTokensKV); err != nil {
		return nil, err
	}
	key := planKey{sizes: [6]int{b, n, s.m, s.tokensQ, s.tokensKV}, given: [2]bool{s.masked, s.contextMasked}}
	if p := a.find(&key); p != nil {
		return p, nil
	}
	return a.plan(op, key, tensors, s)
}

func (a *ConditionalRoutedCrossAttention) plan(op string, key planKey, tensors []*Tensor, s crossSizes) (*plan, error) {
	return a.prepare(op, key, tensors, []string{"y", "x", "Mask", "context", "ContextMask"}, func(b *builder) { a.layer.forward(b, s) })
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (a *ConditionalRoutedCrossAttention) Close() error {
	if a == nil {
		return nil
	}
	return a.close()
}

// Memory tells what a call for x [b, n, C] and context [b, m, C] needs of a device with these capabilities, without a mask.
func (c ConditionalRoutedCrossAttentionConfig) Memory(caps vk.Caps, b, n, m int) (Memory, error) {
	const op = "ConditionalRoutedCrossAttentionConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n), checkSizes(op, b, m)); err != nil {
		return Memory{}, err
	}
	var layer crossAttention
	row := 4 * uint64(b) * uint64(c.Dim)
	return measure(op, caps, c.Precision, row*uint64(n+m), row*uint64(n), func(w *weights) { layer = w.crossAttention(c) }, func(to *builder) {
		layer.forward(to, crossSizes{b: b, n: n, m: m, tokensQ: c.NumTokensQ, tokensKV: c.NumTokensKV})
	})
}

// crossAttention is the weights and the wiring of a ConditionalRoutedCrossAttention.
type crossAttention struct {
	config          ConditionalRoutedCrossAttentionConfig
	qToken, kvToken *Tensor
	null            *Tensor // [C]; nil: none
	heavy           heavyAttention
}

func (w *weights) crossAttention(c ConditionalRoutedCrossAttentionConfig) crossAttention {
	a := crossAttention{config: c}
	a.qToken = w.routingToken("q_router.routing_token", 1, c.Dim, c.Router)
	a.kvToken = w.routingToken("kv_router.routing_token", c.KVRoutingTokens, c.Dim, c.Router)
	a.heavy = w.heavyAttention("heavy_attn", c.heavy())
	if c.UseNullQTokens {
		a.null = w.add("null_q_token", gaussian(1), c.Dim)
	}
	return a
}

// crossSizes are the sizes of a call.
type crossSizes struct {
	b, n, m               int
	tokensQ, tokensKV     int
	masked, contextMasked bool
}

func (l *crossAttention) forward(b *builder, s crossSizes) {
	c := l.config
	y, x, mask, context, contextMask := b.slot(0), b.slot(1), b.slot(2), b.slot(3), b.slot(4)
	blocks := c.Router
	blocks.RouteBlockSize = c.RouteBlockSize
	q := newRouterState("q_router", l.qToken, c.Router, c.RouterStraightThrough, c.Router.routing(s.b, s.n, 1, c.Dim, s.tokensQ), s.masked)
	kv := newRouterState("kv_router", l.kvToken, blocks, c.RouterStraightThrough,
		blocks.routing(s.b, s.m, c.KVRoutingTokens, c.Dim, s.tokensKV), s.contextMasked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: context, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, y: y, null: l.null, dim: c.Dim}
	recordInterleaved(h.phases(mask, contextMask, func() {}), phases{func() {}, func() {}, out.recordAlone})
	h.finish(y, vk.Range{}, false)
}
