package ref

// LinearGrads are the gradients of [Linear]. Those of absent arguments are nil.
type LinearGrads = LinearGradsOf[float64]

// LinearGradsOf is [LinearGrads] in one precision.
type LinearGradsOf[T Float] struct {
	X, W, Bias, Gamma, Score, Residual, Base []T // shapes of the arguments

	Product    []T // [Batch, Rows, Out] gradient of the matrix product, 0 in a slot that writes nothing
	Normalised []T // [Batch, Rows, In] gradient of the rows of x after gather and norm
}

// LinearBackward is the gradient of [Linear].
//
//	dy [Batch, OutRows, Out]    (source, destination) = (gather[r], scatter[r])    u = norm(x[source]), z = w u + bias
//
//	dz[r]    = dy[destination] * score[r] * gelu'(z)          dscore[r] = dy[destination] . gelu(z)
//	dw       = sum_r dz[r] u[r]^T                             dbias     = sum_r dz[r] where the bias was added
//	du[r]    = w^T dz[r]                                      dx[source] += norm backward of du[r]; dgamma likewise
//	dresidual[destination] = dy[destination]                  dbase[row] = dy[row] where no slot writes the row
//
// A slot that writes nothing has gradient 0. If several slots read a row, its gradients are added in the order of slots.
// RoundOperands rounds the operands of all three products: u, w and dz.
func LinearBackward(a LinearArgs, dy []float32) LinearGrads {
	return linearBackward(convertLinear[float64](a), convert[float64](dy))
}

// LinearBackward32 is [LinearBackward] in plain float32.
func LinearBackward32(a LinearArgs, dy []float32) LinearGradsOf[float32] {
	return linearBackward(a, dy)
}

func linearBackward[T Float](a LinearArgsOf[T], dy []T) LinearGradsOf[T] {
	a = a.checked()
	checkLen("LinearBackward", "dy", len(dy), a.Batch*a.OutRows*a.Out)
	slots := a.Batch * a.Rows
	g := LinearGradsOf[T]{
		X: make([]T, len(a.X)), W: make([]T, len(a.W)), Bias: like(a.Bias), Gamma: like(a.Gamma), Score: like(a.Score),
		Residual: like(a.Residual), Base: like(a.Base), Product: make([]T, slots*a.Out), Normalised: make([]T, slots*a.In),
	}
	s := a.backwardSlots()
	w := roundAll(a.W, a.RoundOperands)
	parallel(slots, func(lo, hi int) {
		for slot := lo; slot < hi; slot++ {
			if s.dest[slot] >= 0 {
				a.productBackward(g, s, w, dy, slot)
			}
		}
	})
	dz := roundAll(g.Product, a.RoundOperands)
	parallel(slots, func(lo, hi int) {
		for slot := lo; slot < hi; slot++ {
			addTransposed(g.Normalised[slot*a.In:(slot+1)*a.In], w, dz[slot*a.Out:(slot+1)*a.Out])
		}
	})
	parallel(a.Out, func(lo, hi int) {
		for o := lo; o < hi; o++ {
			for slot := range slots {
				addScaled(g.W[o*a.In:(o+1)*a.In], s.rows[slot*a.In:(slot+1)*a.In], dz[slot*a.Out+o])
			}
		}
	})
	written := make([]bool, a.Batch*a.OutRows)
	for slot, dest := range s.dest {
		if dest < 0 {
			continue
		}
		written[dest] = true
		if a.Bias != nil && a.hasBias(dest) {
			addScaled(g.Bias, g.Product[slot*a.Out:(slot+1)*a.Out], 1)
		}
		at, du := s.source[slot]*a.In, g.Normalised[slot*a.In:(slot+1)*a.In]
		if a.Gamma == nil {
			addScaled(g.X[at:at+a.In], du, 1)
		} else {
			rmsNormRowBackward(g.X[at:at+a.In], g.Gamma, a.X[at:at+a.In], a.Gamma, du)
		}
	}
	for i, v := range dy {
		switch {
		case written[i/a.Out] && a.Residual != nil:
			g.Residual[i] = v
		case !written[i/a.Out] && a.Base != nil:
			g.Base[i] = v
		}
	}
	return g
}

// backwardSlots describes the slots of a linear layer.
type backwardSlots[T Float] struct {
	source, dest []int // rows of the whole batch; -1: the slot writes nothing
	rows         []T   // [slots, In] first operand of the product
}

func (a LinearArgsOf[T]) backwardSlots() backwardSlots[T] {
	slots := a.Batch * a.Rows
	s := backwardSlots[T]{make([]int, slots), make([]int, slots), make([]T, slots*a.In)}
	for slot := range slots {
		entry := a.entry(slot)
		if isSkipped(a.Score, a.Valid, entry) {
			s.source[slot], s.dest[slot] = -1, -1
			continue
		}
		s.source[slot], s.dest[slot] = a.row("gather", a.Gather, slot, entry, a.InRows), a.row("scatter", a.Scatter, slot,
			slot, a.OutRows)
		row, x := s.rows[slot*a.In:(slot+1)*a.In], a.X[s.source[slot]*a.In:(s.source[slot]+1)*a.In]
		if a.Gamma != nil {
			rmsNormRow(row, x, a.Gamma)
			x = row
		}
		copy(row, roundAll(x, a.RoundOperands))
	}
	return s
}

// productBackward writes the gradients of a slot's product and score.
func (a LinearArgsOf[T]) productBackward(g LinearGradsOf[T], s backwardSlots[T], w, dy []T, slot int) {
	entry, dest := a.entry(slot), s.dest[slot]
	upstream := dy[dest*a.Out : (dest+1)*a.Out]
	z := make([]T, a.Out)
	if a.GELU || a.Score != nil {
		matVec(z, w, s.rows[slot*a.In:(slot+1)*a.In])
		if a.Bias != nil && a.hasBias(dest) {
			addScaled(z, a.Bias, 1)
		}
	}
	for o, v := range z {
		d, slope := upstream[o], T(1)
		if a.GELU {
			v, slope = gelu(v), geluSlope(v)
		}
		if a.Score != nil {
			g.Score[entry] += d * v
			d *= a.Score[entry]
		}
		g.Product[slot*a.Out+o] = d * slope
	}
}

// addTransposed adds the transpose of w times dz to du.
func addTransposed[T Float](du, w, dz []T) {
	for o, v := range dz {
		addScaled(du, w[o*len(du):(o+1)*len(du)], v)
	}
}

// addScaled adds x * f to y.
func addScaled[T Float](y, x []T, f T) {
	x = x[:len(y)]
	for i := range y {
		y[i] += x[i] * f
	}
}

// like returns zeros with the length of x, or nil for nil.
func like[T Float](x []T) []T {
	if x == nil {
		return nil
	}
	return make([]T, len(x))
}
