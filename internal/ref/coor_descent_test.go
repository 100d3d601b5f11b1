package ref

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCoorDescentHandComputed(t *testing.T) {
	s := []float32{0, log(2), log(8), -1}
	exp := func(x float32) float64 { return math.Exp(float64(x)) }
	after := 1 + exp(s[1]) + 4 + exp(-1) // sum exp(min(s, log 4))
	for _, c := range []struct {
		name string
		mask []uint8
		c    CoorDescentConfig
		want []float64
	}{
		// a_0 = -log 4
		{"one iteration", nil, CoorDescentConfig{K: 1, Iters: 1, Eps: 1, EpsDecay: 1},
			[]float64{1. / 4, exp(s[1]) / 4, 1, exp(-1) / 4}},
		// a_1 = log 1 - log(sum)
		{"two iterations", nil, CoorDescentConfig{K: 1, Iters: 2, Eps: 1, EpsDecay: 1},
			[]float64{1 / after, exp(s[1]) / after, 1, exp(-1) / after}},
		// a_0 = 2 (log 2 - log 4) = -log 4, scores with e_1 = 1
		{"schedule", nil, CoorDescentConfig{K: 2, Iters: 1, Eps: 0.5, EpsInit: 2, EpsDecay: 0.5},
			[]float64{1. / 4, exp(s[1]) / 4, 1, exp(-1) / 4}},
		// the decay stops at eps: e_1 is 1, not 2 / 4
		{"decay stops at eps", nil, CoorDescentConfig{K: 2, Iters: 1, Eps: 1, EpsInit: 2, EpsDecay: 0.25},
			[]float64{1. / 4, exp(s[1]) / 4, 1, exp(-1) / 4}},
		{"eps init below eps", nil, CoorDescentConfig{K: 1, Iters: 1, Eps: 1, EpsInit: 0.1, EpsDecay: 1},
			[]float64{1. / 4, exp(s[1]) / 4, 1, exp(-1) / 4}},
		// three entries: a_0 = log 0.75 - log 3 = -log 4
		{"masked", []uint8{1, 0, 1, 1}, CoorDescentConfig{K: 0.75, Iters: 1, Eps: 1, EpsDecay: 1}, []float64{1. / 4, 0, 1, exp(-1) / 4}},
		{"no valid entry", []uint8{0, 0, 0, 0}, CoorDescentConfig{K: 1, Iters: 3, Eps: 1, EpsDecay: 1}, []float64{0, 0, 0, 0}},
		// k = n: a = 0, every score is exp(min(s, 0))
		{"k = n", nil, CoorDescentConfig{K: 4, Iters: 1, Eps: 1, EpsDecay: 1}, []float64{1, 1, 1, exp(-1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			assertNear(t, c.want, CoorDescent(s, c.mask, 1, 4, c.c), CoorDescent32(s, c.mask, 1, 4, c.c))
		})
	}
}

func TestCoorDescentWindowsHandComputed(t *testing.T) {
	c := CoorDescentConfig{K: 1, Iters: 1, Eps: 1, EpsDecay: 1} // a = -log of the number of entries
	s, exp := []float32{0, -1, -2, 5, -3, 1, 0, -1}, math.Exp
	// Two items of one row; windows of 0, 3 and 4 entries.
	want := []float64{
		0, 0, 0, 0, 1. / 3, exp(-1) / 3, exp(-2) / 3, 0, 1. / 4, exp(-1) / 4, exp(-2) / 4, 1,
		0, 0, 0, 0, exp(-3) / 2, exp(1) / 2, 0, 0, exp(-3) / 2, exp(1) / 2, 0, 0,
	}
	want[17], want[21] = 1, 1 // min(1 - log 2, 0) = 0
	mask := []uint8{1, 1, 1, 1, 1, 1, 0, 0}
	assertNear(t, want, CoorDescentWindows(s, mask, 2, 1, 4, 3, 3, c), CoorDescentWindows32(s, mask, 2, 1, 4, 3, 3, c))
	// The same rows as two routes of one item, which share a mask.
	want = append(append(append([]float64{}, want[:4]...), want[12:16]...), append(append([]float64{}, want[4:8]...), exp(-3)/3, 1./3*exp(1), 1./3, 0)...)
	assertNear(t, want, CoorDescentWindows(s, nil, 1, 2, 4, 2, 3, c), CoorDescentWindows32(s, nil, 1, 2, 4, 2, 3, c))
	assertPanics(t, "ref: CoorDescentWindows: len(s) is 8, want 4", func() { CoorDescentWindows(s, nil, 1, 1, 4, 2, 3, c) })
	assertPanics(t, "ref: CoorDescentWindows: len(mask) is 1, want 8", func() { CoorDescentWindows(s, mask[:1], 1, 1, 8, 2, 3, c) })
}

func TestSelectedScores(t *testing.T) {
	scores := []float64{1, 2, 3, 4, 5, 6}
	assert.Equal(t, []float64{3, 0, 1, 0, 5, 5}, SelectedScores(scores, []int32{2, -1, 0, 3, 1, 1}, nil, 2, 3, 3))
	assert.Equal(t, []float64{3, 0, 4, 0}, SelectedScores(scores, []int32{2, 0, 0, 0}, []uint32{1, 0, 7, 0}, 2, 3, 2))
	assertPanics(t, "ref: SelectedScores: len(indices) is 1, want 2", func() { SelectedScores(scores, []int32{1}, nil, 2, 3, 1) })
}

// descents returns configs of all kinds for rows of n entries.
func descents(n int) []CoorDescentConfig {
	k := float64(n) / 7
	return []CoorDescentConfig{
		{K: k, Iters: 20, Eps: 0.03, EpsInit: 4, EpsDecay: 0.7},
		{K: k, Iters: 50, Eps: 0.1, EpsDecay: 1},
		{K: k + 0.3, Iters: 3, Eps: 1, EpsInit: 2, EpsDecay: 0.5},
		{K: float64(n), Iters: 7, Eps: 0.5, EpsDecay: 1},
		{K: 2 * float64(n), Iters: 2, Eps: 0.5, EpsDecay: 1},
		{K: 1, Iters: 1, Eps: 0.5, EpsDecay: 1},
	}
}

func TestCoorDescentAgainstTextbook(t *testing.T) {
	for _, n := range []int{1, 2, 37, 1000, 9001} { // 9001: more than one chunk of sumOf
		if testing.Short() && n > 1000 {
			continue
		}
		for i, c := range descents(n) {
			for _, scale := range []float64{0, 1, 15} {
				t.Run(fmt.Sprintf("n=%d/config=%d/scale=%g", n, i, scale), func(t *testing.T) {
					const rows = 3
					s, mask := normal(uint64(n), rows*n, scale), randomMask(uint64(n), rows*n, 0.7)
					clear(mask[n : 2*n]) // the second row is empty
					for _, m := range [][]uint8{nil, mask} {
						got, want := CoorDescent(s, m, rows, n, c), CoorDescentTextbook(s, m, rows, n, c)
						require.InDeltaSlice(t, want, got, 1e-11)
						for i, v := range got {
							require.True(t, v >= 0 && v <= 1 && (isValid(m, i) || v == 0), "score %g", v)
						}
						// Four roundings of half an ulp of the logits (up to 4 scale), each divided by eps.
						bound := 1e-5 + 4*(4*scale)*0x1p-24/c.Eps
						require.NoError(t, MaxErr(CoorDescent32(s, m, rows, n, c), want).Within(bound))
					}
				})
			}
		}
	}
}

// TestCoorDescentSum checks that the scores sum to k after many iterations.
func TestCoorDescentSum(t *testing.T) {
	s := normal(5, 1000, 1)
	sum := 0.0
	for _, v := range CoorDescent(s, nil, 1, 1000, CoorDescentConfig{K: 72.5, Iters: 2000, Eps: 0.1, EpsDecay: 1}) {
		sum += v
	}
	assert.InDelta(t, 72.5, sum, 1e-6)
}

func TestCoorDescentPanics(t *testing.T) {
	c := CoorDescentConfig{K: 1, Iters: 1, Eps: 1, EpsDecay: 1}
	s := make([]float32, 4)
	assertPanics(t, "ref: CoorDescent: len(s) is 4, want 6", func() { CoorDescent(s, nil, 2, 3, c) })
	assertPanics(t, "ref: CoorDescent: len(mask) is 1, want 4", func() { CoorDescent32(s, make([]uint8, 1), 2, 2, c) })
	assertPanics(t, "ref: CoorDescentTextbook: len(s) is 4, want 6", func() { CoorDescentTextbook(s, nil, 2, 3, c) })
	assertPanics(t, "ref: CoorDescentBackward: len(g) is 3, want 4", func() { CoorDescentBackward(s, nil, s[:3], 2, 2, c) })
	for _, change := range []func(c *CoorDescentConfig){
		func(c *CoorDescentConfig) { c.K = 0 }, func(c *CoorDescentConfig) { c.Iters = 0 },
		func(c *CoorDescentConfig) { c.Eps = 0 }, func(c *CoorDescentConfig) { c.EpsInit = -1 },
		func(c *CoorDescentConfig) { c.EpsDecay = 0 }, func(c *CoorDescentConfig) { c.EpsDecay = 1.1 },
		func(c *CoorDescentConfig) { c.K = math.NaN() }, func(c *CoorDescentConfig) { c.Eps = math.NaN() },
	} {
		bad := c
		change(&bad)
		assert.Panics(t, func() { CoorDescent(s, nil, 2, 2, bad) }, "%+v", bad)
	}
}

func TestCoorDescentBackwardHandComputed(t *testing.T) {
	// One iteration, eps 0.5, k 1: a = -0.5 log 2, score = exp((s + a) / 0.5) = exp(2 s) / 2 for the first two.
	s, g := []float32{0, -1, 3, 9}, []float32{4, 2, 5, 7}
	c := CoorDescentConfig{K: 1, Iters: 1, Eps: 0.5, EpsDecay: 1}
	mask := []uint8{1, 1, 0, 0}
	w0, w1 := 4*0.5/0.5, 2*math.Exp(-2)/2/0.5
	ds, dk := CoorDescentBackward(s, mask, g, 1, 4, c)
	ds32, dk32 := CoorDescentBackward32(s, mask, g, 1, 4, c)
	assertNear(t, []float64{w0, w1, 0, 0}, ds, ds32)
	assertNear(t, []float64{(w0 + w1) * 0.5}, dk, dk32) // da * e / k

	// With a valid third entry a = -0.5 log 3. That entry saturates, so its gradient is 0.
	mask[2] = 1
	ds, _ = CoorDescentBackward(s, mask, g, 1, 4, c)
	assert.InDeltaSlice(t, []float64{4. / 3 / 0.5, 2 * math.Exp(-2) / 3 / 0.5, 0, 0}, ds, 1e-12)

	ds, dk = CoorDescentBackward(s, make([]uint8, 4), g, 1, 4, c)
	assert.Equal(t, []float64{0, 0, 0, 0}, ds)
	assert.Equal(t, []float64{0}, dk)
}

// TestCoorDescentBackwardFiniteDifferences compares with central differences of the float64 forward pass.
func TestCoorDescentBackwardFiniteDifferences(t *testing.T) {
	const rows, n, h = 3, 23, 1e-6
	s, g, mask := normal(1, rows*n, 1), normal(2, rows*n, 1), randomMask(3, rows*n, 0.8)
	clear(mask[n : 2*n])
	for i, c := range descents(n) {
		for _, m := range [][]uint8{nil, mask} {
			loss := func(s []float64, c CoorDescentConfig, row int) (sum float64) {
				for i, v := range coorDescent(s, m, rows, n, c) {
					if row < 0 || i/n == row {
						sum += v * float64(g[i])
					}
				}
				return sum
			}
			ds, dk := CoorDescentBackward(s, m, g, rows, n, c)
			s64 := convert[float64](s)
			for j := range s64 {
				at := s64[j]
				s64[j] = at + h
				up := loss(s64, c, -1)
				s64[j] = at - h
				down := loss(s64, c, -1)
				s64[j] = at
				require.InDelta(t, (up-down)/(2*h), ds[j], 1e-5, "config %d, element %d, mask %t", i, j, m != nil)
			}
			for row := range rows {
				more, less := c, c
				more.K, less.K = c.K+h, c.K-h
				require.InDelta(t, (loss(s64, more, row)-loss(s64, less, row))/(2*h), dk[row], 1e-5, "config %d, row %d", i, row)
			}
			// eps 0.03 amplifies rounding by 33: the golden cases allow 2e-3 there.
			ds32, dk32 := CoorDescentBackward32(s, m, g, rows, n, c)
			require.NoError(t, MaxErr(ds32, ds).Within(2e-3))
			require.NoError(t, MaxErr(dk32, dk).Within(2e-3))
		}
	}
}
