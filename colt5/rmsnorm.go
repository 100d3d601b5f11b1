package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// RMSNormConfig configures an RMSNorm.
type RMSNormConfig struct {
	Dim int `json:"dim"` // C, at least 1
}

func (c *RMSNormConfig) setDefaults() { *c = RMSNormConfig{} }

// UnmarshalJSON reads a configuration. An unknown or repeated key is an error.
func (c *RMSNormConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c RMSNormConfig) check(k checker) error { return k.dim("Dim", c.Dim) }

func (c RMSNormConfig) precision() DType { return F32 }

func (c RMSNormConfig) build(w *weights) layer { return rmsNorm{w.add("gamma", ones, c.Dim)} }

// RMSNorm scales rows to the same length.
//
//	x, y [.., C] F32
//	y = x / max(||x||_2, 1e-12) * sqrt(C) * gamma
//
// Parameters: gamma [C]. Source: arXiv 1910.07467.
type RMSNorm struct {
	module[RMSNormConfig]
}

// CallOptions are the options of Forward of modules without optional arguments.
type CallOptions struct {
	Stats *CallStats // receives what the call cost; nil: not wanted
}

// NewRMSNorm makes the module on a device. All of gamma is 1.
func NewRMSNorm(ctx context.Context, dev *vk.Device, c RMSNormConfig) (*RMSNorm, error) {
	m, err := newModule(ctx, "RMSNorm", dev, c)
	if err != nil {
		return nil, err
	}
	return &RMSNorm{m}, nil
}

// Forward computes y from x. The two have the same shape, of any rank, and share no memory.
func (r *RMSNorm) Forward(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, r.config.Dim, r.config.Dim))
	return r.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (r *RMSNorm) Prepare(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, r.config.Dim, r.config.Dim))
	return r.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (r *RMSNorm) Close() error { return closeModule(r) }

// Memory predicts what a call with x [b, n, C] needs on a device with these capabilities.
func (c RMSNormConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return CallOptions{}.call(rowArgs(nil, nil, c.Dim, c.Dim)).measure("RMSNorm", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

func (o CallOptions) call(args args) call { return call{args: args, anyRank: true, stats: o.Stats} }

// rowArgs are the arguments of modules that process each row alone: x [.., in] and y [.., out]. Without x, which is how
// Memory measures, they are [B, N, ..].
func rowArgs(y, x *Tensor, in, out int) args {
	rows := func(width int) shape {
		if x == nil {
			return shape{dimB, dimN, width}
		}
		return shape{width}
	}
	return args{{name: "x", tensor: x, shape: rows(in)}, {name: "y", tensor: y, shape: rows(out), kind: output}}
}

// rowCount is the number of rows of a call with rowArgs.
func (b *builder) rowCount() int { return b.call.lead() * max(b.dim(dimB)*b.dim(dimN), 1) }

// rmsNorm is the layer of an RMSNorm.
type rmsNorm struct{ gamma *Tensor }

func (r rmsNorm) record(b *builder) {
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: r.gamma.shape[0]}, pipelines.RMSNormArgs{
		X: b.arg("x"), Gamma: r.gamma.memory, Y: b.arg("y"), Rows: b.rowCount(),
	})
}
