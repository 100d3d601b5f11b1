package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedFeedForwardConfig configures a ConditionalRoutedFeedForward. Start from
// Default[ConditionalRoutedFeedForwardConfig]: zero values are not the defaults.
type ConditionalRoutedFeedForwardConfig struct {
	Dim                   int            `json:"dim"`                     // C, at least 1
	NumHeavyTokens        int            `json:"num_heavy_tokens"`        // tokens for the heavy branch, at least 1; the default of a call
	LightFFMult           float64        `json:"light_ff_mult"`           // hidden size of the light branch is int(C * this), at least 1
	HeavyFFMult           float64        `json:"heavy_ff_mult"`           // hidden size of the heavy branch is int(C * this), at least 1
	RouterStraightThrough bool           `json:"router_straight_through"` // a selected token scores 1, not its soft score
	Router                RouterSettings `json:"router_kwargs"`
	Precision             DType          `json:"precision"` // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedFeedForwardConfig) setDefaults() {
	*c = ConditionalRoutedFeedForwardConfig{LightFFMult: 0.5, HeavyFFMult: 4, RouterStraightThrough: true, Router: Default[RouterSettings]()}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedFeedForwardConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c ConditionalRoutedFeedForwardConfig) check(k checker) error {
	return firstError(
		k.dim("Dim", c.Dim), k.atLeast("NumHeavyTokens", c.NumHeavyTokens, 1), c.Router.check(k.in("Router.")),
		k.hidden("LightFFMult", c.Dim, c.LightFFMult), k.hidden("HeavyFFMult", c.Dim, c.HeavyFFMult),
	)
}

func (c ConditionalRoutedFeedForwardConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedFeedForwardConfig) build(w *weights) layer {
	return w.routedFeedForward("", c)
}

// ConditionalRoutedFeedForward applies a light feedforward to every token, and a heavy feedforward to the tokens that a
// router selects.
//
//	x, y [B, N, C] f32    mask [B, N] u8
//	y = light_ff(x) + scatter(heavy_ff(routed x) * score)
//
// A token that is not selected gets its light output only. With N <= NumHeavyTokens every real token is selected.
// Source: arXiv 2303.09752, section 3.
type ConditionalRoutedFeedForward struct {
	module[ConditionalRoutedFeedForwardConfig]
}

// FeedForwardOptions are the optional arguments of ConditionalRoutedFeedForward.Forward.
type FeedForwardOptions struct {
	Mask           *Tensor // [B, N] u8, 1 for a real token; nil: all tokens are real
	NumHeavyTokens int     // 0: the configuration's

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedFeedForward makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedFeedForward(ctx context.Context, dev *vk.Device, c ConditionalRoutedFeedForwardConfig) (*ConditionalRoutedFeedForward, error) {
	m, err := newModule(ctx, "ConditionalRoutedFeedForward", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedFeedForward{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C]. The two share no memory.
func (f *ConditionalRoutedFeedForward) Forward(ctx context.Context, y, x *Tensor, o FeedForwardOptions) error {
	c := f.config.call(y, x, o)
	return f.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (f *ConditionalRoutedFeedForward) Prepare(ctx context.Context, y, x *Tensor, o FeedForwardOptions) error {
	c := f.config.call(y, x, o)
	return f.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (f *ConditionalRoutedFeedForward) Close() error { return closeModule(f) }

// Memory predicts what a call with x [b, n, C] and no mask needs on a device with these capabilities.
func (c ConditionalRoutedFeedForwardConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, FeedForwardOptions{}).measure("ConditionalRoutedFeedForward", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c ConditionalRoutedFeedForwardConfig) call(y, x *Tensor, o FeedForwardOptions) call {
	return call{
		args:   sequenceArgs(y, x, o.Mask, c.Dim),
		counts: [maxCounts]tokenCount{{"NumHeavyTokens", o.NumHeavyTokens, c.NumHeavyTokens}},
		stats:  o.Stats, routing: o.Routing,
	}
}

// sequenceArgs are the arguments of most modules: y and x [B, N, C], and a mask [B, N].
func sequenceArgs(y, x, mask *Tensor, dim int) args {
	return args{
		{name: "x", tensor: x, shape: shape{dimB, dimN, dim}},
		{name: "y", tensor: y, shape: shape{dimB, dimN, dim}, kind: output},
		{name: "Mask", tensor: mask, dtype: U8, shape: shape{dimB, dimN}, kind: optionalInput},
	}
}

// routedFeedForward is the weights and the steps of a ConditionalRoutedFeedForward.
type routedFeedForward struct {
	config       ConditionalRoutedFeedForwardConfig
	routingToken *Tensor // [1, C]
	light, heavy feedForward
	budget       int // bytes of the light branch's hidden rows; hiddenBytes except in tests
}

func (w *weights) routedFeedForward(prefix string, c ConditionalRoutedFeedForwardConfig) *routedFeedForward {
	return &routedFeedForward{
		config: c, budget: hiddenBytes,
		routingToken: w.routingToken(prefix+"router.routing_token", 1, c.Dim, c.Router),
		light:        w.feedForward(prefix+"light_ff.", c.Dim, c.LightFFMult),
		heavy:        w.feedForward(prefix+"heavy_ff.", c.Dim, c.HeavyFFMult),
	}
}

// feedForwardInput is the input of a routed feedforward.
type feedForwardInput struct {
	b, n, tokens int
	masked       bool
	name         string   // prefix of its router's name
	y, x, mask   vk.Range // y is x (only with residual) or shares no memory with it
	residual     bool     // add x
}

// record records the layer as a module of its own.
func (f *routedFeedForward) record(b *builder) {
	b.nextLayer()
	f.forward(b, feedForwardInput{
		b: b.dim(dimB), n: b.dim(dimN), tokens: b.tokenCount("NumHeavyTokens"), masked: b.given("Mask"), y: b.arg("y"), x: b.arg("x"), mask: b.arg("Mask"),
	})
}

// forward records the layer. The selection runs concurrently with the first half of the light branch, and the first
// half of the heavy branch with the second half of the light one. The heavy half that reads x is recorded before x may
// change in place.
func (f *routedFeedForward) forward(b *builder, a feedForwardInput) {
	c := f.config
	q := newRouterState(a.name+"router", f.routingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, 1, c.Dim, a.tokens), a.masked)
	var hidden operand
	heavy := phases{func() { b.recordLogits(a.x, q); b.recordRouterTopK(a.mask, q); b.finishRouting(a.mask, q) }, func() {
		hidden = b.allocOperand(f.heavy.hidden, a.b, q.k)
		var normed, pre operand
		if b.uses16Bit(c.Dim) {
			normed = b.rmsNormSelected(a.x, f.heavy.gamma, q)
		}
		product, up := selectedRows(a.x, normed, q)
		if b.keeping {
			pre = f.allocPreactivation(b, normed, q)
			b.keep(f.heavy.w1, pre)
		}
		f.heavy.up(b, hidden, pre.Range, normed.is16, product, up)
		b.release(normed.allocation)
	}}
	recordInterleaved(heavy, f.light.phases(b, a.y, a.x, a.b*a.n, f.budget, a.residual))
	down := pipelines.LinearArgs{Y: a.y, Residual: a.y, Batch: a.b, Rows: q.k, OutRows: a.n, Score: q.scores.Range}
	if q.hasLists {
		down.Scatter, down.Valid = q.indices.Range, q.valid.Range
	}
	f.heavy.down(b, hidden, pipelines.LinearConfig{Residual: true, Scatter: q.hasLists, Valid: q.hasLists, Score: q.usesSoftScores}, down)
	b.release(hidden.allocation)
	q.release(b)
}

// selectedRows is the product of the rows of x [B, N, C] that a router selected: of normed, if these are 16-bit operands.
func selectedRows(x vk.Range, normed operand, q *routerState) (pipelines.LinearConfig, pipelines.LinearArgs) {
	if normed.is16 {
		return pipelines.LinearConfig{}, pipelines.LinearArgs{X: normed.Range, Batch: 1, Rows: q.b * q.k}
	}
	a := pipelines.LinearArgs{X: x, Batch: q.b, InRows: q.n, Rows: q.k}
	if q.hasLists {
		a.Gather, a.Valid = q.indices.Range, q.valid.Range
	}
	return pipelines.LinearConfig{Gather: q.hasLists, Valid: q.hasLists}, a
}

// allocPreactivation allocates what GELU is applied to in the heavy branch. Rows that a product with a list does not write are 0:
// the backward pass multiplies them by gradients of 0.
func (f *routedFeedForward) allocPreactivation(b *builder, normed operand, q *routerState) operand {
	pre := b.allocOperand(f.heavy.hidden, q.b, q.k)
	if q.hasLists && !normed.is16 {
		b.fill(pre.Range, 0)
	}
	return pre
}
