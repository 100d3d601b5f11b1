package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedAttentionConfig configures a ConditionalRoutedAttention. Start from Default[ConditionalRoutedAttentionConfig], zero
// values are not the defaults.
type ConditionalRoutedAttentionConfig struct {
	Dim                    int           `json:"dim"`                       // C, at least 1
	NumHeavyTokensQ        int           `json:"num_heavy_tokens_q"`        // queries of the heavy branch, at least 1; a call may want others
	NumHeavyTokensKV       int           `json:"num_heavy_tokens_kv"`       // keys and values of a route, at least 1; a call may want others
	NumRoutedKV            int           `json:"num_routed_kv"`             // R, routes of keys and values; a divisor of HeavyHeads
	LightDimHead           int           `json:"light_dim_head"`            // 1 to 128
	LightHeads             int           `json:"light_heads"`               // at least 1
	LightWindowSize        int           `json:"light_window_size"`         // a token sees half as many to either side; even, at least 2
	HeavyDimHead           int           `json:"heavy_dim_head"`            // 1 to 128; even with RotaryEmb
	HeavyHeads             int           `json:"heavy_heads"`               // at least 1
	HasLightAttn           bool          `json:"has_light_attn"`            // false: the heavy branch alone
	RotaryEmb              bool          `json:"rotary_emb"`                // turn heavy queries and keys by their positions
	RouterStraightThrough  bool          `json:"router_straight_through"`   // a chosen token scores 1, not its soft score
	MultiplyKeysByScore    bool          `json:"multiply_keys_by_score"`    // heavy keys too, not only values
	MultiplyQueriesByScore bool          `json:"multiply_queries_by_score"` // heavy queries too, not only their outputs
	UseNullQTokens         bool          `json:"use_null_q_tokens"`         // what is no query gets a learned token; else 0
	Router                 RouterOptions `json:"router_kwargs"`
	Precision              DType         `json:"precision"` // of the matrix products; Float32 is the default
}

func (c *ConditionalRoutedAttentionConfig) setDefaults() {
	*c = ConditionalRoutedAttentionConfig{
		NumRoutedKV: 1, LightDimHead: 64, LightHeads: 8, LightWindowSize: 128, HeavyDimHead: 64, HeavyHeads: 8, HasLightAttn: true,
		RouterStraightThrough: true, UseNullQTokens: true, Router: Default[RouterOptions](),
	}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *ConditionalRoutedAttentionConfig) UnmarshalJSON(data []byte) error {
	type plain ConditionalRoutedAttentionConfig
	*c = Default[ConditionalRoutedAttentionConfig]()
	return decode("ConditionalRoutedAttentionConfig", data, (*plain)(c))
}

func (c ConditionalRoutedAttentionConfig) check(op string) error {
	if err := firstError(
		atLeast(op, "Dim", c.Dim, 1), atLeast(op, "NumHeavyTokensQ", c.NumHeavyTokensQ, 1), atLeast(op, "NumHeavyTokensKV", c.NumHeavyTokensKV, 1),
		checkHeavy(op, "Heavy", c.heavy(), "NumRoutedKV", c.NumRoutedKV), c.Router.check(op),
	); err != nil || !c.HasLightAttn {
		return err
	}
	return firstError(checkHeads(op, "Light", c.LightHeads, c.LightDimHead), checkHalved(op, "LightWindowSize", c.LightWindowSize))
}

func (c ConditionalRoutedAttentionConfig) heavy() heavyConfig {
	return heavyConfig{c.Dim, c.HeavyDimHead, c.HeavyHeads, c.RotaryEmb, c.MultiplyKeysByScore, c.MultiplyQueriesByScore}
}

func (c ConditionalRoutedAttentionConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedAttentionConfig) build(w *weights) layer {
	l := w.routedAttention("", c)
	return &l
}

// ConditionalRoutedAttention lets every token attend to its neighbourhood, and the tokens that a router chooses attend to those that
// another router chooses from the whole sequence.
//
//	x, y [B, N, C] F32    mask [B, N] U8
//	y = light_attn(x) + scatter(heavy_attn(tokens of q_router, tokens of kv_router) * score)
//
// A token that is no query, a masked one for example, gets the null query token instead of a heavy output. With N not above the
// number of heavy tokens, all real tokens are chosen. Source: arXiv 2303.09752, section 3.
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

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *ConditionalRoutedAttention) Close() error {
	if a == nil {
		return nil
	}
	return a.close()
}

// Memory predicts what a call with x [b, n, C] and no mask needs on a device with these capabilities.
func (c ConditionalRoutedAttentionConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, AttentionOptions{}).measure("ConditionalRoutedAttention", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c ConditionalRoutedAttentionConfig) call(y, x *Tensor, o AttentionOptions) call {
	return call{
		args:   sequenceArgs(y, x, o.Mask, c.Dim),
		counts: [maxCounts]count{{"NumHeavyTokensQ", o.NumHeavyTokensQ, c.NumHeavyTokensQ}, {"NumHeavyTokensKV", o.NumHeavyTokensKV, c.NumHeavyTokensKV}},
		stats:  o.Stats, routing: o.Routing,
	}
}

// routedAttention is the weights and the wiring of a ConditionalRoutedAttention.
type routedAttention struct {
	config          ConditionalRoutedAttentionConfig
	qToken, kvToken *Tensor
	null            *Tensor // [C]; nil: none
	light           windowAttention
	heavy           heavyAttention
	budget          int // bytes of the light branch between its steps; lightBytes but in tests
}

func (w *weights) routedAttention(prefix string, c ConditionalRoutedAttentionConfig) routedAttention {
	a := routedAttention{config: c, budget: lightBytes}
	a.qToken = w.routingToken(prefix+"q_router.routing_token", 1, c.Dim, c.Router)
	a.kvToken = w.routingToken(prefix+"kv_router.routing_token", c.NumRoutedKV, c.Dim, c.Router)
	if c.HasLightAttn {
		a.light = w.windowAttention(prefix+"light_attn", lightConfig{dim: c.Dim, dimHead: c.LightDimHead, heads: c.LightHeads, window: c.LightWindowSize / 2})
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

// attentionCall is one use of a routed attention in a plan.
type attentionInput struct {
	attentionSizes
	name       string   // what its routers' names start with
	y, x, mask vk.Range // y shares no memory with x
	residual   bool     // add x
}

// record records the call of a module of its own.
func (l *routedAttention) record(b *builder) {
	l.forward(b, attentionInput{
		attentionSizes: attentionSizesOf(b), y: b.arg("y"), x: b.arg("x"), mask: b.arg("Mask"),
	})
}

func attentionSizesOf(b *builder) attentionSizes {
	return attentionSizes{
		b: b.dim(dimB), n: b.dim(dimN), tokensQ: b.count("NumHeavyTokensQ"), tokensKV: b.count("NumHeavyTokensKV"), masked: b.given("Mask"),
	}
}

func (l *routedAttention) forward(b *builder, a attentionInput) {
	c := l.config
	q := newRouterState(a.name+"q_router", l.qToken, c.Router, c.RouterStraightThrough, c.Router.routing(a.b, a.n, 1, c.Dim, a.tokensQ), a.masked)
	kv := newRouterState(a.name+"kv_router", l.kvToken, c.Router, c.RouterStraightThrough, c.Router.routing(a.b, a.n, c.NumRoutedKV, c.Dim, a.tokensKV), a.masked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: a.x, context: a.x, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, y: a.y, x: a.x, null: l.null, dim: c.Dim, residual: a.residual}
	heavy := h.phases(a.mask, a.mask, out.recordMembershipMask)
	if !c.HasLightAttn {
		recordInterleaved(heavy)
		out.recordAlone()
		h.finish(a.y, a.x, a.residual)
		return
	}
	recordInterleaved(heavy, l.light.phases(out.lightOutput(), a.mask, a.b, a.n, l.budget))
	out.release()
	h.finish(a.y, a.y, true)
}

// stages wires everything before the output: queries and keys from their routers on. Once the queries are chosen, chosen is called.
func (h *heavyForward) phases(mask, contextMask vk.Range, chosen func()) phases {
	b := h.b
	return phases{func() {
		if h.x == h.context && h.q.n == h.kv.n {
			b.recordLogits(h.x, h.q, h.kv)
			return
		}
		b.recordLogits(h.x, h.q)
		b.recordLogits(h.context, h.kv)
	}, func() {
		b.recordTopK(mask, h.q)
		b.recordTopK(contextMask, h.kv)
		chosen()
		b.finishRouting(mask, h.q)
		b.finishRouting(contextMask, h.kv)
	}, h.project, h.rotate, h.attend}
}

// branchOut is what rows of y get that no heavy query names.
type unselectedRows struct {
	b        *builder
	q        *routerState
	y, x     vk.Range
	null     *Tensor // nil: 0
	dim      int
	residual bool
	first    int // tokens at the start of a sequence that never get the null token

	membership block // [B, N] u32: rows that get no null token
}

// needsNull says whether some rows may get the null token.
func (o *unselectedRows) needsNull() bool { return o.null != nil && o.q.hasLists }

// mark marks the rows that get no null token.
func (o *unselectedRows) recordMembershipMask() {
	if !o.needsNull() {
		return
	}
	o.membership = o.b.floats(o.q.b, o.q.n)
	record(o.b, pipelines.NewMembershipMask, pipelines.MembershipMaskConfig{}, pipelines.MembershipMaskArgs{
		Indices: o.q.indices.Range, Valid: o.q.valid.Range, Y: o.membership.Range, B: o.q.b, N: o.q.n, K: o.q.k, Prefix: o.first,
	})
}

// light is how the light branch writes all rows, with the null token where it belongs.
func (o *unselectedRows) lightOutput() lightOutput {
	l := lightOutput{b: o.b, x: o.x, y: o.y, residual: o.residual, membership: &o.membership}
	if o.needsNull() {
		l.null = o.null
	}
	return l
}

// others writes all rows where there is no light branch; the heavy output then replaces those of the queries. It comes after their choice.
func (o *unselectedRows) recordAlone() {
	o.release()
	if !o.q.hasLists {
		return
	}
	if o.null == nil && !o.residual {
		o.b.fill(o.y, 0)
		return
	}
	a := pipelines.ScatterArgs{Y: o.y, B: o.q.b, N: o.q.n}
	if o.null != nil {
		a.Row = o.null.memory
	}
	if o.residual {
		a.Base = o.x
	}
	var nothing block
	if o.null != nil && o.q.soft { // a query whose score is 0 is one all the same: finish leaves its row alone
		nothing = o.b.floats(o.q.b, o.q.k, o.dim)
		o.b.fill(nothing.Range, 0)
		a.Value, a.Indices, a.Valid, a.K = nothing.Range, o.q.indices.Range, o.q.valid.Range, o.q.k
	}
	record(o.b, pipelines.NewScatter, pipelines.ScatterConfig{C: o.dim, Add: o.residual && a.K > 0}, a)
	o.b.release(nothing)
}

func (o *unselectedRows) release() { o.b.release(o.membership) }
