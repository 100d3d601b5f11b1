package colt5

import (
	"github.com/colt5-vulkan/colt5/vk"
)

// ConditionalRoutedTransformerBlockConfig configures a ConditionalRoutedTransformerBlock. Start from
// DefaultConditionalRoutedTransformerBlockConfig, zero values are not the defaults. The fields are those of
// ConditionalRoutedAttentionConfig and ConditionalRoutedFeedForwardConfig.
type ConditionalRoutedTransformerBlockConfig struct {
	Dim                    int           `json:"dim"`
	NumHeavyAttnTokensQ    int           `json:"num_heavy_attn_tokens_q"`
	NumHeavyAttnTokensKV   int           `json:"num_heavy_attn_tokens_kv"`
	NumHeavyFFTokens       int           `json:"num_heavy_ff_tokens"`
	NumRoutedKV            int           `json:"num_routed_kv"`
	LightDimHead           int           `json:"light_dim_head"`
	LightHeads             int           `json:"light_heads"`
	LightWindowSize        int           `json:"light_window_size"`
	HeavyDimHead           int           `json:"heavy_dim_head"`
	HeavyHeads             int           `json:"heavy_heads"`
	LightFFMult            float64       `json:"light_ff_mult"`
	HeavyFFMult            float64       `json:"heavy_ff_mult"`
	RotaryEmb              bool          `json:"rotary_emb"`
	RouterStraightThrough  bool          `json:"router_straight_through"`
	MultiplyKeysByScore    bool          `json:"multiply_keys_by_score"`
	MultiplyQueriesByScore bool          `json:"multiply_queries_by_score"`
	UseNullQTokens         bool          `json:"use_null_q_tokens"`
	Router                 RouterOptions `json:"router_kwargs"` // of all three routers
	Precision              DType         `json:"precision"`     // of the matrix products; Float32 is the default
}

// DefaultConditionalRoutedTransformerBlockConfig returns the reference's defaults; Dim and the numbers of tokens are left to the caller.
func DefaultConditionalRoutedTransformerBlockConfig() ConditionalRoutedTransformerBlockConfig {
	a, f := DefaultConditionalRoutedAttentionConfig(), DefaultConditionalRoutedFeedForwardConfig()
	return ConditionalRoutedTransformerBlockConfig{
		NumRoutedKV: a.NumRoutedKV, LightDimHead: a.LightDimHead, LightHeads: a.LightHeads, LightWindowSize: a.LightWindowSize,
		HeavyDimHead: a.HeavyDimHead, HeavyHeads: a.HeavyHeads, LightFFMult: f.LightFFMult, HeavyFFMult: f.HeavyFFMult,
		RouterStraightThrough: true, UseNullQTokens: true, Router: DefaultRouterOptions(),
	}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *ConditionalRoutedTransformerBlockConfig) UnmarshalJSON(data []byte) error {
	type plain ConditionalRoutedTransformerBlockConfig
	*c = DefaultConditionalRoutedTransformerBlockConfig()
	return decode("ConditionalRoutedTransformerBlockConfig", data, (*plain)(c))
}

// Attention is the config of the block's attention.
func (c ConditionalRoutedTransformerBlockConfig) Attention() ConditionalRoutedAttentionConfig {
	return ConditionalRoutedAttentionConfig{
		Dim: c.Dim, NumHeavyTokensQ: c.NumHeavyAttnTokensQ, NumHeavyTokensKV: c.NumHeavyAttnTokensKV, NumRoutedKV: c.NumRoutedKV,
		LightDimHead: c.LightDimHead, LightHeads: c.LightHeads, LightWindowSize: c.LightWindowSize,
		HeavyDimHead: c.HeavyDimHead, HeavyHeads: c.HeavyHeads, HasLightAttn: true, RotaryEmb: c.RotaryEmb,
		RouterStraightThrough: c.RouterStraightThrough, MultiplyKeysByScore: c.MultiplyKeysByScore,
		MultiplyQueriesByScore: c.MultiplyQueriesByScore, UseNullQTokens: c.UseNullQTokens, Router: c.Router,
	}
}

// FeedForward is the config of the block's feedforward.
func (c ConditionalRoutedTransformerBlockConfig) FeedForward() ConditionalRoutedFeedForwardConfig {
	return ConditionalRoutedFeedForwardConfig{
		Dim: c.Dim, NumHeavyTokens: c.NumHeavyFFTokens, LightFFMult: c.LightFFMult, HeavyFFMult: c.HeavyFFMult,
		RouterStraightThrough: c.RouterStraightThrough, Router: c.Router,
	}
}

func (c ConditionalRoutedTransformerBlockConfig) check(op string) error {
	return firstError(
		atLeast(op, "NumHeavyAttnTokensQ", c.NumHeavyAttnTokensQ, 1), atLeast(op, "NumHeavyAttnTokensKV", c.NumHeavyAttnTokensKV, 1),
		atLeast(op, "NumHeavyFFTokens", c.NumHeavyFFTokens, 1), c.Attention().check(op), c.FeedForward().check(op),
	)
}

// ConditionalRoutedTransformerBlock is a routed attention and a routed feedforward, each with a residual.
//
//	x, y [B, N, C] F32    mask [B, N] U8
//	h = x + attention(x)    y = h + feedforward(h)
//
// Source: arXiv 2303.09752, section 3.
type ConditionalRoutedTransformerBlock struct {
	module
	config ConditionalRoutedTransformerBlockConfig
	layer  routedBlock
}

// BlockOptions are the optional arguments of a ConditionalRoutedTransformerBlock, and of an Encoder.
type BlockOptions struct {
	Mask                 *Tensor // [B, N] U8; nil: all tokens are real
	NumHeavyAttnTokensQ  int     // 0: the config's
	NumHeavyAttnTokensKV int     // 0: the config's
	NumHeavyFFTokens     int     // 0: the config's
}

// NewConditionalRoutedTransformerBlock makes the module on a device, with initial values of seed 0.
func NewConditionalRoutedTransformerBlock(dev *vk.Device, c ConditionalRoutedTransformerBlockConfig) (*ConditionalRoutedTransformerBlock, error) {
	t := &ConditionalRoutedTransformerBlock{config: c}
	err := t.start("ConditionalRoutedTransformerBlock", dev, c.Precision, c.check, func(w *weights) { t.layer = w.routedBlock("", c) })
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Config is what the module was made with.
func (t *ConditionalRoutedTransformerBlock) Config() ConditionalRoutedTransformerBlockConfig {
	return t.config
}

// Forward computes y [B, N, C] from x [B, N, C]; the two share no memory.
func (t *ConditionalRoutedTransformerBlock) Forward(y, x *Tensor, o BlockOptions) error {
	const op = "ConditionalRoutedTransformerBlock.Forward"
	t.mu.Lock()
	defer t.mu.Unlock()
	tensors := [...]*Tensor{y, x, o.Mask}
	p, err := t.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return t.run(op, p, tensors[:])
}

func (t *ConditionalRoutedTransformerBlock) prepared(op string, tensors []*Tensor, o BlockOptions) (*plan, error) {
	if t.closed {
		return nil, errClosed(op)
	}
	b, n, err := sequences(op, t.dev, tensors, t.config.Dim)
	if err != nil {
		return nil, err
	}
	s, err := o.sizes(op, t.config, b, n)
	if err != nil {
		return nil, err
	}
	key := s.key()
	if p := t.find(&key); p != nil {
		return p, nil
	}
	return t.plan(op, key, tensors, s)
}

func (t *ConditionalRoutedTransformerBlock) plan(op string, key planKey, tensors []*Tensor, s blockSizes) (*plan, error) {
	return t.prepare(op, key, tensors, []string{"y", "x", "Mask"}, func(b *builder) {
		t.layer.forward(b, blockInput{s, "", b.slot(0), b.slot(1), b.slot(2)})
	})
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (t *ConditionalRoutedTransformerBlock) Close() error {
	if t == nil {
		return nil
	}
	return t.close()
}

// Memory tells what a call for x [b, n, C] needs of a device with these capabilities, without a mask.
func (c ConditionalRoutedTransformerBlockConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	const op = "ConditionalRoutedTransformerBlockConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n)); err != nil {
		return Memory{}, err
	}
	s, err := BlockOptions{}.sizes(op, c, b, n)
	if err != nil {
		return Memory{}, err
	}
	var layer routedBlock
	bytes := 4 * uint64(b) * uint64(n) * uint64(c.Dim)
	return measure(op, caps, c.Precision, bytes, bytes, func(w *weights) { layer = w.routedBlock("", c) }, func(to *builder) {
		layer.forward(to, blockInput{blockSizes: s})
	})
}

// blockSizes are the sizes of a call.
type blockSizes struct {
	attentionSizes
	tokensFF int
}

func (o BlockOptions) sizes(op string, c ConditionalRoutedTransformerBlockConfig, b, n int) (s blockSizes, err error) {
	s.b, s.n, s.masked = b, n, o.Mask != nil
	if s.tokensQ, err = checkTokens(op, "NumHeavyAttnTokensQ", o.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensQ); err != nil {
		return s, err
	}
	if s.tokensKV, err = checkTokens(op, "NumHeavyAttnTokensKV", o.NumHeavyAttnTokensKV, c.NumHeavyAttnTokensKV); err != nil {
		return s, err
	}
	s.tokensFF, err = checkTokens(op, "NumHeavyFFTokens", o.NumHeavyFFTokens, c.NumHeavyFFTokens)
	return s, err
}

func (s blockSizes) key() planKey {
	return planKey{sizes: [6]int{s.b, s.n, s.tokensQ, s.tokensKV, s.tokensFF}, given: [2]bool{s.masked}}
}

// routedBlock is the weights and the wiring of a ConditionalRoutedTransformerBlock.
type routedBlock struct {
	attention   routedAttention
	feedForward routedFeedForward
}

func (w *weights) routedBlock(prefix string, c ConditionalRoutedTransformerBlockConfig) routedBlock {
	return routedBlock{w.routedAttention(prefix+"conditional_attn.", c.Attention()), w.routedFeedForward(prefix+"conditional_ff.", c.FeedForward())}
}

// blockCall is one use of a block in a plan.
type blockInput struct {
	blockSizes
	name       string // what the block's routers' names start with
	y, x, mask vk.Range
}

// wire needs no memory for the row between attention and feedforward: it stands in y.
func (l *routedBlock) forward(b *builder, a blockInput) {
	l.attention.forward(b, attentionInput{
		attentionSizes: a.attentionSizes, name: a.name + "conditional_attn.", y: a.y, x: a.x, mask: a.mask, residual: true,
	})
	l.feedForward.forward(b, feedForwardInput{
		b: a.b, n: a.n, tokens: a.tokensFF, masked: a.masked, name: a.name + "conditional_ff.", y: a.y, x: a.y, mask: a.mask, residual: true,
	})
}
