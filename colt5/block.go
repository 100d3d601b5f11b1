package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedTransformerBlockConfig configures a ConditionalRoutedTransformerBlock. Start from
// Default[ConditionalRoutedTransformerBlockConfig]: zero values are not the defaults.
type ConditionalRoutedTransformerBlockConfig struct {
	Dim                    int            `json:"dim"`                       // C, at least 1
	NumHeavyAttnTokensQ    int            `json:"num_heavy_attn_tokens_q"`   // queries of the heavy attention, at least 1
	NumHeavyAttnTokensKV   int            `json:"num_heavy_attn_tokens_kv"`  // keys and values of a route, at least 1
	NumHeavyFFTokens       int            `json:"num_heavy_ff_tokens"`       // tokens of the heavy feedforward, at least 1
	NumRoutedKV            int            `json:"num_routed_kv"`             // R, routes of keys and values; a divisor of HeavyHeads
	LightDimHead           int            `json:"light_dim_head"`            // 1 to 128
	LightHeads             int            `json:"light_heads"`               // at least 1
	LightWindowSize        int            `json:"light_window_size"`         // a token attends to half as many tokens on each side; even, at least 2
	HeavyDimHead           int            `json:"heavy_dim_head"`            // 1 to 128; even with RotaryEmb
	HeavyHeads             int            `json:"heavy_heads"`               // at least 1
	LightFFMult            float64        `json:"light_ff_mult"`             // hidden size of the light feedforward is int(C * this), at least 1
	HeavyFFMult            float64        `json:"heavy_ff_mult"`             // hidden size of the heavy feedforward is int(C * this), at least 1
	RotaryEmb              bool           `json:"rotary_emb"`                // rotary position embedding of heavy queries and keys
	RouterStraightThrough  bool           `json:"router_straight_through"`   // a selected token scores 1, not its soft score
	MultiplyKeysByScore    bool           `json:"multiply_keys_by_score"`    // heavy keys too, not only values
	MultiplyQueriesByScore bool           `json:"multiply_queries_by_score"` // heavy queries too, not only their outputs
	UseNullQTokens         bool           `json:"use_null_q_tokens"`         // tokens not selected as queries get a learned token; false: 0
	Router                 RouterSettings `json:"router_kwargs"`             // of all three routers
	Precision              DType          `json:"precision"`                 // of the matrix products: F32 (the default), F16 or BF16
}

func (c *ConditionalRoutedTransformerBlockConfig) setDefaults() {
	a, f := Default[ConditionalRoutedAttentionConfig](), Default[ConditionalRoutedFeedForwardConfig]()
	*c = ConditionalRoutedTransformerBlockConfig{
		NumRoutedKV: a.NumRoutedKV, LightDimHead: a.LightDimHead, LightHeads: a.LightHeads, LightWindowSize: a.LightWindowSize,
		HeavyDimHead: a.HeavyDimHead, HeavyHeads: a.HeavyHeads, LightFFMult: f.LightFFMult, HeavyFFMult: f.HeavyFFMult,
		RouterStraightThrough: true, UseNullQTokens: true, Router: Default[RouterSettings](),
	}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *ConditionalRoutedTransformerBlockConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

// Attention is the configuration of the block's attention, with the block's Precision.
func (c ConditionalRoutedTransformerBlockConfig) Attention() ConditionalRoutedAttentionConfig {
	return ConditionalRoutedAttentionConfig{
		Dim: c.Dim, NumHeavyTokensQ: c.NumHeavyAttnTokensQ, NumHeavyTokensKV: c.NumHeavyAttnTokensKV, NumRoutedKV: c.NumRoutedKV,
		LightDimHead: c.LightDimHead, LightHeads: c.LightHeads, LightWindowSize: c.LightWindowSize,
		HeavyDimHead: c.HeavyDimHead, HeavyHeads: c.HeavyHeads, HasLightAttn: true, RotaryEmb: c.RotaryEmb,
		RouterStraightThrough: c.RouterStraightThrough, MultiplyKeysByScore: c.MultiplyKeysByScore,
		MultiplyQueriesByScore: c.MultiplyQueriesByScore, UseNullQTokens: c.UseNullQTokens, Router: c.Router, Precision: c.Precision,
	}
}

// FeedForward is the configuration of the block's feedforward, with the block's Precision.
func (c ConditionalRoutedTransformerBlockConfig) FeedForward() ConditionalRoutedFeedForwardConfig {
	return ConditionalRoutedFeedForwardConfig{
		Dim: c.Dim, NumHeavyTokens: c.NumHeavyFFTokens, LightFFMult: c.LightFFMult, HeavyFFMult: c.HeavyFFMult,
		RouterStraightThrough: c.RouterStraightThrough, Router: c.Router, Precision: c.Precision,
	}
}

func (c ConditionalRoutedTransformerBlockConfig) check(k checker) error {
	return firstError(
		c.Attention().check(k.renamed(map[string]string{"NumHeavyTokensQ": "NumHeavyAttnTokensQ", "NumHeavyTokensKV": "NumHeavyAttnTokensKV"})),
		c.FeedForward().check(k.renamed(map[string]string{"NumHeavyTokens": "NumHeavyFFTokens"})),
	)
}

func (c ConditionalRoutedTransformerBlockConfig) precision() DType { return c.Precision }

func (c ConditionalRoutedTransformerBlockConfig) build(w *weights) layer { return w.routedBlock("", c) }

// ConditionalRoutedTransformerBlock is a routed attention and a routed feedforward, each with a residual.
//
//	x, y [B, N, C] f32    mask [B, N] u8
//	h = x + attention(x)    y = h + feedforward(h)
//
// Source: arXiv 2303.09752, section 3.
type ConditionalRoutedTransformerBlock struct {
	module[ConditionalRoutedTransformerBlockConfig]
}

// BlockOptions are the optional arguments of ConditionalRoutedTransformerBlock.Forward and Encoder.Forward.
type BlockOptions struct {
	Mask                 *Tensor // [B, N] u8, 1 for a real token; nil: all tokens are real
	NumHeavyAttnTokensQ  int     // 0: the configuration's
	NumHeavyAttnTokensKV int     // 0: the configuration's
	NumHeavyFFTokens     int     // 0: the configuration's

	// RandomSeed, if not 0, routes at random: logits from this seed instead of the dot products, for each router others. Static
	// selects evenly spaced tokens: of n tokens, the i-th of k is number floor(i * n / k). It needs a call without masks. In both
	// every selected token scores 1, and routers get no gradient. These are control experiments.
	RandomSeed uint64
	Static     bool

	Stats   *CallStats       // receives what the call cost; nil: not wanted
	Routing *[]RoutingRecord // receives what the routers selected; nil: not wanted
}

// NewConditionalRoutedTransformerBlock makes the module on a device, with the initial values of seed 0.
func NewConditionalRoutedTransformerBlock(ctx context.Context, dev *vk.Device, c ConditionalRoutedTransformerBlockConfig) (*ConditionalRoutedTransformerBlock, error) {
	m, err := newModule(ctx, "ConditionalRoutedTransformerBlock", dev, c)
	if err != nil {
		return nil, err
	}
	return &ConditionalRoutedTransformerBlock{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C]. The two share no memory.
func (t *ConditionalRoutedTransformerBlock) Forward(ctx context.Context, y, x *Tensor, o BlockOptions) error {
	c := o.call(t.config, sequenceArgs(y, x, o.Mask, t.config.Dim))
	return t.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (t *ConditionalRoutedTransformerBlock) Prepare(ctx context.Context, y, x *Tensor, o BlockOptions) error {
	c := o.call(t.config, sequenceArgs(y, x, o.Mask, t.config.Dim))
	return t.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (t *ConditionalRoutedTransformerBlock) Close() error { return closeModule(t) }

// Memory predicts what a call with x [b, n, C] and no mask needs on a device with these capabilities.
func (c ConditionalRoutedTransformerBlockConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return BlockOptions{}.call(c, sequenceArgs(nil, nil, nil, c.Dim)).measure(
		"ConditionalRoutedTransformerBlock", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

// call is the call of a block, or of a stack of blocks.
func (o BlockOptions) call(c ConditionalRoutedTransformerBlockConfig, args args) call {
	return call{
		args: args,
		counts: [maxCounts]tokenCount{
			{"NumHeavyAttnTokensQ", o.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensQ}, {"NumHeavyAttnTokensKV", o.NumHeavyAttnTokensKV, c.NumHeavyAttnTokensKV},
			{"NumHeavyFFTokens", o.NumHeavyFFTokens, c.NumHeavyFFTokens},
		},
		stats: o.Stats, routing: o.Routing, randomSeed: o.RandomSeed, static: o.Static,
	}
}

// blockSizes are the sizes of a call.
type blockSizes struct {
	attentionSizes
	tokensFF int
}

func blockSizesOf(b *builder) blockSizes {
	return blockSizes{attentionSizes{
		b: b.dim(dimB), n: b.dim(dimN), tokensQ: b.tokenCount("NumHeavyAttnTokensQ"), tokensKV: b.tokenCount("NumHeavyAttnTokensKV"), masked: b.given("Mask"),
	}, b.tokenCount("NumHeavyFFTokens")}
}

// routedBlock is the weights and the steps of a ConditionalRoutedTransformerBlock.
type routedBlock struct {
	attention   *routedAttention
	feedForward *routedFeedForward
}

func (w *weights) routedBlock(prefix string, c ConditionalRoutedTransformerBlockConfig) *routedBlock {
	return &routedBlock{w.routedAttention(prefix+"conditional_attn.", c.Attention()), w.routedFeedForward(prefix+"conditional_ff.", c.FeedForward())}
}

// blockInput is the input of a block.
type blockInput struct {
	blockSizes
	name       string // prefix of its routers' names
	y, x, mask vk.Range
	dropout    float64 // rate of the results of attention and feedforward, if the call has dropout
	use        int     // number of the first of the two dropouts
}

// record records the layer as a module of its own.
func (l *routedBlock) record(b *builder) {
	b.nextLayer()
	l.forward(b, blockInput{blockSizes: blockSizesOf(b), y: b.arg("y"), x: b.arg("x"), mask: b.arg("Mask")})
}

// forward records the layer. The rows between attention and feedforward are in y, so that they need no workspace, unless the
// layer keeps them.
func (l *routedBlock) forward(b *builder, a blockInput) {
	count, middle := a.b*a.n*l.attention.config.Dim, a.y
	if b.keeping {
		kept := b.floats(count)
		middle = kept.Range
		b.keep(l, operand{allocation: kept})
	}
	l.recordAttention(b, a, middle)
	feedForward := feedForwardInput{
		b: a.b, n: a.n, tokens: a.tokensFF, masked: a.masked, name: a.name + "conditional_ff.", y: a.y, x: middle, mask: a.mask, residual: true,
	}
	if !b.dropping(a.dropout) {
		l.feedForward.forward(b, feedForward)
		return
	}
	branch := b.floats(count)
	feedForward.y, feedForward.residual = branch.Range, false
	l.feedForward.forward(b, feedForward)
	b.dropAndAdd(a.y, middle, branch.Range, count, a.dropout, a.use+1)
	b.release(branch)
}

// recordAttention records y = x + attention(x), with dropout of the attention's result.
func (l *routedBlock) recordAttention(b *builder, a blockInput, y vk.Range) {
	attention := attentionInput{
		attentionSizes: a.attentionSizes, name: a.name + "conditional_attn.", y: y, x: a.x, mask: a.mask, residual: true,
	}
	if !b.dropping(a.dropout) {
		l.attention.forward(b, attention)
		return
	}
	count := a.b * a.n * l.attention.config.Dim
	branch := b.floats(count)
	attention.y, attention.residual = branch.Range, false
	l.attention.forward(b, attention)
	b.dropAndAdd(y, a.x, branch.Range, count, a.dropout, a.use)
	b.release(branch)
}
