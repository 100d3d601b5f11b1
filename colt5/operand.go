package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// linear records the product of a.X and a weight matrix [out, in], or of its rows first .. first + count - 1 (outputs);
// count 0: all outputs. It sets the parts of c and a that follow from the weight and the precision.
func (b *builder) linear(w *Tensor, first, count int, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	if count == 0 {
		count = w.shape[0]
	}
	c.In, c.Out, c.Precision = w.shape[1], count, b.precision
	if c.Split > 1 {
		scratch := b.floats(c.Split, a.Batch, a.Rows, c.Out)
		a.Scratch = scratch.Range
		defer b.release(scratch)
	}
	if b.list == nil { // without a device there is no copy of the weight
		return
	}
	from, row := w.memory, 4*c.In
	if c.Precision != pipelines.F32 {
		from, row = w.cast.Range(), 2*c.Precision.Columns(c.In)
	}
	a.W = rows(from, first, count, row)
	record(b, pipelines.NewLinear, c, a)
}

// split is LinearConfig.Split for a product with a weight. fixedRows is the number of rows of a batch item if
// the configuration alone determines it, else 0.
func (b *builder) split(w *Tensor, fixedRows int) int {
	return pipelines.LinearSplit(b.precision, fixedRows, w.shape[1], w.shape[0])
}

// operand is a tensor in the workspace that a matrix product or an attention reads, [rows, width]. With a 16-bit
// precision its elements have 16 bits if the kernels support that width, else 32.
type operand struct {
	allocation
	is16  bool
	width int
}

// uses16Bit reports whether operand rows of a width have 16-bit elements.
func (b *builder) uses16Bit(width int) bool { return b.precision != F32 && width%8 == 0 }

// allocOperand allocates rows of a width.
func (b *builder) allocOperand(width int, counts ...int) operand {
	o := operand{is16: b.uses16Bit(width), width: width}
	if counts = append(counts, width); o.is16 {
		counts[len(counts)-1] /= 2
	}
	o.allocation = b.floats(counts...)
	return o
}

// dtypeOf is the dtype of an operand's elements.
func (b *builder) dtypeOf(o operand) pipelines.DType {
	if o.is16 {
		return b.precision
	}
	return pipelines.F32
}

// floatOperand is float32 rows as an operand: a product rounds them.
func floatOperand(x vk.Range, width int) operand {
	return operand{allocation: allocation{Range: x}, width: width}
}

// rounded is count float32 rows as an operand, which the caller releases: a 16-bit copy, or the rows themselves if operands of
// the width have 32 bits. Several products then read half of the bytes.
func (b *builder) rounded(x vk.Range, width, count int) operand {
	if !b.uses16Bit(width) {
		return floatOperand(x, width)
	}
	o := b.allocOperand(width, count)
	columns := width // of a row of the kernel, whose workgroups have 2048 elements
	if width*count%2048 == 0 {
		columns = 2048
	}
	record(b, pipelines.NewCast, pipelines.CastConfig{C: columns, Precision: b.precision}, pipelines.CastArgs{X: x, Y: o.Range, Rows: width * count / columns})
	return o
}

// rows is count rows of the operand, from the first on.
func (o operand) rows(first, count int) vk.Range {
	bytes := 4 * o.width
	if o.is16 {
		bytes /= 2
	}
	return rows(o.Range, first, count, bytes)
}

// part is an operand of count rows, from the first on. Its memory is released with the whole.
func (o operand) part(first, count int) operand {
	return operand{allocation{Range: o.rows(first, count)}, o.is16, o.width}
}

// from is the operand without the first columns of its first row: the range of a part of each row, for kernels that take
// the distance of rows.
func (o operand) from(columns int) vk.Range {
	bytes := 4 * columns
	if o.is16 {
		bytes /= 2
	}
	if o.IsZero() {
		return o.Range
	}
	return o.Slice(uint64(bytes), o.Size()-uint64(bytes))
}

// allocHeads allocates rows of heads, with 16-bit elements where dimHead is a multiple of 8.
func (b *builder) allocHeads(dimHead, heads int, counts ...int) operand {
	if !b.uses16Bit(dimHead) {
		return operand{allocation: b.floats(append(counts, heads*dimHead)...), width: heads * dimHead}
	}
	return b.allocOperand(heads*dimHead, counts...)
}

// operandBytes is the size of an operand's element if the row width is a multiple of 8, see uses16Bit; for workspace
// budgets only.
func (b *builder) operandBytes() int { return b.precision.Size() }

// rmsNorm records the RMSNorm of count rows, written as a 16-bit operand.
func (b *builder) rmsNorm(x vk.Range, gamma *Tensor, count int) operand {
	dim := gamma.shape[0]
	o := b.allocOperand(dim, count)
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: dim, Y: b.dtypeOf(o)}, pipelines.RMSNormArgs{X: x, Gamma: gamma.memory, Y: o.Range, Rows: count})
	return o
}

// rmsNormSelected records the RMSNorm of the rows of x that a router selected, [R, B, K], with zeros for empty slots.
// The products that follow read contiguous rows.
func (b *builder) rmsNormSelected(x vk.Range, gamma *Tensor, s *routerState) operand {
	if !s.hasLists {
		return b.rmsNorm(x, gamma, s.b*s.k)
	}
	dim := gamma.shape[0]
	o := b.allocOperand(dim, s.r, s.b, s.k)
	for r := range s.r {
		record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: dim, Y: b.dtypeOf(o), Gather: true}, pipelines.RMSNormArgs{
			X: x, Gamma: gamma.memory, Y: o.rows(r*s.b*s.k, s.b*s.k), Gather: s.indices.Range, Valid: s.valid.Range,
			Items: s.b, InRows: s.n, Rows: s.k, Lists: s.r, List: r,
		})
	}
	return o
}
