package colt5

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// EncoderConfig configures an Encoder. Start from Default[EncoderConfig]:
// zero values are not the defaults.
type EncoderConfig struct {
	Depth     int `json:"depth"`      // blocks, at least 1
	NumTokens int `json:"num_tokens"` // V, the vocabulary, 256 for bytes; 0: no embedding, x is floats

	// Dropout is the probability with which elements of the embedding and of the results of attentions and feedforwards are set
	// to 0 in training: in graphs whose GraphOptions.Dropout is set. At least 0 and below 1; 0: none.
	Dropout float64 `json:"dropout"`

	ConditionalRoutedTransformerBlockConfig // of every block
}

func (c *EncoderConfig) setDefaults() {
	*c = EncoderConfig{ConditionalRoutedTransformerBlockConfig: Default[ConditionalRoutedTransformerBlockConfig]()}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *EncoderConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c EncoderConfig) check(k checker) error {
	return firstError(k.depth(c.Depth), k.rate("Dropout", c.Dropout), k.between("NumTokens", c.NumTokens, 0, maxRow), c.ConditionalRoutedTransformerBlockConfig.check(k))
}

func (c EncoderConfig) build(w *weights) layer { return w.encoder(c) }

// Encoder encodes long documents: an optional embedding of tokens or bytes, Depth transformer blocks, RMSNorm.
//
//	x [B, N] I32 or, for a vocabulary of 256 and more, U8: token ids; without an embedding [B, N, C] f32    mask [B, N] u8
//	y [B, N, C] F32
//
// Parameters: embed.weight [V, C], layers.{i}.*, norm.gamma.
type Encoder struct {
	module[EncoderConfig]
}

// NewEncoder makes the module on a device, with the initial values of seed 0.
func NewEncoder(ctx context.Context, dev *vk.Device, c EncoderConfig) (*Encoder, error) {
	m, err := newModule(ctx, "Encoder", dev, c)
	if err != nil {
		return nil, err
	}
	return &Encoder{m}, nil
}

// Forward computes y [B, N, C] from x. The two share no memory. A token id outside the vocabulary is an error; y is
// then undefined.
func (e *Encoder) Forward(ctx context.Context, y, x *Tensor, o BlockOptions) error {
	c := e.config.call(y, x, o)
	return e.run(ctx, &c)
}

// Prepare makes the plan of a call with tensors of these shapes and with these options, and compiles the kernels that are
// missing, so that the first such Forward takes no longer than later ones. It neither reads nor writes the tensors, and
// fills neither Stats nor Routing of the options; whether they are wanted is a part of the plan. Nothing runs, except that a
// 16-bit precision casts weights that have changed. The plan is kept as one of a Forward is: see [PlanLimits].
func (e *Encoder) Prepare(ctx context.Context, y, x *Tensor, o BlockOptions) error {
	c := e.config.call(y, x, o)
	return e.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (e *Encoder) Close() error { return closeModule(e) }

// Memory predicts what a call with x [b, n] i32, or [b, n, C] f32 without an embedding, and no mask needs on a device
// with these capabilities.
func (c EncoderConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, BlockOptions{}).measure("Encoder", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c EncoderConfig) call(y, x *Tensor, o BlockOptions) call {
	args := sequenceArgs(y, x, o.Mask, c.Dim)
	if c.NumTokens > 0 {
		args[0] = tokenIDs(x, c.NumTokens)
	}
	return o.call(c.ConditionalRoutedTransformerBlockConfig, args)
}

// tokenIDs is the argument x [B, N] of a model with an embedding. Bytes are accepted where the vocabulary has all 256.
func tokenIDs(x *Tensor, vocabulary int) arg {
	return arg{name: "x", tensor: x, dtype: I32, orU8: vocabulary >= 256, shape: shape{dimB, dimN}}
}

// encoder is the weights and the steps of an Encoder.
type encoder struct {
	config EncoderConfig
	embed  *Tensor // [V, C]; nil: none
	blocks []*routedBlock
	gamma  *Tensor
}

func (w *weights) encoder(c EncoderConfig) *encoder {
	e := &encoder{config: c}
	if c.NumTokens > 0 {
		e.embed = w.add("embed.weight", gaussian(1), c.NumTokens, c.Dim)
	}
	for i := range c.Depth {
		e.blocks = append(e.blocks, w.routedBlock(fmt.Sprintf("layers.%d.", i), c.ConditionalRoutedTransformerBlockConfig))
	}
	e.gamma = w.add("norm.gamma", ones, c.Dim)
	return e
}

// record alternates between y and one tensor of workspace: each block reads one and writes the other. The last block
// leaves its result in y.
func (e *encoder) record(b *builder) {
	if b.training() || b.dropping(e.config.Dropout) {
		e.recordTraining(b)
		return
	}
	c, s, y := e.config, blockSizesOf(b), b.arg("y")
	h := b.floats(s.b, s.n, c.Dim)
	current := b.arg("x")
	if e.embed != nil {
		current = h.Range
		if c.Depth%2 == 1 {
			current = y
		}
		b.embed(e.embed, current, s.b*s.n)
	}
	for i := range e.blocks {
		next := h.Range
		if (c.Depth-i)%2 == 0 {
			next = y
		}
		e.blocks[i].forward(b, blockInput{s, fmt.Sprintf("layers.%d.", i), next, current, b.arg("Mask"), 0, 0})
		current = next
	}
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: c.Dim}, pipelines.RMSNormArgs{X: current, Gamma: e.gamma.memory, Y: y, Rows: s.b * s.n})
	b.release(h)
}

// recordTraining keeps the inputs of all blocks for the backward pass.
func (e *encoder) recordTraining(b *builder) {
	c, s := e.config, blockSizesOf(b)
	var inputs []allocation
	for i := range c.Depth + 1 {
		if i == 0 && e.embed == nil {
			inputs = append(inputs, allocation{})
			continue
		}
		inputs = append(inputs, b.floats(s.b, s.n, c.Dim))
	}
	current := b.arg("x")
	if e.embed != nil {
		current = inputs[0].Range
		b.embed(e.embed, current, s.b*s.n)
		if b.dropping(c.Dropout) {
			b.drop(current, current, s.b*s.n*c.Dim, c.Dropout, 0)
		}
	}
	for i := range e.blocks {
		next := inputs[i+1].Range
		b.nextLayer()
		e.blocks[i].forward(b, blockInput{s, fmt.Sprintf("layers.%d.", i), next, current, b.arg("Mask"), c.Dropout, 1 + 2*i})
		current = next
	}
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: c.Dim}, pipelines.RMSNormArgs{X: current, Gamma: e.gamma.memory, Y: b.arg("y"), Rows: s.b * s.n})
	b.save(inputs...)
}

// embed records the embedding of the call's x, count token ids, and counts the ids outside the vocabulary.
func (b *builder) embed(table *Tensor, y vk.Range, count int) {
	v, c, byteIDs := table.shape[0], table.shape[1], b.isU8("x")
	a := pipelines.EmbedArgs{IDs: b.arg("x"), Table: table.memory, Y: y, Rows: count}
	config := pipelines.EmbedConfig{C: c, V: v, ByteIDs: byteIDs}
	if byteIDs {
		record(b, pipelines.NewEmbed, config, a)
		return
	}
	invalid := b.alloc(16)
	b.fill(invalid.Range, 0)
	a.InvalidIDs = rows(invalid.Range, 0, 1, 4)
	record(b, pipelines.NewEmbed, config, a)
	b.checkIDs(a.InvalidIDs, "x", fmt.Sprintf("token ids outside the vocabulary of %d", v))
	b.release(invalid)
}

// checkIDs makes the plan read, after each run, how many ids of an argument are not valid: what they are then. The kernel that
// counts them has been recorded.
func (b *builder) checkIDs(invalid vk.Range, argument, what string) {
	if b.list == nil || b.err != nil {
		return
	}
	count, err := b.list.Device().NewHostBuffer("count of "+argument, 4)
	if err == nil {
		b.plan.ids = append(b.plan.ids, checkedIDs{b.prefixed(argument), what, count})
		err = b.list.Copy(count.Range(), invalid)
	}
	if err != nil {
		b.fail(err)
	}
}
