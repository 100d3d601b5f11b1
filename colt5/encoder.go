package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// EncoderConfig configures an Encoder. Start from DefaultEncoderConfig, zero values are not the defaults.
type EncoderConfig struct {
	Depth     int         `json:"depth"`      // blocks, at least 1
	NumTokens OptionalInt `json:"num_tokens"` // V, the vocabulary, 256 for bytes; 0: no embedding, x is floats

	ConditionalRoutedTransformerBlockConfig // of every block
}

// DefaultEncoderConfig returns the defaults of the blocks; Depth, Dim and the numbers of tokens are left to the caller.
func DefaultEncoderConfig() EncoderConfig {
	return EncoderConfig{ConditionalRoutedTransformerBlockConfig: DefaultConditionalRoutedTransformerBlockConfig()}
}

// UnmarshalJSON reads a config; what it leaves out has its default, an unknown key is an error.
func (c *EncoderConfig) UnmarshalJSON(data []byte) error {
	type block ConditionalRoutedTransformerBlockConfig // without its methods
	plain := struct {
		Depth     int         `json:"depth"`
		NumTokens OptionalInt `json:"num_tokens"`
		block
	}{block: block(DefaultConditionalRoutedTransformerBlockConfig())}
	if err := decode("EncoderConfig", data, &plain); err != nil {
		return err
	}
	*c = EncoderConfig{plain.Depth, plain.NumTokens, ConditionalRoutedTransformerBlockConfig(plain.block)}
	return nil
}

func (c EncoderConfig) check(op string) error {
	return firstError(checkDepth(op, c.Depth), atLeast(op, "NumTokens", int(c.NumTokens), 0), c.ConditionalRoutedTransformerBlockConfig.check(op))
}

// Encoder encodes long documents: an embedding of tokens or bytes if wanted, blocks, RMSNorm.
//
//	x [B, N] I32 or, for a vocabulary of 256 and more, U8: token ids; without an embedding [B, N, C] F32    mask [B, N] U8
//	y [B, N, C] F32
//
// Parameters: embed.weight [V, C], layers.{i}.*, norm.gamma.
type Encoder struct {
	module
	config EncoderConfig
	layer  encoder
}

// NewEncoder makes the module on a device, with initial values of seed 0.
func NewEncoder(dev *vk.Device, c EncoderConfig) (*Encoder, error) {
	e := &Encoder{config: c}
	if err := e.start("Encoder", dev, c.Precision, c.check, func(w *weights) { e.layer = w.encoder(c) }); err != nil {
		return nil, err
	}
	return e, nil
}

// Config is what the module was made with.
func (e *Encoder) Config() EncoderConfig { return e.config }

// Forward computes y [B, N, C] from x; they share no memory. A token id outside the vocabulary is an error; y means nothing then.
func (e *Encoder) Forward(y, x *Tensor, o BlockOptions) error {
	const op = "Encoder.Forward"
	e.mu.Lock()
	defer e.mu.Unlock()
	tensors := [...]*Tensor{y, x, o.Mask}
	p, err := e.prepared(op, tensors[:], o)
	if err != nil {
		return err
	}
	return e.run(op, p, tensors[:])
}

func (e *Encoder) prepared(op string, tensors []*Tensor, o BlockOptions) (*plan, error) {
	if e.closed {
		return nil, errClosed(op)
	}
	c, y, x := e.config, tensors[0], tensors[1]
	b, n, err := tokenSizes(op, e.dev, x, int(c.NumTokens), c.Dim)
	if err := firstError(err, y.want(op, "y", e.dev, F32, b, n, c.Dim), o.Mask.optional(op, "Mask", e.dev, U8, b, n)); err != nil {
		return nil, err
	}
	s, err := o.sizes(op, c.ConditionalRoutedTransformerBlockConfig, b, n)
	if err != nil {
		return nil, err
	}
	key := s.key()
	key.given[1] = x.dtype == U8
	if p := e.find(&key); p != nil {
		return p, nil
	}
	return e.plan(op, key, tensors, s)
}

func (e *Encoder) plan(op string, key planKey, tensors []*Tensor, s blockSizes) (*plan, error) {
	return e.prepare(op, key, tensors, []string{"y", "x", "Mask"}, func(b *builder) { e.layer.forward(b, s, key.given[1]) })
}

// tokenSizes checks x: ids of a vocabulary, or floats [B, N, dim] if that is 0.
func tokenSizes(op string, dev *vk.Device, x *Tensor, vocabulary, dim int) (b, n int, err error) {
	switch {
	case vocabulary == 0:
		err = x.want(op, "x", dev, F32, -1, -1, dim)
	case x != nil && x.dtype == U8 && vocabulary >= 256:
		err = x.want(op, "x", dev, U8, -1, -1)
	default:
		err = x.want(op, "x", dev, I32, -1, -1)
		if err != nil && vocabulary >= 256 && (x == nil || x.dtype != I32) {
			err = fmt.Errorf("%w or %v[* *]", err, U8)
		}
	}
	if err != nil {
		return 0, 0, err
	}
	return x.shape[0], x.shape[1], nil
}

// Close frees the module and its weights. Closing again, or nil, does nothing.
func (e *Encoder) Close() error {
	if e == nil {
		return nil
	}
	return e.close()
}

// Memory tells what a call for x [b, n], or [b, n, C], needs of a device with these capabilities, without a mask; ids are taken as I32.
func (c EncoderConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	const op = "EncoderConfig.Memory"
	if err := firstError(c.check(op), checkSizes(op, b, n)); err != nil {
		return Memory{}, err
	}
	s, err := BlockOptions{}.sizes(op, c.ConditionalRoutedTransformerBlockConfig, b, n)
	if err != nil {
		return Memory{}, err
	}
	var layer encoder
	ids := 4 * uint64(b) * uint64(n)
	out := ids * uint64(c.Dim)
	in := out
	if c.NumTokens > 0 {
		in = ids
	}
	return measure(op, caps, c.Precision, in, out, func(w *weights) { layer = w.encoder(c) }, func(to *builder) { layer.forward(to, s, false) })
}

// encoder is the weights and the wiring of an Encoder.
type encoder struct {
	config EncoderConfig
	embed  *Tensor // [V, C]; nil: none
	blocks []routedBlock
	gamma  *Tensor
}

func (w *weights) encoder(c EncoderConfig) encoder {
	e := encoder{config: c}
	if c.NumTokens > 0 {
		e.embed = w.add("embed.weight", gaussian(1), int(c.NumTokens), c.Dim)
	}
	for i := range c.Depth {
		e.blocks = append(e.blocks, w.routedBlock(fmt.Sprintf("layers.%d.", i), c.ConditionalRoutedTransformerBlockConfig))
	}
	e.gamma = w.add("norm.gamma", ones, c.Dim)
	return e
}

// wire needs one tensor besides y: the blocks read one and write the other, so that the last one leaves its result there, for the norm.
func (e *encoder) forward(b *builder, s blockSizes, bytes bool) {
	c := e.config
	h := b.floats(s.b, s.n, c.Dim)
	y, now := b.slot(0), b.slot(1)
	if e.embed != nil {
		now = h.Range
		if c.Depth%2 == 1 {
			now = y
		}
		b.embed(e.embed, now, b.slot(1), s.b*s.n, bytes)
	}
	for i := range e.blocks {
		next := h.Range
		if (c.Depth-i)%2 == 0 {
			next = y
		}
		e.blocks[i].forward(b, blockInput{s, fmt.Sprintf("layers.%d.", i), next, now, b.slot(2)})
		now = next
	}
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: c.Dim}, pipelines.RMSNormArgs{X: now, Gamma: e.gamma.memory, Y: y, Rows: s.b * s.n})
	b.release(h)
}

// embed records an embedding of count ids, and counts those outside the vocabulary.
func (b *builder) embed(table *Tensor, y, ids vk.Range, count int, bytes bool) {
	v, c := table.shape[0], table.shape[1]
	a := pipelines.EmbedArgs{IDs: ids, Table: table.memory, Y: y, Rows: count}
	if !bytes {
		bad := b.alloc(16) // until the plan ends: it is read after the run
		b.fill(bad.Range, 0)
		a.InvalidIDs = rows(bad.Range, 0, 1, 4)
		if b.list != nil {
			b.plan.badIDs, b.plan.vocabulary = a.InvalidIDs, v
		}
	}
	record(b, pipelines.NewEmbed, pipelines.EmbedConfig{C: c, V: v, ByteIDs: bytes}, a)
}
