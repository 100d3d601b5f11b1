package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/vk"
)

// LinearConfig configures a Linear. Start from Default[LinearConfig]: zero values are not the defaults.
type LinearConfig struct {
	In        int   `json:"in_features"`  // elements of a row of x, at least 1
	Out       int   `json:"out_features"` // elements of a row of y, at least 1
	Bias      bool  `json:"bias"`         // add a bias
	Precision DType `json:"precision"`    // of the matrix product: F32 (the default), F16 or BF16
}

func (c *LinearConfig) setDefaults() { *c = LinearConfig{Bias: true} }

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *LinearConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c LinearConfig) check(k checker) error {
	return firstError(k.dim("In", c.In), k.dim("Out", c.Out))
}

func (c LinearConfig) precision() DType { return c.Precision }

func (c LinearConfig) build(w *weights) layer {
	l := &linearLayer{weight: w.matrix("weight", c.Out, c.In), budget: lossBytes}
	if c.Bias {
		l.bias = w.add("bias", uniform(c.In), c.Out)
	}
	return l
}

// Linear is a matrix product with an optional bias: the head of a classifier, for example.
//
//	x [.., In] f32    y [.., Out] f32
//	y = x weight^T + bias
//
// Parameters: weight [Out, In], bias [Out]. They have the names of PyTorch's nn.Linear.
type Linear struct {
	module[LinearConfig]
}

// NewLinear makes the module on a device, with the initial values of seed 0.
func NewLinear(ctx context.Context, dev *vk.Device, c LinearConfig) (*Linear, error) {
	m, err := newModule(ctx, "Linear", dev, c)
	if err != nil {
		return nil, err
	}
	return &Linear{m}, nil
}

// Forward computes y [.., Out] from x [.., In], which has at least one dimension. The two share no memory.
func (l *Linear) Forward(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, l.config.In, l.config.Out))
	return l.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (l *Linear) Prepare(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, l.config.In, l.config.Out))
	return l.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (l *Linear) Close() error { return closeModule(l) }

// Memory predicts what a call with x [b, n, In] needs on a device with these capabilities.
func (c LinearConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return CallOptions{}.call(rowArgs(nil, nil, c.In, c.Out)).measure("Linear", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

// linearLayer is the weights and the step of a Linear.
type linearLayer struct {
	weight, bias *Tensor // bias nil: none
	budget       int     // see head; lossBytes except in tests
}

func (l *linearLayer) head() head { return head{weight: l.weight, bias: l.bias, budget: l.budget} }

func (l *linearLayer) record(b *builder) {
	items := b.items()
	l.head().record(b, b.arg("x"), items, b.rowCount()/items)
}

func (l *linearLayer) computesLoss() {}
