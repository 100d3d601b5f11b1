package ref

import (
	"fmt"
	"math"
)

// CoorDescentConfig is the config of a coordinate descent.
type CoorDescentConfig struct {
	K        float64 // target sum of the scores; need not be an integer; > 0
	Iters    int     // >= 1
	Eps      float64 // > 0
	EpsInit  float64 // first eps; 0: Eps
	EpsDecay float64 // factor of eps after each iteration, in (0, 1]
}

func (c CoorDescentConfig) check() {
	if !(c.K > 0) || c.Iters < 1 || !(c.Eps > 0) || !(c.EpsInit >= 0) || !(c.EpsDecay > 0 && c.EpsDecay <= 1) {
		panic(fmt.Sprintf("ref: CoorDescent: bad config %+v", c))
	}
}

// schedule returns e_0 .. e_T. The scores use e_T.
func (c CoorDescentConfig) schedule() []float64 {
	e := make([]float64, c.Iters+1)
	e[0] = max(c.EpsInit, c.Eps)
	for t := range c.Iters {
		e[t+1] = max(e[t]*c.EpsDecay, c.Eps)
	}
	return e
}

// CoorDescent computes soft top-k scores of each row of logits, with one scalar a_t per iteration and row.
//
//	s [Rows, N]    mask [Rows, N] optional    score [Rows, N], each in [0, 1]
//
//	u_i     = 0 at t = 0, then min(s_i, -a_{t-1}) / e_t
//	a_t     = e_t * (log k - logsumexp_valid(u))          t = 0 .. T-1, A = a_{T-1}
//	score_i = exp(min(s_i + A, 0) / e_T), masked entries 0
//
// A row without valid entries has scores 0. Sources: arXiv 1502.04759, 2304.04947.
func CoorDescent(s []float32, mask []uint8, rows, n int, c CoorDescentConfig) []float64 {
	return coorDescent(convert[float64](s), mask, rows, n, c)
}

// CoorDescent32 is [CoorDescent] in plain float32.
func CoorDescent32(s []float32, mask []uint8, rows, n int, c CoorDescentConfig) []float32 {
	return coorDescent(s, mask, rows, n, c)
}

func coorDescent[T Float](s []T, mask []uint8, rows, n int, c CoorDescentConfig) []T {
	c.check()
	checkLen("CoorDescent", "s", len(s), rows*n)
	checkOptional("CoorDescent", "mask", mask, rows*n)
	score := make([]T, rows*n)
	parallel(rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row, at := validEntries(s, mask, r, n)
			if len(row) == 0 {
				continue
			}
			d := descend(row, c)
			for i, v := range row {
				score[at(i)] = d.score(v)
			}
		}
	})
	return score
}

// CoorDescentRows is [CoorDescent] with a k for each row. c.K is not used.
//
//	s [Rows, N]    mask [Rows, N] optional    k [Rows]    score [Rows, N]
func CoorDescentRows(s []float32, mask []uint8, k []float32, n int, c CoorDescentConfig) []float64 {
	return coorDescentRows(convert[float64](s), mask, k, n, c)
}

// CoorDescentRows32 is [CoorDescentRows] in plain float32.
func CoorDescentRows32(s []float32, mask []uint8, k []float32, n int, c CoorDescentConfig) []float32 {
	return coorDescentRows(s, mask, k, n, c)
}

func coorDescentRows[T Float](s []T, mask []uint8, k []float32, n int, c CoorDescentConfig) []T {
	checkLen("CoorDescentRows", "s", len(s), len(k)*n)
	checkOptional("CoorDescentRows", "mask", mask, len(k)*n)
	var score []T
	for row := range k {
		c.K = float64(k[row])
		score = append(score, coorDescent(s[row*n:][:n], maskSlice(mask, row*n, n), 1, n, c)...)
	}
	return score
}

// validEntries returns the valid entries of row r, and a function from their position in that list to their index in s.
func validEntries[T Float](s []T, mask []uint8, r, n int) (row []T, at func(i int) int) {
	whole := s[r*n : (r+1)*n]
	if mask == nil {
		return whole, func(i int) int { return r*n + i }
	}
	var columns []int
	for i, v := range whole {
		if isValid(mask, r*n+i) {
			row = append(row, v)
			columns = append(columns, i)
		}
	}
	return row, func(i int) int { return r*n + columns[i] }
}

// descent is the state of one row that the scores and the backward pass need.
type descent[T Float] struct {
	e      []T // [T + 1] e_0 .. e_T
	a, lse []T // [T]
}

// descend runs the iterations on the valid entries of one row. There must be at least one.
func descend[T Float](s []T, c CoorDescentConfig) descent[T] {
	d := descent[T]{a: make([]T, c.Iters), lse: make([]T, c.Iters)}
	for _, e := range c.schedule() {
		d.e = append(d.e, T(e))
	}
	largest := s[0]
	for _, v := range s {
		largest = max(largest, v)
	}
	logK := T(math.Log(c.K))
	for t := range c.Iters {
		if t == 0 {
			d.lse[t] = logT(T(len(s))) // s + b is 0 for all entries
		} else {
			e, bound := d.e[t], -d.a[t-1]
			top := min(largest, bound) / e
			d.lse[t] = top + logT(sumOf(s, func(v T) T { return expT(min(v, bound)/e - top) }))
		}
		d.a[t] = d.e[t] * (logK - d.lse[t])
	}
	return d
}

// last returns A, the last a, and e_T.
func (d descent[T]) last() (a, e T) { return d.a[len(d.a)-1], d.e[len(d.e)-1] }

// score returns the soft score of an entry with logit v.
func (d descent[T]) score(v T) T {
	a, e := d.last()
	return expT(min(v+a, 0) / e)
}

// sumChunk is the number of entries that are summed in sequence. Longer rows are summed by chunks, which limits the
// rounding error of float32 and lets several CPUs work on one row.
const sumChunk = 4096

// sumOf returns the sum of f over the row. The order of additions depends on the length only.
func sumOf[T Float](row []T, f func(T) T) T {
	partial := make([]T, (len(row)+sumChunk-1)/sumChunk)
	parallel(len(partial), func(lo, hi int) {
		for p := lo; p < hi; p++ {
			var sum T
			for _, v := range row[p*sumChunk : min((p+1)*sumChunk, len(row))] {
				sum += f(v)
			}
			partial[p] = sum
		}
	})
	var sum T
	for _, p := range partial {
		sum += p
	}
	return sum
}

// CoorDescentTextbook is [CoorDescent] as in the papers, with an array b of the length of the row:
//
//	a = 0; b = -s; e = e_0
//	repeat T times: a = e * (log k - logsumexp((s + b) / e)); b = -relu(s + a); e = max(e * decay, eps)
//	score = exp((s + a + b) / e)
//
// Tests use it to prove that the scalar form of [CoorDescent] is the same function.
func CoorDescentTextbook(s []float32, mask []uint8, rows, n int, c CoorDescentConfig) []float64 {
	c.check()
	checkLen("CoorDescentTextbook", "s", len(s), rows*n)
	checkOptional("CoorDescentTextbook", "mask", mask, rows*n)
	score := make([]float64, rows*n)
	all := convert[float64](s)
	for r := range rows {
		row, at := validEntries(all, mask, r, n)
		for i, v := range textbookRow(row, c) {
			score[at(i)] = v
		}
	}
	return score
}

func textbookRow(s []float64, c CoorDescentConfig) []float64 {
	b := make([]float64, len(s))
	for i, v := range s {
		b[i] = -v
	}
	a, e := 0.0, max(c.EpsInit, c.Eps)
	for range c.Iters {
		top := math.Inf(-1)
		for i, v := range s {
			top = max(top, (v+b[i])/e)
		}
		sum := 0.0
		for i, v := range s {
			sum += math.Exp((v+b[i])/e - top)
		}
		a = e * (math.Log(c.K) - (top + math.Log(sum)))
		for i, v := range s {
			b[i] = -max(v+a, 0)
		}
		e = max(e*c.EpsDecay, c.Eps)
	}
	score := make([]float64, len(s))
	for i, v := range s {
		score[i] = math.Exp((v + a + b[i]) / e)
	}
	return score
}

// CoorDescentWindows is [CoorDescent] of prefixes of each row. Window m uses the first min(m * prefix, n) entries; k is
// the same for all windows.
//
//	s [Items * Routes, N]    mask [Items, N] optional    score [Items, Windows, Routes, N], 0 beyond the prefix
func CoorDescentWindows(s []float32, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []float64 {
	return coorDescentWindows(convert[float64](s), mask, items, routes, n, windows, prefix, c)
}

// CoorDescentWindows32 is [CoorDescentWindows] in plain float32.
func CoorDescentWindows32(s []float32, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []float32 {
	return coorDescentWindows(s, mask, items, routes, n, windows, prefix, c)
}

func coorDescentWindows[T Float](s []T, mask []uint8, items, routes, n, windows, prefix int, c CoorDescentConfig) []T {
	checkLen("CoorDescentWindows", "s", len(s), items*routes*n)
	checkOptional("CoorDescentWindows", "mask", mask, items*n)
	score := make([]T, items*windows*routes*n)
	at := 0
	for item := range items {
		for window := range windows {
			seen := min(window*prefix, n)
			for route := range routes {
				row := (item*routes + route) * n
				copy(score[at:], coorDescent(s[row:row+seen], maskSlice(mask, item*n, seen), 1, seen, c))
				at += n
			}
		}
	}
	return score
}

// SelectedScores returns the scores of selected entries. It returns 0 for slots that are not valid or have an index out
// of range.
//
//	scores [Rows, N]    indices [Rows, Slots]    valid [Rows, Slots] optional    selected [Rows, Slots]
func SelectedScores[T Float](scores []T, indices []int32, valid []uint32, rows, n, slots int) []T {
	checkLen("SelectedScores", "scores", len(scores), rows*n)
	checkLen("SelectedScores", "indices", len(indices), rows*slots)
	checkOptional("SelectedScores", "valid", valid, rows*slots)
	selected := make([]T, rows*slots)
	for i, index := range indices {
		if index >= 0 && int(index) < n && (valid == nil || valid[i] != 0) {
			selected[i] = scores[i/slots*n+int(index)]
		}
	}
	return selected
}
