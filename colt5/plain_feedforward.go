package colt5

import (
	"context"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// FeedForwardConfig configures a FeedForward. Start from Default[FeedForwardConfig]: zero values are not the defaults.
type FeedForwardConfig struct {
	Dim       int     `json:"dim"`       // C, at least 1
	Mult      float64 `json:"mult"`      // the hidden size is int(C * this), at least 1
	Precision DType   `json:"precision"` // of the matrix products: F32 (the default), F16 or BF16
}

func (c *FeedForwardConfig) setDefaults() { *c = FeedForwardConfig{Mult: 4} }

// UnmarshalJSON reads a configuration. Absent keys get their defaults; an unknown or repeated key is an error.
func (c *FeedForwardConfig) UnmarshalJSON(data []byte) error {
	return decode(data, c)
}

func (c FeedForwardConfig) check(k checker) error {
	return firstError(k.dim("Dim", c.Dim), k.hidden("Mult", c.Dim, c.Mult))
}

func (c FeedForwardConfig) precision() DType { return c.Precision }

func (c FeedForwardConfig) build(w *weights) layer { return w.feedForward("", c.Dim, c.Mult) }

// FeedForward is the feedforward of a transformer, without routing: the branches of a ConditionalRoutedFeedForward are
// two of them.
//
//	x, y [.., C] F32
//	y = gelu(rmsnorm(x) w1^T + b1) w2^T + b2, with the exact GELU
//
// Parameters: 0.gamma [C], 1.weight [H, C], 1.bias [H], 3.weight [C, H], 3.bias [C], H = int(C * Mult).
type FeedForward struct {
	module[FeedForwardConfig]
}

// NewFeedForward makes the module on a device, with the initial values of seed 0.
func NewFeedForward(ctx context.Context, dev *vk.Device, c FeedForwardConfig) (*FeedForward, error) {
	m, err := newModule(ctx, "FeedForward", dev, c)
	if err != nil {
		return nil, err
	}
	return &FeedForward{m}, nil
}

// Forward computes y from x. The two have the same shape, of any rank, and share no memory.
func (f *FeedForward) Forward(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, f.config.Dim, f.config.Dim))
	return f.run(ctx, &c)
}

// Prepare makes the plan of such a call in advance: see [Encoder.Prepare].
func (f *FeedForward) Prepare(ctx context.Context, y, x *Tensor, o CallOptions) error {
	c := o.call(rowArgs(y, x, f.config.Dim, f.config.Dim))
	return f.prepare(ctx, &c)
}

// Close frees the module and its weights. It waits for a call under way. Closing again, or nil, does nothing.
func (f *FeedForward) Close() error { return closeModule(f) }

// Memory predicts what a call with x [b, n, C] needs on a device with these capabilities.
func (c FeedForwardConfig) Memory(caps vk.Caps, b, n int) (Memory, error) {
	return CallOptions{}.call(rowArgs(nil, nil, c.Dim, c.Dim)).measure("FeedForward", caps, c, dimSize{dimB, b}, dimSize{dimN, n})
}

// feedForward is RMSNorm, Linear, GELU, Linear: the weights and the steps of a FeedForward, or of a branch of a routed one.
type feedForward struct {
	dim, hidden                 int
	fixedRows                   int // rows per batch item if the configuration alone determines them (ViT), else 0; enables split-K, see LinearSplit
	gamma, w1, bias1, w2, bias2 *Tensor
}

func (w *weights) feedForward(prefix string, dim int, mult float64) feedForward {
	hidden := int(float64(dim) * mult)
	return feedForward{
		dim: dim, hidden: hidden,
		gamma: w.add(prefix+"0.gamma", ones, dim),
		w1:    w.matrix(prefix+"1.weight", hidden, dim),
		bias1: w.add(prefix+"1.bias", uniform(dim), hidden),
		w2:    w.matrix(prefix+"3.weight", dim, hidden),
		bias2: w.add(prefix+"3.bias", uniform(hidden), dim),
	}
}

// up records RMSNorm, the first Linear and GELU, with the result in hidden. If normed, a.X is a normalised 16-bit
// operand already. pre, if it is not absent, receives what GELU is applied to, in the format of hidden.
func (f feedForward) up(b *builder, hidden operand, pre vk.Range, normed bool, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.GELU, c.Preactivation, a.Preactivation = true, !pre.IsZero(), pre
	f.beforeGELU(b, hidden, normed, c, a)
}

// beforeGELU is up without GELU.
func (f feedForward) beforeGELU(b *builder, hidden operand, normed bool, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.Bias, c.Norm, c.X16, c.Y16 = true, !normed, normed, hidden.is16
	c.Split = b.split(f.w1, f.fixedRows)
	a.Bias, a.Y = f.bias1.memory, hidden.Range
	if !normed {
		a.Gamma = f.gamma.memory
	}
	b.linear(f.w1, 0, 0, c, a)
}

// down records the second Linear, from hidden.
func (f feedForward) down(b *builder, hidden operand, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.Bias, c.X16, c.Split = true, hidden.is16, b.split(f.w2, f.fixedRows)
	a.Bias, a.X = f.bias2.memory, hidden.Range
	b.linear(f.w2, 0, 0, c, a)
}

// hiddenBytes limits the workspace for the hidden activations of a feedforward over every token. Longer sequences are
// processed in groups of rows, multiples of 128: the rows of the largest tile.
const hiddenBytes = 64 << 20

// phases records the feedforward of count rows: two phases for each group of rows, three with 16-bit operands. With
// residual, x is added to y; the two may then be the same range.
func (f feedForward) phases(b *builder, y, x vk.Range, count, budget int, residual bool) phases {
	element := 4
	if b.uses16Bit(f.hidden) {
		element = 2
	}
	each := min(count, max(budget/(element*f.hidden)&^127, 128))
	var list phases
	var pre operand // of all rows, if the layer keeps it
	if b.limitGroups((count + each - 1) / each) {
		return nil
	}
	for first := 0; first < count; first += each {
		var normed, hidden operand
		n := min(each, count-first)
		a := pipelines.LinearArgs{X: rows(x, first, n, 4*f.dim), Batch: 1, Rows: n}
		if b.uses16Bit(f.dim) {
			list = append(list, func() {
				normed = b.rmsNorm(a.X, f.gamma, n)
				a.X = normed.Range
			})
		}
		list = append(list, func() {
			hidden = b.allocOperand(f.hidden, n)
			if b.keeping && first == 0 {
				pre = b.allocOperand(f.hidden, count)
				b.keep(f.w1, pre)
			}
			f.up(b, hidden, pre.rows(first, n), normed.is16, pipelines.LinearConfig{}, a)
			b.release(normed.allocation)
		}, func() {
			a := pipelines.LinearArgs{Y: rows(y, first, n, 4*f.dim), Batch: 1, Rows: n}
			if residual {
				a.Residual = rows(x, first, n, 4*f.dim)
			}
			f.down(b, hidden, pipelines.LinearConfig{Residual: residual}, a)
			b.release(hidden.allocation)
		})
	}
	return list
}

// record records the layer as a module of its own.
func (f feedForward) record(b *builder) {
	b.nextLayer()
	recordInterleaved(f.phases(b, b.arg("y"), b.arg("x"), b.rowCount(), hiddenBytes, false))
}
