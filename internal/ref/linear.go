package ref

import "math"

// LinearArgs are the arguments of [Linear]. X, W, Rows, In and Out are required.
type LinearArgs = LinearArgsOf[float32]

// LinearArgsOf is [LinearArgs] with tensors of one precision.
type LinearArgsOf[T Float] struct {
	X    []T // [Batch, InRows, In] source rows
	W    []T // [Out, In]
	Bias []T // [Out]; nil: none

	Batch   int // items; 0: 1
	InRows  int // rows of X per item; 0: Rows
	Rows    int // slots (computed rows) per item
	OutRows int // rows of y per item; 0: Rows
	In, Out int // features
	Lists   int // lists of Gather, Score and Valid per item; 0: 1
	List    int // index of the list that is used

	Gather []int32 // [Batch, Lists, Rows] source row in the item; nil: slot r reads row r
	Gamma  []T     // [In] prologue: RMSNorm of the source row; nil: none

	GELU     bool    // exact (erf) GELU after the bias
	Score    []T     // [Batch, Lists, Rows] factor of each row; nil: 1
	Valid    []uint8 // [Batch, Lists, Rows] routed mask, 0 = empty slot; nil: all valid
	Residual []T     // [Batch, OutRows, Out] added at the destination row; nil: none
	Scatter  []int32 // [Batch, Rows] destination row in the item, each row at most once; nil: row r
	SkipBias []uint8 // [Batch, OutRows] 1: no bias is added to this destination row; nil: all rows get it
	Base     []T     // [Batch, OutRows, Out] contents of y before; nil: zeros

	// RoundOperands rounds both operands of the product, x after the norm. nil: no rounding.
	RoundOperands func(float32) float32
}

// Linear is a matrix product with a fused prologue and epilogue.
//
//	x [B, InRows, In]    w [Out, In]    y [B, OutRows, Out]    (source, destination) = (gather[r], scatter[r])
//	v[r, o]           = sum_i norm(x[source])[i] * w[o, i] + bias[o]
//	y[destination, o] = gelu(v[r, o]) * score[r] + residual[destination, o]
//
// Every part is optional. A slot with valid 0 or score 0 writes nothing: its destination keeps the value of Base, and its
// indices are not read.
func Linear(a LinearArgs) []float64 { return linear(convertLinear[float64](a)) }

// Linear32 is [Linear] in plain float32.
func Linear32(a LinearArgs) []float32 { return linear(a) }

// convertLinear returns the arguments in precision T.
func convertLinear[T Float](a LinearArgs) LinearArgsOf[T] {
	return LinearArgsOf[T]{
		X: convert[T](a.X), W: convert[T](a.W), Bias: convert[T](a.Bias),
		Batch: a.Batch, InRows: a.InRows, Rows: a.Rows, OutRows: a.OutRows, In: a.In, Out: a.Out,
		Gather: a.Gather, Gamma: convert[T](a.Gamma),
		GELU: a.GELU, Score: convert[T](a.Score), Valid: a.Valid,
		Residual: convert[T](a.Residual), Scatter: a.Scatter, SkipBias: a.SkipBias, Lists: a.Lists, List: a.List,
		RoundOperands: a.RoundOperands, Base: convert[T](a.Base),
	}
}

func linear[T Float](a LinearArgsOf[T]) []T {
	a = a.checked()
	y := make([]T, a.Batch*a.OutRows*a.Out)
	copy(y, a.Base)
	w := roundAll(a.W, a.RoundOperands)
	parallel(a.Batch*a.Rows, func(lo, hi int) {
		normalised := make([]T, a.In)
		for slot := lo; slot < hi; slot++ {
			entry := a.entry(slot)
			if isSkipped(a.Score, a.Valid, entry) {
				continue
			}
			source := a.row("gather", a.Gather, slot, entry, a.InRows)
			x := a.X[source*a.In : (source+1)*a.In]
			if a.Gamma != nil {
				rmsNormRow(normalised, x, a.Gamma)
				x = normalised
			}
			dest := a.row("scatter", a.Scatter, slot, slot, a.OutRows)
			out := y[dest*a.Out : (dest+1)*a.Out]
			matVec(out, w, roundAll(x, a.RoundOperands))
			a.epilogue(out, entry, dest)
		}
	})
	return y
}

// roundAll applies f to every element of x. It returns x if f is nil.
func roundAll[T Float](x []T, f func(float32) float32) []T {
	if f == nil {
		return x
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(f(float32(v)))
	}
	return y
}

// checked returns the arguments with defaults applied. It panics if a length is wrong.
func (a LinearArgsOf[T]) checked() LinearArgsOf[T] {
	if a.Batch == 0 {
		a.Batch = 1
	}
	if a.InRows == 0 {
		a.InRows = a.Rows
	}
	if a.OutRows == 0 {
		a.OutRows = a.Rows
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	const op = "Linear"
	checkIndex(op, "list", int32(a.List), a.Lists)
	checkLen(op, "x", len(a.X), a.Batch*a.InRows*a.In)
	checkLen(op, "w", len(a.W), a.Out*a.In)
	checkOptional(op, "bias", a.Bias, a.Out)
	checkOptional(op, "gather", a.Gather, a.Batch*a.Lists*a.Rows)
	checkOptional(op, "gamma", a.Gamma, a.In)
	checkOptional(op, "score", a.Score, a.Batch*a.Lists*a.Rows)
	checkOptional(op, "valid", a.Valid, a.Batch*a.Lists*a.Rows)
	checkOptional(op, "residual", a.Residual, a.Batch*a.OutRows*a.Out)
	checkOptional(op, "scatter", a.Scatter, a.Batch*a.Rows)
	checkOptional(op, "skip bias", a.SkipBias, a.Batch*a.OutRows)
	checkOptional(op, "base", a.Base, a.Batch*a.OutRows*a.Out)
	return a
}

// entry returns the element of Gather, Score and Valid that belongs to a slot.
func (a LinearArgsOf[T]) entry(slot int) int {
	return (slot/a.Rows*a.Lists+a.List)*a.Rows + slot%a.Rows
}

// hasBias reports whether the bias is added to a destination row.
func (a LinearArgsOf[T]) hasBias(dest int) bool { return a.SkipBias == nil || a.SkipBias[dest] == 0 }

// row returns the row of a [Batch * rows, *] tensor that a slot refers to: indices[entry] of the slot's item.
func (a LinearArgsOf[T]) row(arg string, indices []int32, slot, entry, rows int) int {
	item, r := slot/a.Rows, slot%a.Rows
	index := int32(r)
	if indices != nil {
		index = indices[entry]
	}
	checkIndex("Linear", arg, index, rows)
	return item*rows + int(index)
}

// epilogue applies bias, GELU, score and residual to one row of products in place.
func (a LinearArgsOf[T]) epilogue(out []T, entry, dest int) {
	for o, v := range out {
		if a.Bias != nil && a.hasBias(dest) {
			v += a.Bias[o]
		}
		if a.GELU {
			v = gelu(v)
		}
		if a.Score != nil {
			v *= a.Score[entry]
		}
		if a.Residual != nil {
			v += a.Residual[dest*a.Out+o]
		}
		out[o] = v
	}
}

// gelu returns x times the standard normal cumulative distribution function, computed with erf.
func gelu[T Float](x T) T {
	return x * T(0.5) * (1 + T(math.Erf(float64(x)/math.Sqrt2)))
}

// matVec writes w times x: out[o] = sum_i w[o, i] * x[i]. It computes four rows per loop for speed; each sum is still
// in the order of i.
func matVec[T Float](out, w, x []T) {
	c := len(x)
	o := 0
	for ; o+4 <= len(out); o += 4 {
		w0, w1, w2, w3 := w[o*c:][:c], w[(o+1)*c:][:c], w[(o+2)*c:][:c], w[(o+3)*c:][:c]
		var s0, s1, s2, s3 T
		for i, v := range x {
			s0 += w0[i] * v
			s1 += w1[i] * v
			s2 += w2[i] * v
			s3 += w3[i] * v
		}
		out[o], out[o+1], out[o+2], out[o+3] = s0, s1, s2, s3
	}
	for ; o < len(out); o++ {
		out[o] = dot(w[o*c:(o+1)*c], x)
	}
}

// dot returns the sum of products in order.
func dot[T Float](a, b []T) T {
	var sum T
	b = b[:len(a)]
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}
