package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// EmbeddingConfig configures an Embedding. Start from Default[EmbeddingConfig].
type EmbeddingConfig struct {
	NumTokens int `json:"num_embeddings"` // V, the vocabulary, at least 1; 256 for bytes
	Dim       int `json:"embedding_dim"`  // C, at least 1
}

func (c *EmbeddingConfig) setDefaults() { *c = EmbeddingConfig{} }

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *EmbeddingConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c EmbeddingConfig) check(k checker) error {
	return firstError(k.atLeast("NumTokens", c.NumTokens, 1), k.dim("Dim", c.Dim))
}

func (c EmbeddingConfig) precision() DType { return F32 }

func (c EmbeddingConfig) build(w *weights) layer {
	return &embeddingLayer{w.add("weight", gaussian(1), c.NumTokens, c.Dim)}
}

// Embedding looks up a vector for each token id.
//
//	x [..] I32 or, for a vocabulary of 256 and more, U8    y [.., C] f32
//	y[i] = weight[x[i]]
//
// Parameter: weight [V, C], the name of PyTorch's nn.Embedding.
type Embedding struct {
	module[EmbeddingConfig]
}

// NewEmbedding makes the module on a device, with the initial values of seed 0.
func NewEmbedding(ctx context.Context, dev *vk.Device, c EmbeddingConfig) (*Embedding, error) {
	m, err := newModule(ctx, "Embedding", dev, c)
	if err != nil {
		return nil, err
	}
	return &Embedding{m}, nil
}

// Forward computes y [.., C] from the token ids x, a tensor of any shape. A token id outside the vocabulary is an error;
// y is then undefined.
func (e *Embedding) Forward(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(e.config.args(y, x))
	return e.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (e *Embedding) Prepare(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(e.config.args(y, x))
	return e.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (e *Embedding) Close() error { return closeModule(e) }

// Memory predicts what a call with x [b, n] i32 needs on a device with these capabilities.
func (c EmbeddingConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return CallOptions{}.call(c.args(nil, nil)).measure("Embedding", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c EmbeddingConfig) args(y, x *Tensor) args {
	a := rowArgs(y, x, 0, c.Dim)
	ids := tokenIDs(x, c.NumTokens)
	if x != nil {
		ids.shape = shape{} // any shape
	}
	a[0] = ids
	return a
}

// embeddingLayer is the weight and the step of an Embedding.
type embeddingLayer struct{ table *Tensor }

func (l *embeddingLayer) record(b *builder) { b.embed(l.table, b.arg("y"), b.rowCount()) }
