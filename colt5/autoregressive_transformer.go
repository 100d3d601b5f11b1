package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// AutoregressiveTransformerConfig configures an AutoregressiveTransformer. Start from DefaultAutoregressiveTransformerConfig, zero values
// are not the defaults.
type AutoregressiveTransformerConfig struct {
	Depth     int     `json:"depth"`      // layers, at least 1
	NumTokens int     `json:"num_tokens"` // V, the vocabulary, at least 1; 256 for bytes
	FFMult    float64 `json:"ff_mult"`    // hidden size of the feedforward is int(C * this), at least 1

	ConditionalRoutedAutoregressiveAttentionConfig // of every layer
}

// DefaultAutoregressiveTransformerConfig returns the defaults: bytes, FFMult 4, attention with rotary positions; Depth, Dim and the numbers of
// heavy tokens are left to the caller.
func DefaultAutoregressiveTransformerConfig() AutoregressiveTransformerConfig {
	c := AutoregressiveTransformerConfig{
		NumTokens: 256, FFMult: 4, ConditionalRoutedAutoregressiveAttentionConfig: DefaultConditionalRoutedAutoregressiveAttentionConfig(),
	}
	c.RotaryEmb = true
	return c
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *AutoregressiveTransformerConfig) UnmarshalJSON(data []byte) error {
	type attention ConditionalRoutedAutoregressiveAttentionConfig // without its methods
	d := DefaultAutoregressiveTransformerConfig()
	plain := struct {
		Depth     int     `json:"depth"`
		NumTokens int     `json:"num_tokens"`
		FFMult    float64 `json:"ff_mult"`
		attention
	}{d.Depth, d.NumTokens, d.FFMult, attention(d.ConditionalRoutedAutoregressiveAttentionConfig)}
	if err := decode("AutoregressiveTransformerConfig", data, &plain); err != nil {
		return err
	}
	*c = AutoregressiveTransformerConfig{plain.Depth, plain.NumTokens, plain.FFMult, ConditionalRoutedAutoregressiveAttentionConfig(plain.attention)}
	return nil
}

func (c AutoregressiveTransformerConfig) check(op string) error {
	return firstError(
		checkDepth(op, c.Depth), atLeast(op, "NumTokens", c.NumTokens, 1), aboveZero(op, "FFMult", c.FFMult),
		c.ConditionalRoutedAutoregressiveAttentionConfig.check(op), atLeast(op, "int(Dim * FFMult)", int(float64(c.Dim)*c.FFMult), 1),
	)
}

// AutoregressiveTransformer predicts the next token of long texts: an embedding of tokens or bytes, layers of routed autoregressive
// attention and plain feedforward, RMSNorm, logits.
//
//	x [B, N] I32 or, for a vocabulary of 256 and more, U8: token ids    y [B, N, V] F32: logits of the token after each
//
// The feedforward sees every token: a routed one would choose among later tokens. Parameters: embed.weight [V, C],
// layers.{i}.attn.*, layers.{i}.ff.*, norm.gamma, to_logits.weight [V, C].
type AutoregressiveTransformer struct {
	module
	config AutoregressiveTransformerConfig
	layer  autoregressiveTransformer
}

// NewAutoregressiveTransformer makes the module on a device, with initial values of seed 0.
func NewAutoregressiveTransformer(dev *vk.Device, c AutoregressiveTransformerConfig) (*AutoregressiveTransformer, error) {
	t := &AutoregressiveTransformer{config: c}
	err := t.start("AutoregressiveTransformer", dev, c.Precision, c.check, func(w *weights) { t.layer = w.autoregressiveTransformer(c) })
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Config is what the module was made with.
func (t *AutoregressiveTransformer) Config() AutoregressiveTransformerConfig { return t.config }

// Forward computes logits y [B, N, V] of token ids x [B, N]; they share no memory. An id outside the vocabulary is an error; y means
// nothing then.
func (t *AutoregressiveTransformer) Forward(y, x *Tensor, o AutoregressiveOptions) error {
	const op = "AutoregressiveTransformer.Forward"
	t.mu.Lock()
	defer t.mu.Unlock()
	tensors := [...]*Tensor{y, x}
	p, err := t.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return t.run(op, p, tensors[:])
}

func (t *AutoregressiveTransformer) prepared(op string, tensors []*Tensor, o AutoregressiveOptions) (*plan, error) {
	if t.closed {
		return nil, errClosed(op)
	}
	c, y, x := t.config, tensors[0], tensors[1]
	b, n, err := tokenSizes(op, t.dev, x, c.NumTokens, c.Dim)
	if err := firstError(err, y.want(op, "y", t.dev, F32, b, n, c.NumTokens)); err != nil {
		return nil, err
	}
	s, err := o.sizes(op, c.ConditionalRoutedAutoregressiveAttentionConfig, b, n)
	if err != nil {
		return nil, err
	}
	key := planKey{sizes: [6]int{b, n, s.tokensQ, s.tokensKV}, given: [2]bool{1: x.dtype == U8}}
	if p := t.find(&key); p != nil {
		return p, nil
	}
	return t.plan(op, key, tensors, s)
}

func (t *AutoregressiveTransformer) plan(op string, key planKey, tensors []*Tensor, s attentionSizes) (*plan, error) {
	return t.prepare(op, key, tensors, []string{"y", "x"}, func(b *builder) { t.layer.forward(b, s, key.given[1]) })
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (t *AutoregressiveTransformer) Close() error {
	if t == nil {
		return nil
	}
	return t.close()
}

// Memory tells what a call for I32 ids x [b, n] needs of a device with these capabilities.
func (c AutoregressiveTransformerConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	const op = "AutoregressiveTransformerConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n)); err != nil {
		return Memory{}, err
	}
	s, err := AutoregressiveOptions{}.sizes(op, c.ConditionalRoutedAutoregressiveAttentionConfig, b, n)
	if err != nil {
		return Memory{}, err
	}
	var layer autoregressiveTransformer
	ids := 4 * uint64(b) * uint64(n)
	return measure(op, caps, c.Precision, ids, ids*uint64(c.NumTokens), func(w *weights) { layer = w.autoregressiveTransformer(c) }, func(to *builder) {
		layer.forward(to, s, false)
	})
}

// autoregressiveTransformer is the weights and the wiring of an AutoregressiveTransformer.
type autoregressiveTransformer struct {
	config      AutoregressiveTransformerConfig
	embed       *Tensor // [V, C]
	attention   []autoregressiveAttention
	feedForward []feedForward
	gamma       *Tensor
	toLogits    *Tensor // [V, C]
}

func (w *weights) autoregressiveTransformer(c AutoregressiveTransformerConfig) autoregressiveTransformer {
	t := autoregressiveTransformer{config: c, embed: w.add("embed.weight", gaussian(1), c.NumTokens, c.Dim)}
	for i := range c.Depth {
		t.attention = append(t.attention, w.autoregressiveAttention(fmt.Sprintf("layers.%d.attn.", i), c.ConditionalRoutedAutoregressiveAttentionConfig))
		t.feedForward = append(t.feedForward, w.feedForward(fmt.Sprintf("layers.%d.ff", i), c.Dim, c.FFMult))
	}
	t.gamma = w.add("norm.gamma", ones, c.Dim)
	t.toLogits = w.matrix("to_logits.weight", c.NumTokens, c.Dim)
	return t
}

func (t *autoregressiveTransformer) forward(b *builder, s attentionSizes, bytes bool) {
	c, count := t.config, s.b*s.n
	now, next := b.floats(count, c.Dim), b.floats(count, c.Dim)
	b.embed(t.embed, now.Range, b.slot(1), count, bytes)
	for i := range t.attention {
		t.attention[i].forward(b, attentionInput{attentionSizes: s, name: fmt.Sprintf("layers.%d.attn.", i), y: next.Range, x: now.Range, residual: true})
		now, next = next, now
		recordInterleaved(t.feedForward[i].phases(b, now.Range, now.Range, count, hiddenBytes, true))
	}
	b.linear(t.toLogits, 0, 0, pipelines.LinearConfig{Norm: true}, pipelines.LinearArgs{
		X: now.Range, Gamma: t.gamma.memory, Y: b.slot(0), Batch: 1, Rows: count,
	})
	b.release(now, next)
}
