package ref

// CoorDescentBackward is the gradient of [CoorDescent].
//
//	s, g, ds [Rows, N]    mask [Rows, N] optional    dk [Rows]    g = dL/dscore, ds = dL/ds, dk = dL/dk
//
//	w_i  = g_i * score_i / e_T unless s_i + A > 0           ds_i = w_i, da = sum w
//	for t = T-1 .. 1: p_i = exp(min(s_i, -a_{t-1}) / e_t - lse_t), free_i = not (s_i + a_{t-1} > 0)
//	                  ds_i -= da * p_i where free_i, then da = da * sum_{not free} p_i
//	dk = sum over t = T-1 .. 0 of da_t * e_t / k, da_t is da before the update of step t
//
// Masked entries and rows without valid entries have gradient 0.
func CoorDescentBackward(s []float32, mask []uint8, g []float32, rows, n int, c CoorDescentConfig) (ds, dk []float64) {
	return coorDescentBackward(convert[float64](s), mask, convert[float64](g), rows, n, c)
}

// CoorDescentBackward32 is [CoorDescentBackward] in plain float32.
func CoorDescentBackward32(s []float32, mask []uint8, g []float32, rows, n int, c CoorDescentConfig) (ds, dk []float32) {
	return coorDescentBackward(s, mask, g, rows, n, c)
}

func coorDescentBackward[T Float](s []T, mask []uint8, g []T, rows, n int, c CoorDescentConfig) (ds, dk []T) {
	c.check()
	checkLen("CoorDescentBackward", "s", len(s), rows*n)
	checkLen("CoorDescentBackward", "g", len(g), rows*n)
	checkOptional("CoorDescentBackward", "mask", mask, rows*n)
	ds, dk = make([]T, rows*n), make([]T, rows)
	parallel(rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row, at := validEntries(s, mask, r, n)
			if len(row) == 0 {
				continue
			}
			upstream, _ := validEntries(g, mask, r, n)
			var grad []T
			grad, dk[r] = descend(row, c).backward(row, upstream, T(c.K))
			for i, v := range grad {
				ds[at(i)] = v
			}
		}
	})
	return ds, dk
}

// backward returns the gradients of one row's logits and of k.
func (d descent[T]) backward(s, g []T, k T) (ds []T, dk T) {
	a, e := d.last()
	ds = make([]T, len(s))
	var da T
	for i, v := range s {
		if !(v+a > 0) {
			ds[i] = g[i] * d.score(v) / e
			da += ds[i]
		}
	}
	for t := len(d.a) - 1; t >= 1; t-- {
		e, previous, lse := d.e[t], d.a[t-1], d.lse[t]
		dk += da * e / k
		var carry T // the factor of da that propagates to a_{t-1}
		for i, v := range s {
			p := expT(min(v, -previous)/e - lse)
			if v+previous > 0 {
				carry += p
			} else {
				ds[i] -= da * p
			}
		}
		da *= carry
	}
	return ds, dk + da*d.e[0]/k
}
