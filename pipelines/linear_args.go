package pipelines

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// check checks a config, except for what the device supports.
func (c LinearConfig) check(op string) error {
	for _, d := range []dim{{"In", c.In}, {"Out", c.Out}} {
		most := 1<<30 - 1 // the kernel counts the bytes of a row in 32 bits
		if c.Precision != F32 && d.name == "In" {
			most = 1<<27 - 1 // and the 16-byte chunks of the rows of a tile
		}
		if d.n < 1 || d.n > most {
			return fmt.Errorf("pipelines: %s: %s is %d, want 1 to %d", op, d.name, d.n, most)
		}
	}
	if err := c.Precision.checkPrecision(op); err != nil {
		return err
	}
	switch {
	case c.Preactivation && !c.GELU:
		return fmt.Errorf("pipelines: %s: Preactivation is true and GELU false, want both: without GELU it is y", op)
	case c.SkipBias && !c.Bias:
		return fmt.Errorf("pipelines: %s: SkipBias is true and Bias false, want both: there is no bias to skip", op)
	case (c.X16 || c.Y16) && c.Precision == F32:
		return fmt.Errorf("pipelines: %s: X16 is %t and Y16 %t, want neither with Precision f32", op, c.X16, c.Y16)
	case c.Split < 0 || c.Split > maxLinearSplit || c.Split > 1 && c.Precision == F32:
		return fmt.Errorf("pipelines: %s: Split is %d with Precision %v, want 0 to %d, with f32 0", op, c.Split, c.Precision, maxLinearSplit)
	case c.TransposedW && c.Precision == F32:
		return fmt.Errorf("pipelines: %s: TransposedW is true, want false with Precision f32", op)
	case c.X16 && c.Norm:
		return fmt.Errorf("pipelines: %s: X16 and Norm are true, want one of them: the norm reads float32", op)
	case c.X16 && c.In%2 != 0:
		return fmt.Errorf("pipelines: %s: In is %d, want an even number with X16", op, c.In)
	case c.Y16 && c.Out%2 != 0:
		return fmt.Errorf("pipelines: %s: Out is %d, want an even number with Y16", op, c.Out)
	}
	return nil
}

// checkSizes checks the numbers of rows and lists.
func (l *Linear) checkSizes(op string, a LinearArgs) error {
	if err := firstError(
		checkPositive(op, dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows}, dim{"Lists", a.Lists}),
		checkPositive(op, dim{"Batch*Rows", a.Batch * a.Rows}, dim{"Batch*InRows", a.Batch * a.InRows}, dim{"Batch*OutRows", a.Batch * a.OutRows}),
		checkPositive(op, dim{"Batch*Lists*Rows", a.Batch * a.Rows * a.Lists}),
	); err != nil {
		return err
	}
	if split := l.config.Split; split > 1 { // the kernels count rows of parts, and the groups of 4 columns of y, in 32 bits
		rows := uint64(a.Batch) * uint64(a.Rows)
		if parts, vec4s := rows*uint64(split), rows*ceilDiv(uint64(l.config.Out), 4); max(parts, vec4s) > math.MaxInt32 {
			return fmt.Errorf("pipelines: %s: Batch*Rows is %d with Split %d and Out %d, want Batch*Rows*Split and Batch*Rows*ceil(Out/4) of at most %d",
				op, rows, split, l.config.Out, math.MaxInt32)
		}
	}
	switch {
	case a.List < 0 || a.List >= a.Lists:
		return fmt.Errorf("pipelines: %s: List is %d, want 0 to %d", op, a.List, a.Lists-1)
	case a.Lists > 1 && l.config.Scatter:
		return fmt.Errorf("pipelines: %s: Lists is %d, want 1 with Scatter", op, a.Lists)
	case !l.config.Gather && a.InRows < a.Rows:
		return fmt.Errorf("pipelines: %s: InRows is %d, want at least Rows, %d, without Gather", op, a.InRows, a.Rows)
	case !l.config.Scatter && a.OutRows < a.Rows:
		return fmt.Errorf("pipelines: %s: OutRows is %d, want at least Rows, %d, without Scatter", op, a.OutRows, a.Rows)
	}
	return nil
}

// check compares the arguments with the config and the sizes.
func (l *Linear) check(op string, a LinearArgs) error {
	if err := l.checkSizes(op, a); err != nil {
		return err
	}
	c := l.config
	batch, rows, in, out := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"In", c.In}, dim{"Out", c.Out}
	columns, w := dim{"In", c.In}, []dim{out, in}
	switch {
	case c.TransposedW:
		columns = dim{"Columns(Out)", c.Precision.Columns(c.Out)}
		w = []dim{in, columns}
	case c.Precision != F32:
		columns = dim{"Columns(In)", c.Precision.Columns(c.In)}
		w = []dim{out, columns}
	}
	inRows, outRows, list := dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows}, []dim{batch, rows}
	if a.Lists > 1 {
		list = []dim{batch, {"Lists", a.Lists}, rows}
	}
	if c.Split > 1 {
		if err := checkTensor(op, "scratch", a.Scratch, rowAlign(c.Out), f32, dim{"Split", c.Split}, batch, rows, out); err != nil {
			return err
		}
	} else if !a.Scratch.IsZero() {
		return fmt.Errorf("pipelines: %s: scratch has %d bytes, want none without Split", op, a.Scratch.Size())
	}
	for _, arg := range []struct {
		name    string
		wanted  bool
		r       vk.Range
		element element
		align   uint64
		shape   []dim
	}{
		{"x", true, a.X, c.x().element(), c.x().rowAlign(c.In), []dim{batch, inRows, in}},
		{"w", true, a.W, c.Precision.element(), c.Precision.rowAlign(columns.n), w},
		{"bias", c.Bias, a.Bias, f32, rowAlign(c.Out), []dim{out}},
		{"gather", c.Gather, a.Gather, i32, wordAlign, list},
		{"gamma", c.Norm, a.Gamma, f32, rowAlign(c.In), []dim{in}},
		{"score", c.Score, a.Score, f32, wordAlign, list},
		{"valid", c.Valid, a.Valid, u32, wordAlign, list},
		{"residual", c.Residual, a.Residual, f32, rowAlign(c.Out), []dim{batch, outRows, out}},
		{"scatter", c.Scatter, a.Scatter, i32, wordAlign, []dim{batch, rows}},
		{"skip bias", c.SkipBias, a.SkipBias, u32, wordAlign, []dim{batch, outRows}},
		{"preactivation", c.Preactivation, a.Preactivation, c.y().element(), c.y().rowAlign(c.Out), []dim{batch, outRows, out}},
		{"y", true, a.Y, c.y().element(), c.y().rowAlign(c.Out), []dim{batch, outRows, out}},
	} {
		if err := checkPresence(arg.wanted, op, arg.name, arg.r, arg.align, arg.element, arg.shape...); err != nil {
			return err
		}
	}
	return nil
}
