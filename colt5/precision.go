package colt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// matrix adds the weight of a product, [out, in]. With a precision of 16 bits the products read a copy of it.
func (w *weights) matrix(name string, out, in int) *Tensor {
	t := w.add(name, uniform(in), out, in)
	if w.err != nil || w.precision == F32 {
		return t
	}
	w.castBytes += castMatrixBytes(w.precision, t)
	w.matrices = append(w.matrices, t)
	if w.dev == nil {
		return t
	}
	var err error
	if t.cast, err = w.dev.NewBuffer(fmt.Sprintf("%s in %v", name, w.precision), castMatrixBytes(w.precision, t)); err != nil {
		w.err = fmt.Errorf("parameter %s: %w", name, err)
	}
	return t
}

func castMatrixBytes(p DType, t *Tensor) uint64 {
	return 2 * uint64(t.shape[0]) * uint64(p.Columns(t.shape[1]))
}

// cast makes the copies of the matrices that changed since the last time. A matrix that a call of a module wrote, or read, may have changed:
// parameters are tensors that a caller can do anything with.
func (w *weights) cast() error {
	stale := false
	for i, t := range w.matrices {
		if now := t.version.Load(); now != w.castVersions[i] {
			stale, w.castVersions[i] = true, now
		}
	}
	if !stale {
		return nil
	}
	if err := w.castList.Run(context.TODO()); err != nil {
		clear(w.castVersions)
		return err
	}
	return nil
}

// recordCasts records the tape of cast.
func (w *weights) recordCasts(k *kernels) error {
	if len(w.matrices) == 0 {
		return nil
	}
	w.castVersions = make([]uint64, len(w.matrices))
	var err error
	if w.castList, err = w.dev.NewCommandList(vk.CommandListConfig{Name: "cast of weights"}); err != nil {
		return err
	}
	for _, t := range w.matrices {
		c, err := kernel(k, pipelines.NewCast, pipelines.CastConfig{C: t.shape[1], Precision: w.precision})
		if err == nil {
			err = c.Record(w.castList, pipelines.CastArgs{X: t.memory, Y: t.cast.Range(), Rows: t.shape[0]})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// closeCasts frees the copies.
func (w *weights) closeCasts() error {
	err := w.castList.Close()
	for _, t := range w.matrices {
		err = errors.Join(err, t.cast.Close())
	}
	return err
}

// product records the product of rows and a matrix [out, in], or of count rows of it from the first on; count 0: all of them. What the kernel
// is told of precisions follows from the plan's.
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

// split is the Split of a product with a matrix, where an item has so many rows by the module's configuration.
func (b *builder) split(w *Tensor, rows int) int {
	return pipelines.LinearSplit(b.precision, rows, w.shape[1], w.shape[0])
}

// operand is rows of numbers between two steps, that a product or an attention reads: of 16 bits where the plan's precision has them and kernels
// can work with rows of that width.
type operand struct {
	block
	is16  bool
	width int
}

// halves says whether rows of a width have 16 bits between steps.
func (b *builder) uses16Bit(width int) bool { return b.precision != F32 && width%8 == 0 }

// operands takes memory for rows.
func (b *builder) allocOperand(width int, counts ...int) operand {
	o := operand{is16: b.uses16Bit(width), width: width}
	if counts = append(counts, width); o.is16 {
		counts[len(counts)-1] /= 2
	}
	o.block = b.floats(counts...)
	return o
}

// precisionOf is the precision of an operand's numbers.
func (b *builder) precisionOf(o operand) pipelines.DType {
	if o.is16 {
		return b.precision
	}
	return pipelines.F32
}

// rows are count rows of it, from the first on.
func (o operand) rows(first, count int) vk.Range {
	bytes := 4 * o.width
	if o.is16 {
		bytes /= 2
	}
	return rows(o.Range, first, count, bytes)
}

// headOperands takes memory for rows of heads, of 16 bits where a head's elements are a multiple of 8.
func (b *builder) allocHeads(dimHead, heads int, counts ...int) operand {
	if !b.uses16Bit(dimHead) {
		return operand{block: b.floats(append(counts, heads*dimHead)...), width: heads * dimHead}
	}
	return b.allocOperand(heads*dimHead, counts...)
}

// operandBytes is the size of a number of most operands.
func (b *builder) operandBytes() int { return b.precision.Size() }

// rmsNormed records the norm of rows for a product of 16 bits.
func (b *builder) rmsNorm(x vk.Range, gamma *Tensor, count int) operand {
	dim := gamma.shape[0]
	o := b.allocOperand(dim, count)
	record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: dim, Y: b.precisionOf(o)}, pipelines.RMSNormArgs{X: x, Gamma: gamma.memory, Y: o.Range, Rows: count})
	return o
}

// rmsNormedChoice records the norm of the rows of x that a router chose, [R, B, K]; those of empty slots are zeros. Products then read rows that
// follow each other.
func (b *builder) rmsNormSelected(x vk.Range, gamma *Tensor, c *routerState) operand {
	if !c.hasLists {
		return b.rmsNorm(x, gamma, c.b*c.k)
	}
	dim := gamma.shape[0]
	o := b.allocOperand(dim, c.r, c.b, c.k)
	for r := range c.r {
		record(b, pipelines.NewRMSNorm, pipelines.RMSNormConfig{C: dim, Y: b.precisionOf(o), Gather: true}, pipelines.RMSNormArgs{
			X: x, Gamma: gamma.memory, Y: o.rows(r*c.b*c.k, c.b*c.k), Gather: c.indices.Range, Valid: c.valid.Range,
			Items: c.b, InRows: c.n, Rows: c.k, Lists: c.r, List: r,
		})
	}
	return o
}
