package colt5

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
)

// AutoregressiveTransformerConfig configures an AutoregressiveTransformer. Start from
// Default[AutoregressiveTransformerConfig]: zero values are not the defaults.
type AutoregressiveTransformerConfig struct {
	Depth     int     `json:"depth"`      // layers, at least 1
	NumTokens int     `json:"num_tokens"` // V, the vocabulary, at least 1; 256 for bytes
	FFMult    float64 `json:"ff_mult"`    // hidden size of the feedforward is int(C * this), at least 1

	// Dropout is the probability with which elements of the embedding and of the results of attentions and feedforwards are set
	// to 0 in training: in graphs whose GraphOptions.Dropout is set. At least 0 and below 1; 0: none.
	Dropout float64 `json:"dropout"`

	ConditionalRoutedAutoregressiveAttentionConfig // of every layer
}

func (c *AutoregressiveTransformerConfig) setDefaults() {
	*c = AutoregressiveTransformerConfig{
		NumTokens: 256, FFMult: 4, ConditionalRoutedAutoregressiveAttentionConfig: Default[ConditionalRoutedAutoregressiveAttentionConfig](),
	}
	c.RotaryEmb = true
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *AutoregressiveTransformerConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c AutoregressiveTransformerConfig) check(k checker) error {
	return firstError(
		k.depth(c.Depth), k.between("NumTokens", c.NumTokens, 1, maxRow), k.rate("Dropout", c.Dropout),
		c.ConditionalRoutedAutoregressiveAttentionConfig.check(k), k.hidden("FFMult", c.Dim, c.FFMult),
	)
}

func (c AutoregressiveTransformerConfig) build(w *weights) layer {
	return w.autoregressiveTransformer(c)
}

// AutoregressiveTransformer predicts the next token of long texts: an embedding of tokens or bytes, layers of routed
// autoregressive attention and plain feedforward, RMSNorm, logits.
//
//	x [B, N] I32 or, for a vocabulary of 256 and more, U8: token ids    y [B, N, V] F32: logits of the token after each
//
// The feedforward is applied to every token: a router would select among later tokens. Parameters: embed.weight [V, C],
// layers.{i}.attn.*, layers.{i}.ff.*, norm.gamma, to_logits.weight [V, C].
type AutoregressiveTransformer struct {
	module[AutoregressiveTransformerConfig]
}

// NewAutoregressiveTransformer makes the module on a device, with the initial values of seed 0.
func NewAutoregressiveTransformer(ctx context.Context, dev *vk.Device, c AutoregressiveTransformerConfig) (*AutoregressiveTransformer, error) {
	m, err := newModule(ctx, "AutoregressiveTransformer", dev, c)
	if err != nil {
		return nil, err
	}
	return &AutoregressiveTransformer{m}, nil
}

// Forward computes logits y [B, N, V] of token ids x [B, N]. The two share no memory. A token id outside the vocabulary
// is an error; y is then undefined.
func (t *AutoregressiveTransformer) Forward(ctx context.Context, y, x *Tensor, o AutoregressiveOptions) error {
	c := t.config.call(y, x, o)
	return t.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (t *AutoregressiveTransformer) Prepare(ctx context.Context, y, x *Tensor, o AutoregressiveOptions) error {
	c := t.config.call(y, x, o)
	return t.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (t *AutoregressiveTransformer) Close() error { return closeModule(t) }

// Memory predicts what a call with x [b, n] i32 needs on a device with these capabilities.
func (c AutoregressiveTransformerConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, AutoregressiveOptions{}).measure("AutoregressiveTransformer", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c AutoregressiveTransformerConfig) call(y, x *Tensor, o AutoregressiveOptions) call {
	return o.call(c.ConditionalRoutedAutoregressiveAttentionConfig, args{
		tokenIDs(x, c.NumTokens), {name: "y", tensor: y, shape: shape{dimB, dimN, c.NumTokens}, kind: output},
	})
}

// autoregressiveTransformer is the weights and the steps of an AutoregressiveTransformer.
type autoregressiveTransformer struct {
	config      AutoregressiveTransformerConfig
	embed       *Tensor // [V, C]
	attention   []*autoregressiveAttention
	feedForward []feedForward
	gamma       *Tensor
	toLogits    *Tensor // [V, C]
	budget      int     // see head; lossBytes except in tests
}

func (w *weights) autoregressiveTransformer(c AutoregressiveTransformerConfig) *autoregressiveTransformer {
	t := &autoregressiveTransformer{config: c, embed: w.add("embed.weight", gaussian(1), c.NumTokens, c.Dim), budget: lossBytes}
	for i := range c.Depth {
		t.attention = append(t.attention, w.autoregressiveAttention(fmt.Sprintf("layers.%d.attn.", i), c.ConditionalRoutedAutoregressiveAttentionConfig))
		t.feedForward = append(t.feedForward, w.feedForward(fmt.Sprintf("layers.%d.ff.", i), c.Dim, c.FFMult))
	}
	t.gamma = w.add("norm.gamma", ones, c.Dim)
	t.toLogits = w.matrix("to_logits.weight", c.NumTokens, c.Dim)
	return t
}

func (t *autoregressiveTransformer) record(b *builder) {
	if b.training() || b.dropping(t.config.Dropout) {
		t.recordTraining(b)
		return
	}
	c, s := t.config, attentionSizesOf(b)
	count := s.b * s.n
	current, next := b.floats(count, c.Dim), b.floats(count, c.Dim)
	b.embed(t.embed, current.Range, count)
	for i := range t.attention {
		t.attention[i].forward(b, attentionInput{attentionSizes: s, name: fmt.Sprintf("layers.%d.attn.", i), y: next.Range, x: current.Range, residual: true})
		current, next = next, current
		recordInterleaved(t.feedForward[i].phases(b, current.Range, current.Range, count, hiddenBytes, true))
	}
	t.head().record(b, current.Range, s.b, s.n)
	b.release(current, next)
}

// head is the norm and the logits of the last layer's rows.
func (t *autoregressiveTransformer) head() head {
	return head{weight: t.toLogits, gamma: t.gamma, budget: t.budget}
}

func (t *autoregressiveTransformer) computesLoss() {}
