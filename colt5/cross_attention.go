package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedCrossAttentionConfig configures a ConditionalRoutedCrossAttention. Start from
// Default[ConditionalRoutedCrossAttentionConfig]: zero values are not the defaults.
type ConditionalRoutedCrossAttentionConfig struct {
	Dim                   int            `json:"dim"`                     // C of x and context, at least 1
	NumTokensQ            int            `json:"num_tokens_q"`            // queries selected from x, at least 1; the default of a call
	NumTokensKV           int            `json:"num_tokens_kv"`           // keys and values of a route, selected from context, at least 1; the default of a call
	DimHead               int            `json:"dim_head"`                // 1 to 128
	Heads                 int            `json:"heads"`                   // at least 1
	KVRoutingTokens       int            `json:"kv_routing_tokens"`       // R, routes of keys and values; a divisor of Heads
	RouteBlockSize        int            `json:"route_block_size"`        // each block of so many context tokens routes on its own; 0: the whole context
	RouterStraightThrough bool           `json:"router_straight_through"` // a selected token scores 1, not its soft score
	MultiplyKeysByScore   bool           `json:"multiply_keys_by_score"`  // keys too, not only values
	UseNullQTokens        bool           `json:"use_null_q_tokens"`       // tokens not selected as queries get a learned token; false: 0
	Router                RouterSettings `json:"router_kwargs"`           // of both; its RouteBlockSize must be 0: the field above is used
	Precision             DType          `json:"precision"`               // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedCrossAttentionConfig) setDefaults() {
	*c = ConditionalRoutedCrossAttentionConfig{
		DimHead: 64, Heads: 8, KVRoutingTokens: 1, RouterStraightThrough: true, UseNullQTokens: true, Router: Default[RouterSettings](),
	}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedCrossAttentionConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c ConditionalRoutedCrossAttentionConfig) check(k checker) error {
	return firstError(
		k.dim("Dim", c.Dim), k.atLeast("NumTokensQ", c.NumTokensQ, 1), k.atLeast("NumTokensKV", c.NumTokensKV, 1),
		k.heavy("", c.heavy(), "KVRoutingTokens", c.KVRoutingTokens), k.atLeast("RouteBlockSize", c.RouteBlockSize, 0), c.Router.check(k.in("Router.")),
		k.mustBeZero("Router.RouteBlockSize", c.Router.RouteBlockSize, "use the config's own RouteBlockSize"),
	)
}

func (c ConditionalRoutedCrossAttentionConfig) heavy() heavyConfig {
	return heavyConfig{dim: c.Dim, dimHead: c.DimHead, heads: c.Heads, multiplyKeys: c.MultiplyKeysByScore}
}

func (c ConditionalRoutedCrossAttentionConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedCrossAttentionConfig) build(w *weights) layer { return w.crossAttention(c) }

// ConditionalRoutedCrossAttention lets the tokens of x that a router selects attend to the tokens that another router
// selects from a long context: 1,024 queries over a million context tokens, for example.
//
//	x, y [B, N, C] f32    mask [B, N] u8    context [B, M, C] F32    context mask [B, M] U8
//	y = scatter(heavy_attn(tokens of q_router from x, tokens of kv_router from context) * score)
//
// A token that is not selected as a query, such as a masked one, gets the null query token. There is no light branch
// and no residual.
type ConditionalRoutedCrossAttention struct {
	module[ConditionalRoutedCrossAttentionConfig]
}

// CrossAttentionOptions are the optional arguments of ConditionalRoutedCrossAttention.Forward.
type CrossAttentionOptions struct {
	Mask        *Tensor // [B, N] u8, 1 for a real token of x; nil: all are real
	ContextMask *Tensor // [B, M] u8, 1 for a real token of the context; nil: all are real
	NumTokensQ  int     // 0: the configuration's
	NumTokensKV int     // 0: the configuration's

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedCrossAttention makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedCrossAttention(ctx context.Context, dev *vk.Device, c ConditionalRoutedCrossAttentionConfig) (*ConditionalRoutedCrossAttention, error) {
	m, err := newModule(ctx, "ConditionalRoutedCrossAttention", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedCrossAttention{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C] and context [B, M, C]. y shares no memory with them.
func (a *ConditionalRoutedCrossAttention) Forward(ctx context.Context, y, x, context *Tensor, o CrossAttentionOptions) error {
	c := a.config.call(y, x, context, o)
	return a.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (a *ConditionalRoutedCrossAttention) Prepare(ctx context.Context, y, x, context *Tensor, o CrossAttentionOptions) error {
	c := a.config.call(y, x, context, o)
	return a.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *ConditionalRoutedCrossAttention) Close() error { return closeModule(a) }

// Memory predicts what a call with x [b, n, C], context [b, m, C] and no masks needs on a device with these
// capabilities.
func (c ConditionalRoutedCrossAttentionConfig) Memory(caps vk.Caps, b, n, m int) (Memory, error) {
	return c.call(nil, nil, nil, CrossAttentionOptions{}).measure(
		"ConditionalRoutedCrossAttention", caps, c, dimSize{dimB, b}, dimSize{dimN, n}, dimSize{dimM, m})
}

func (c ConditionalRoutedCrossAttentionConfig) call(y, x, context *Tensor, o CrossAttentionOptions) call {
	args := sequenceArgs(y, x, o.Mask, c.Dim)
	args[3] = arg{name: "context", tensor: context, shape: shape{dimB, dimM, c.Dim}}
	args[4] = arg{name: "ContextMask", tensor: o.ContextMask, dtype: U8, shape: shape{dimB, dimM}, kind: optionalInput}
	return call{
		args:   args,
		counts: [maxCounts]tokenCount{{"NumTokensQ", o.NumTokensQ, c.NumTokensQ}, {"NumTokensKV", o.NumTokensKV, c.NumTokensKV}},
		stats:  o.Stats, routing: o.Routing,
	}
}

// crossAttention is the weights and the steps of a ConditionalRoutedCrossAttention.
type crossAttention struct {
	config                         ConditionalRoutedCrossAttentionConfig
	qRoutingToken, kvRoutingTokens *Tensor
	null                           *Tensor // [C]; nil: none
	heavy                          heavyAttention
}

func (w *weights) crossAttention(c ConditionalRoutedCrossAttentionConfig) *crossAttention {
	a := &crossAttention{config: c}
	a.qRoutingToken = w.routingToken("q_router.routing_token", 1, c.Dim, c.Router)
	a.kvRoutingTokens = w.routingToken("kv_router.routing_token", c.KVRoutingTokens, c.Dim, c.Router)
	a.heavy = w.heavyAttention("heavy_attn", c.heavy())
	if c.UseNullQTokens {
		a.null = w.add("null_q_token", gaussian(1), c.Dim)
	}
	return a
}

func (l *crossAttention) record(b *builder) {
	b.nextLayer()
	y, x, mask, context, contextMask := b.arg("y"), b.arg("x"), b.arg("Mask"), b.arg("context"), b.arg("ContextMask")
	q, kv := l.routers(b)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: context, q: q, kv: kv}
	rest := unselectedRows{b: b, q: q, y: y, null: l.null, dim: l.config.Dim}
	recordInterleaved(h.phases(mask, contextMask, func() {}), phases{func() {}, func() {}, rest.recordWithoutLight})
	h.project(y, vk.Range{}, false)
}

// routers makes the states of both routers.
func (l *crossAttention) routers(b *builder) (q, kv *routerState) {
	c, items, n, m := l.config, b.dim(dimB), b.dim(dimN), b.dim(dimM)
	kvOptions := c.Router
	kvOptions.RouteBlockSize = c.RouteBlockSize
	qRouting := c.Router.selectionShape(items, n, 1, c.Dim, b.tokenCount("NumTokensQ"))
	kvRouting := kvOptions.selectionShape(items, m, c.KVRoutingTokens, c.Dim, b.tokenCount("NumTokensKV"))
	q = newRouterState("q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, qRouting, b.given("Mask"))
	kv = newRouterState("kv_router", l.kvRoutingTokens, kvOptions, c.RouterStraightThrough, kvRouting, b.given("ContextMask"))
	return q, kv
}
