package colt5

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedAttentionConfig configures a ConditionalRoutedAttention. Start from DefaultConditionalRoutedAttentionConfig, zero
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

// DefaultConditionalRoutedAttentionConfig returns the reference's defaults; Dim and the numbers of tokens are left to the caller.
func DefaultConditionalRoutedAttentionConfig() ConditionalRoutedAttentionConfig {
	return ConditionalRoutedAttentionConfig{
		NumRoutedKV: 1, LightDimHead: 64, LightHeads: 8, LightWindowSize: 128, HeavyDimHead: 64, HeavyHeads: 8, HasLightAttn: true,
		RouterStraightThrough: true, UseNullQTokens: true, Router: DefaultRouterOptions(),
	}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *ConditionalRoutedAttentionConfig) UnmarshalJSON(data []byte) error {
	type plain ConditionalRoutedAttentionConfig
	*c = DefaultConditionalRoutedAttentionConfig()
	return decode("ConditionalRoutedAttentionConfig", data, (*plain)(c))
}

func (c ConditionalRoutedAttentionConfig) check(op string) error {
	if err := firstError(
		atLeast(op, "Dim", c.Dim, 1), atLeast(op, "NumHeavyTokensQ", c.NumHeavyTokensQ, 1), atLeast(op, "NumHeavyTokensKV", c.NumHeavyTokensKV, 1),
		checkHeavy(op, "Heavy", c.heavy(), "NumRoutedKV", c.NumRoutedKV), c.Router.check(op),
	); err != nil || !c.HasLightAttn {
		return err
	}
	return firstError(checkHeads(op, "Light", c.LightHeads, c.LightDimHead), halved(op, "LightWindowSize", c.LightWindowSize))
}

func (c ConditionalRoutedAttentionConfig) heavy() heavyConfig {
	return heavyConfig{c.Dim, c.HeavyDimHead, c.HeavyHeads, c.RotaryEmb, c.MultiplyKeysByScore, c.MultiplyQueriesByScore}
}

// What follows checks the fields of attention configs.

func checkHeads(op, branch string, heads, dimHead int) error {
	if err := firstError(atLeast(op, branch+"Heads", heads, 1), atLeast(op, branch+"DimHead", dimHead, 1)); err != nil {
		return err
	}
	if dimHead > 128 {
		return fmt.Errorf("colt5: %s: %sDimHead is %d, want at most 128", op, branch, dimHead)
	}
	if heads > 1<<16 {
		return fmt.Errorf("colt5: %s: %sHeads is %d, want at most %d", op, branch, heads, 1<<16)
	}
	return nil
}

// checkHeavy checks a heavy branch and its routes.
func checkHeavy(op, branch string, c heavyConfig, field string, routes int) error {
	if err := firstError(checkHeads(op, branch, c.heads, c.dimHead), atLeast(op, field, routes, 1)); err != nil {
		return err
	}
	if c.heads%routes != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want a divisor of %sHeads, %d", op, field, routes, branch, c.heads)
	}
	if c.rotary && c.dimHead%2 != 0 {
		return fmt.Errorf("colt5: %s: %sDimHead is %d, want an even number with RotaryEmb", op, branch, c.dimHead)
	}
	return nil
}

func halved(op, field string, v int) error {
	if err := atLeast(op, field, v, 2); err != nil {
		return err
	}
	if v%2 != 0 {
		return fmt.Errorf("colt5: %s: %s is %d, want an even number: it is halved", op, field, v)
	}
	return nil
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
	module
	config ConditionalRoutedAttentionConfig
	layer  routedAttention
}

// AttentionOptions are the optional arguments of a ConditionalRoutedAttention.
type AttentionOptions struct {
	Mask             *Tensor // [B, N] U8; nil: all tokens are real
	NumHeavyTokensQ  int     // 0: the config's
	NumHeavyTokensKV int     // 0: the config's
}

// NewConditionalRoutedAttention makes the module on a device, with initial values of seed 0.
func NewConditionalRoutedAttention(dev *vk.Device, c ConditionalRoutedAttentionConfig) (*ConditionalRoutedAttention, error) {
	a := &ConditionalRoutedAttention{config: c}
	err := a.start("ConditionalRoutedAttention", dev, c.Precision, c.check, func(w *weights) { a.layer = w.routedAttention("", c) })
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Config is what the module was made with.
func (a *ConditionalRoutedAttention) Config() ConditionalRoutedAttentionConfig { return a.config }

// Forward computes y [B, N, C] from x [B, N, C]; the two share no memory.
func (a *ConditionalRoutedAttention) Forward(y, x *Tensor, o AttentionOptions) error {
	const op = "ConditionalRoutedAttention.Forward"
	a.mu.Lock()
	defer a.mu.Unlock()
	tensors := [...]*Tensor{y, x, o.Mask}
	p, err := a.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return a.run(op, p, tensors[:])
}

func (a *ConditionalRoutedAttention) prepared(op string, tensors []*Tensor, o AttentionOptions) (*plan, error) {
	if a.closed {
		return nil, errClosed(op)
	}
	b, n, err := sequences(op, a.dev, tensors, a.config.Dim)
	if err != nil {
		return nil, err
	}
	s := attentionSizes{b: b, n: n, masked: o.Mask != nil}
	if s.tokensQ, err = checkTokens(op, "NumHeavyTokensQ", o.NumHeavyTokensQ, a.config.NumHeavyTokensQ); err != nil {
		return nil, err
	}
	if s.tokensKV, err = checkTokens(op, "NumHeavyTokensKV", o.NumHeavyTokensKV, a.config.NumHeavyTokensKV); err != nil {
		return nil, err
	}
	key := planKey{sizes: [6]int{b, n, s.tokensQ, s.tokensKV}, given: [2]bool{s.masked}}
	if p := a.find(&key); p != nil {
		return p, nil
	}
	return a.plan(op, key, tensors, s)
}

func (a *ConditionalRoutedAttention) plan(op string, key planKey, tensors []*Tensor, s attentionSizes) (*plan, error) {
	return a.prepare(op, key, tensors, []string{"y", "x", "Mask"}, func(b *builder) {
		a.layer.forward(b, attentionInput{attentionSizes: s, y: b.slot(0), x: b.slot(1), mask: b.slot(2)})
	})
}

// sequences checks y, x [B, N, C] and a mask [B, N] that may be nil.
func sequences(op string, dev *vk.Device, tensors []*Tensor, dim int) (b, n int, err error) {
	y, x, mask := tensors[0], tensors[1], tensors[2]
	if err := x.want(op, "x", dev, F32, -1, -1, dim); err != nil {
		return 0, 0, err
	}
	b, n = x.shape[0], x.shape[1]
	return b, n, firstError(y.want(op, "y", dev, F32, b, n, dim), mask.optional(op, "Mask", dev, U8, b, n))
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (a *ConditionalRoutedAttention) Close() error {
	if a == nil {
		return nil
	}
	return a.close()
}

// Memory tells what a call for x [b, n, C] needs of a device with these capabilities, without a mask.
func (c ConditionalRoutedAttentionConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	const op = "ConditionalRoutedAttentionConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n)); err != nil {
		return Memory{}, err
	}
	var layer routedAttention
	bytes := 4 * uint64(b) * uint64(n) * uint64(c.Dim)
	return measure(op, caps, c.Precision, bytes, bytes, func(w *weights) { layer = w.routedAttention("", c) }, func(to *builder) {
		layer.forward(to, attentionInput{attentionSizes: attentionSizes{b: b, n: n, tokensQ: c.NumHeavyTokensQ, tokensKV: c.NumHeavyTokensKV}})
	})
}

// checkSizes checks the sizes of a call that is only measured. Kernels number the tokens of a batch by an int32.
func checkSizes(op string, sizes ...int) error {
	tokens := 1.0
	for i, n := range sizes {
		if n < 1 || n > 1<<31-1 {
			return fmt.Errorf("colt5: %s: size %d of the shape is %d, want 1 to %d", op, i, n, 1<<31-1)
		}
		tokens *= float64(n)
	}
	if tokens > math.MaxInt32 {
		return fmt.Errorf("colt5: %s: %v make %.0f tokens, want %d at most", op, sizes, tokens, math.MaxInt32)
	}
	return nil
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
