package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// LocalMHAConfig configures a LocalMHA. Start from Default[LocalMHAConfig]: zero values are not the defaults.
type LocalMHAConfig struct {
	Dim             int   `json:"dim"`                // C, at least 1
	WindowSize      int   `json:"window_size"`        // W, at least 1, less than 2^30
	DimHead         int   `json:"dim_head"`           // 1 to 128; even with UseRotaryPosEmb
	Heads           int   `json:"heads"`              // 1 to 65536
	Causal          bool  `json:"causal"`             // no token attends to later ones
	PreNorm         bool  `json:"prenorm"`            // LayerNorm before the projections
	ExactWindowSize bool  `json:"exact_windowsize"`   // a token attends to W tokens on each side, not to whole blocks; only with Causal may it be false
	UseRotaryPosEmb bool  `json:"use_rotary_pos_emb"` // rotary position embedding of queries and keys
	Precision       DType `json:"precision"`          // of the matrix products: F32 (the default), F16 or BF16
}

func (c *LocalMHAConfig) setDefaults() {
	*c = LocalMHAConfig{DimHead: 64, Heads: 8, ExactWindowSize: true, UseRotaryPosEmb: true}
}

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *LocalMHAConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c LocalMHAConfig) check(k checker) error {
	if err := firstError(k.dim("Dim", c.Dim), k.window("WindowSize", c.WindowSize), k.heads("", c.Heads, c.DimHead)); err != nil {
		return err
	}
	if err := k.evenHeads("DimHead", c.DimHead, "UseRotaryPosEmb", c.UseRotaryPosEmb); err != nil {
		return err
	}
	if !c.ExactWindowSize && !c.Causal {
		return k.errorf("ExactWindowSize", "is false, want true without Causal")
	}
	return nil
}

func (c LocalMHAConfig) precision() DType { return c.Precision }

func (c LocalMHAConfig) build(w *weights) layer {
	a := w.windowAttention("", lightConfig{
		dim: c.Dim, dimHead: c.DimHead, heads: c.Heads, window: c.WindowSize, causal: c.Causal, exact: c.Causal && c.ExactWindowSize,
		rotary: c.UseRotaryPosEmb, noNorm: !c.PreNorm,
	})
	if c.UseRotaryPosEmb {
		w.buffer("attn_fn.rel_pos.inv_freq")
	}
	return &localMHA{a, lightBytes}
}

// LocalMHA lets every token attend to its neighbourhood: the light attention of a ConditionalRoutedAttention, and the
// layer of the local-attention package.
//
//	x, y [B, N, C] F32    mask [B, N] u8
//	y = to_out(softmax(q k^T / sqrt(DimHead)) v), q, k, v = to_qkv(layernorm(x)) (with PreNorm), per head
//	token i attends to the real tokens j with |i - j| <= W
//	with Causal: i - W <= j <= i; without ExactWindowSize j <= i of its own block of W tokens and of the previous block
//
// A token that sees no real token gets 0. With UseRotaryPosEmb queries and keys are rotated by their position; without
// Causal the queries by W more, which is what PyTorch does and therefore what its weights are trained for.
//
// Parameters: norm.weight [C], norm.bias [C] (with PreNorm), to_qkv.weight [3 * Heads * DimHead, C], to_out.weight [C,
// Heads * DimHead]. attn_fn.rel_pos.inv_freq, the frequencies that PyTorch saves, is ignored when loading. The
// defaults are those of local-attention 1.11; a ConditionalRoutedAttention has PreNorm and no UseRotaryPosEmb. Source:
// arXiv 2004.05150.
type LocalMHA struct {
	module[LocalMHAConfig]
}

// LocalMHAOptions are the optional arguments of LocalMHA.Forward.
type LocalMHAOptions struct {
	Mask *Tensor // [B, N] u8, 1 for a real token; nil: all tokens are real

	Stats *CallStats // receives what the call cost; nil: not wanted
}

// NewLocalMHA makes the module on a device, with the initial values of seed 0.
func NewLocalMHA(ctx context.Context, dev *vk.Device, c LocalMHAConfig) (*LocalMHA, error) {
	m, err := newModule(ctx, "LocalMHA", dev, c)
	if err != nil {
		return nil, err
	}
	return &LocalMHA{m}, nil
}

// Forward computes y [B, N, C] from x [B, N, C]. The two share no memory.
func (a *LocalMHA) Forward(ctx context.Context, y, x *Tensor, o LocalMHAOptions) error {
	c := a.config.call(y, x, o)
	return a.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (a *LocalMHA) Prepare(ctx context.Context, y, x *Tensor, o LocalMHAOptions) error {
	c := a.config.call(y, x, o)
	return a.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (a *LocalMHA) Close() error { return closeModule(a) }

// Memory predicts what a call with x [b, n, C] and no mask needs on a device with these capabilities.
func (c LocalMHAConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return c.call(nil, nil, LocalMHAOptions{}).measure("LocalMHA", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (c LocalMHAConfig) call(y, x *Tensor, o LocalMHAOptions) call {
	return call{args: sequenceArgs(y, x, o.Mask, c.Dim), stats: o.Stats}
}

// localMHA is the layer of a LocalMHA.
type localMHA struct {
	windowAttention
	budget int // bytes of workspace; lightBytes except in tests
}

func (l *localMHA) record(b *builder) {
	b.nextLayer()
	recordInterleaved(l.phases(lightOutput{b: b, x: b.arg("x"), y: b.arg("y")}, b.arg("Mask"), b.dim(dimB), b.dim(dimN), l.budget))
}
