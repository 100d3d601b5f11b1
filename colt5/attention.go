package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedAttentionConfig configures a ConditionalRoutedAttention. Start from
// Default[ConditionalRoutedAttentionConfig]: zero values are not the defaults.
type ConditionalRoutedAttentionConfig struct {
	Dim                    int            `json:"dim"`                       // C, at least 1
	NumHeavyTokensQ        int            `json:"num_heavy_tokens_q"`        // queries of the heavy branch, at least 1; the default of a call
	NumHeavyTokensKV       int            `json:"num_heavy_tokens_kv"`       // keys and values of a route, at least 1; the default of a call
	NumRoutedKV            int            `json:"num_routed_kv"`             // R, routes of keys and values; a divisor of HeavyHeads
	LightDimHead           int            `json:"light_dim_head"`            // 1 to 128
	LightHeads             int            `json:"light_heads"`               // at least 1
	LightWindowSize        int            `json:"light_window_size"`         // a token attends to half as many tokens on each side; even, at least 2
	HeavyDimHead           int            `json:"heavy_dim_head"`            // 1 to 128; even with RotaryEmb
	HeavyHeads             int            `json:"heavy_heads"`               // at least 1
	HasLightAttn           bool           `json:"has_light_attn"`            // false: the heavy branch alone
	RotaryEmb              bool           `json:"rotary_emb"`                // rotary position embedding of heavy queries and keys
	RouterStraightThrough  bool           `json:"router_straight_through"`   // a selected token scores 1, not its soft score
	MultiplyKeysByScore    bool           `json:"multiply_keys_by_score"`    // heavy keys too, not only values
	MultiplyQueriesByScore bool           `json:"multiply_queries_by_score"` // heavy queries too, not only their outputs
	UseNullQTokens         bool           `json:"use_null_q_tokens"`         // tokens not selected as queries get a learned token; false: 0
	Router                 RouterSettings `json:"router_kwargs"`
	Precision              DType          `json:"precision"` // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedAttentionConfig) setDefaults() {
	*c = ConditionalRoutedAttentionConfig{
		NumRoutedKV: 1, LightDimHead: 64, LightHeads: 8, LightWindowSize: 128, HeavyDimHead: 64, HeavyHeads: 8, HasLightAttn: true,
		RouterStraightThrough: true, UseNullQTokens: true, Router: Default[RouterSettings](),
	}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedAttentionConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c ConditionalRoutedAttentionConfig) check(k checker) error {
	if err := firstError(
		k.dim("Dim", c.Dim), k.atLeast("NumHeavyTokensQ", c.NumHeavyTokensQ, 1), k.atLeast("NumHeavyTokensKV", c.NumHeavyTokensKV, 1),
		k.heavy("Heavy", c.heavy(), "NumRoutedKV", c.NumRoutedKV), c.Router.check(k.in("Router.")),
	); err != nil || !c.HasLightAttn {
		return err
	}
	return firstError(k.heads("Light", c.LightHeads, c.LightDimHead), k.halved("LightWindowSize", c.LightWindowSize))
}

func (c ConditionalRoutedAttentionConfig) heavy() heavyConfig {
	return heavyConfig{c.Dim, c.HeavyDimHead, c.HeavyHeads, c.RotaryEmb, c.MultiplyKeysByScore, c.MultiplyQueriesByScore}
}

func (c ConditionalRoutedAttentionConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedAttentionConfig) build(w *weights) layer { return w.routedAttention("", c) }

// ConditionalRoutedAttention lets every token attend to its neighbourhood (light branch). The tokens that one router
// selects also attend to the tokens that another router selects from the whole sequence (heavy branch).
//
//	x, y [B, N, C] f32    mask [B, N] u8
//	y = light_attn(x) + scatter(heavy_attn(tokens of q_router, tokens of kv_router) * score)
//
// A token that is not selected as a query, such as a masked one, gets the null query token instead of a heavy output.
// With N at most the number of heavy tokens, all real tokens are selected. Source: arXiv 2303.09752, section 3.
type ConditionalRoutedAttention struct {
	module[ConditionalRoutedAttentionConfig]
}

// AttentionOptions are the optional arguments of ConditionalRoutedAttention.Forward.
type AttentionOptions struct {
	Mask             *Tensor // [B, N] u8, 1 for a real token; nil: all tokens are real
	NumHeavyTokensQ  int     // 0: the configuration's
	NumHeavyTokensKV int     // 0: the configuration's

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedAttention makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedAttention(ctx context.Context, dev *vk.Device, c ConditionalRoutedAttentionConfig) (*ConditionalRoutedAttention, error) {
	m, err := newModule(ctx, "ConditionalRoutedAttention", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedAttention{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C]. The two share no memory.
func (a *ConditionalRoutedAttention) Forward(ctx context.Context, y, x *Tensor, o AttentionOptions) error {
	c := a.config.call(y, x, o)
	return a.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (a *ConditionalRoutedAttention) Prepare(ctx context.Context, y, x *Tensor, o AttentionOptions) error {
	c := a.config.call(y, x, o)
	return a.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *ConditionalRoutedAttention) Close() error { return closeModule(a) }

// Memory predicts what a call with x [b, n, C] and no mask needs on a device with these capabilities.
func (c ConditionalRoutedAttentionConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, AttentionOptions{}).measure("ConditionalRoutedAttention", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c ConditionalRoutedAttentionConfig) call(y, x *Tensor, o AttentionOptions) call {
	return call{
		args:   sequenceArgs(y, x, o.Mask, c.Dim),
		counts: [maxCounts]tokenCount{{"NumHeavyTokensQ", o.NumHeavyTokensQ, c.NumHeavyTokensQ}, {"NumHeavyTokensKV", o.NumHeavyTokensKV, c.NumHeavyTokensKV}},
		stats:  o.Stats, routing: o.Routing,
	}
}

// routedAttention is the weights and the steps of a ConditionalRoutedAttention.
type routedAttention struct {
	config                         ConditionalRoutedAttentionConfig
	qRoutingToken, kvRoutingTokens *Tensor
	null                           *Tensor // [C]; nil: none
	light                          windowAttention
	heavy                          heavyAttention
	budget                         int // bytes of workspace of the light branch; lightBytes except in tests
}

func (w *weights) routedAttention(prefix string, c ConditionalRoutedAttentionConfig) *routedAttention {
	a := &routedAttention{config: c, budget: lightBytes}
	a.qRoutingToken = w.routingToken(prefix+"q_router.routing_token", 1, c.Dim, c.Router)
	a.kvRoutingTokens = w.routingToken(prefix+"kv_router.routing_token", c.NumRoutedKV, c.Dim, c.Router)
	if c.HasLightAttn {
		a.light = w.windowAttention(prefix+"light_attn.", lightConfig{dim: c.Dim, dimHead: c.LightDimHead, heads: c.LightHeads, window: c.LightWindowSize / 2})
	}
	a.heavy = w.heavyAttention(prefix+"heavy_attn", c.heavy())
	if c.UseNullQTokens {
		a.null = w.add(prefix+"null_q_token", gaussian(1), c.Dim)
	}
	return a
}

// attentionSizes are the sizes of a call.
type attentionSizes struct {
	b, n              int
	tokensQ, tokensKV int
	masked            bool
}

// attentionInput is the input of a routed attention.
type attentionInput struct {
	attentionSizes
	name       string   // prefix of its routers' names
	y, x, mask vk.Range // y shares no memory with x
	residual   bool     // add x
}

// record records the layer as a module of its own.
func (l *routedAttention) record(b *builder) {
	b.nextLayer()
	l.forward(b, attentionInput{
		attentionSizes: attentionSizesOf(b), y: b.arg("y"), x: b.arg("x"), mask: b.arg("Mask"),
	})
}

func attentionSizesOf(b *builder) attentionSizes {
	return attentionSizes{
		b: b.dim(dimB), n: b.dim(dimN), tokensQ: b.tokenCount("NumHeavyTokensQ"), tokensKV: b.tokenCount("NumHeavyTokensKV"), masked: b.given("Mask"),
	}
}

// forward records the layer.
func (l *routedAttention) forward(b *builder, a attentionInput) {
	c := l.config
	q := newRouterState(a.name+"q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, 1, c.Dim, a.tokensQ), a.masked)
	kv := newRouterState(a.name+"kv_router", l.kvRoutingTokens, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, c.NumRoutedKV, c.Dim, a.tokensKV), a.masked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: a.x, context: a.x, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, y: a.y, x: a.x, null: l.null, dim: c.Dim, residual: a.residual}
	heavy := h.phases(a.mask, a.mask, out.recordMembershipMask)
	if !c.HasLightAttn {
		recordInterleaved(heavy)
		out.recordWithoutLight()
		h.project(a.y, a.x, a.residual)
		return
	}
	recordInterleaved(heavy, l.light.phases(out.lightOutput(), a.mask, a.b, a.n, l.budget))
	out.release()
	h.project(a.y, a.y, true)
}
