package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// gelu1 and geluMinus1 are gelu(1) and gelu(-1).
const gelu1, geluMinus1 = 0.8413447460685429, -0.15865525393145707

func TestLinearHandComputed(t *testing.T) {
	x, w := []float32{1, 2, 3, -1}, []float32{1, 0, 0, 1, 2, -1} // rows (1, 2), (3, -1); 3 outputs
	for _, c := range []struct {
		name string
		a    LinearArgs
		want []float64
	}{
		{"plain", LinearArgs{Rows: 2, Out: 3}, []float64{1, 2, 0, 3, -1, 7}},
		{"bias", LinearArgs{Rows: 2, Out: 3, Bias: []float32{10, 20, 30}}, []float64{11, 22, 30, 13, 19, 37}},
		{"gelu after the bias", LinearArgs{Rows: 2, Out: 3, Bias: []float32{-2, -1, 0}, GELU: true},
			[]float64{geluMinus1, gelu1, 0, gelu1, -2 * 0.022750131948179209, 7 * 0.9999999999987201}},
		{"score", LinearArgs{Rows: 2, Out: 3, Bias: []float32{1, 1, 1}, Score: []float32{0.5, 2}}, []float64{1, 1.5, 0.5, 8, 0, 16}},
		{"residual after the score", LinearArgs{Rows: 2, Out: 3, Score: []float32{0.5, 2}, Residual: []float32{1, 2, 3, 4, 5, 6}},
			[]float64{1.5, 3, 3, 10, 3, 20}},
		{"gather", LinearArgs{InRows: 2, Rows: 3, Out: 3, Gather: []int32{1, 0, 1}}, []float64{3, -1, 7, 1, 2, 0, 3, -1, 7}},
		{"scatter", LinearArgs{Rows: 2, OutRows: 3, Out: 3, Scatter: []int32{2, 0}}, []float64{3, -1, 7, 0, 0, 0, 1, 2, 0}},
		{"scatter over a base with residual", LinearArgs{Rows: 2, OutRows: 3, Out: 3, Scatter: []int32{2, 0},
			Base: []float32{9, 9, 9, 8, 8, 8, 9, 9, 9}, Residual: []float32{1, 1, 1, 2, 2, 2, 3, 3, 3}},
			[]float64{4, 0, 8, 8, 8, 8, 4, 5, 3}},
		{"empty by valid byte", LinearArgs{Rows: 2, Out: 3, Valid: []uint8{0, 1}, Base: []float32{5, 5, 5, 5, 5, 5}, Gather: []int32{-7, 1},
			Scatter: []int32{99, 1}, Residual: []float32{1, 1, 1, 1, 1, 1}}, []float64{5, 5, 5, 4, 0, 8}},
		{"empty by score", LinearArgs{Rows: 2, Out: 3, Score: []float32{1, 0}, Bias: []float32{1, 1, 1}}, []float64{2, 3, 1, 0, 0, 0}},
		{"items", LinearArgs{Batch: 2, InRows: 1, Rows: 2, OutRows: 2, Out: 3, Gather: []int32{0, 0, 0, 0}, Scatter: []int32{1, 0, 0, 1},
			Score: []float32{1, 2, 1, 2}}, []float64{2, 4, 0, 1, 2, 0, 3, -1, 7, 6, -2, 14}},
		{"norm", LinearArgs{Rows: 2, Out: 3, Gamma: []float32{math.Sqrt2, 1}}, []float64{
			2 / math.Sqrt(5), 2 * math.Sqrt2 / math.Sqrt(5), (4 - 2*math.Sqrt2) / math.Sqrt(5),
			6 / math.Sqrt(10), -math.Sqrt2 / math.Sqrt(10), (12 + math.Sqrt2) / math.Sqrt(10)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.X, c.a.W, c.a.In = x, w, 2
			got, got32 := Linear(c.a), Linear32(c.a)
			assert.InDeltaSlice(t, c.want, got, 1e-7) // gamma above is rounded to float32
			assert.NoError(t, MaxErr(got32, c.want).Within(1e-6))
		})
	}
}

// TestLinearSizes compares with the definition for numbers of outputs around the four rows per loop of matVec.
func TestLinearSizes(t *testing.T) {
	for _, c := range [][3]int{{1, 1, 1}, {5, 3, 3}, {2, 17, 4}, {3, 8, 5}, {7, 33, 13}} {
		rows, in, out := c[0], c[1], c[2]
		x, w := normal(1, rows*in, 1), normal(2, out*in, 1)
		var want []float64
		for r := range rows {
			for o := range out {
				sum := 0.0
				for i := range in {
					sum += float64(x[r*in+i]) * float64(w[o*in+i])
				}
				want = append(want, sum)
			}
		}
		a := LinearArgs{X: x, W: w, Rows: rows, In: in, Out: out}
		assert.InDeltaSlice(t, want, Linear(a), 1e-12)
		assert.NoError(t, MaxErr(Linear32(a), want).Within(1e-5))
	}
}

func TestLinearPanics(t *testing.T) {
	a := LinearArgs{X: make([]float32, 4), W: make([]float32, 6), Rows: 2, In: 2, Out: 3}
	for _, c := range []struct {
		change func(a *LinearArgs)
		want   string
	}{
		{func(a *LinearArgs) { a.Rows = 3 }, "len(x) is 4, want 6"},
		{func(a *LinearArgs) { a.Out = 4 }, "len(w) is 6, want 8"},
		{func(a *LinearArgs) { a.Bias = a.X }, "len(bias) is 4, want 3"},
		{func(a *LinearArgs) { a.Gamma = a.X }, "len(gamma) is 4, want 2"},
		{func(a *LinearArgs) { a.Score = a.X }, "len(score) is 4, want 2"},
		{func(a *LinearArgs) { a.Valid = []uint8{1} }, "len(valid) is 1, want 2"},
		{func(a *LinearArgs) { a.Residual = a.X }, "len(residual) is 4, want 6"},
		{func(a *LinearArgs) { a.Base = a.X }, "len(base) is 4, want 6"},
		{func(a *LinearArgs) { a.Gather = []int32{1} }, "len(gather) is 1, want 2"},
		{func(a *LinearArgs) { a.Scatter = []int32{1} }, "len(scatter) is 1, want 2"},
	} {
		bad := a
		c.change(&bad)
		assertPanics(t, "ref: Linear: "+c.want, func() { Linear32(bad) })
	}
}

// TestLinearListsAndSkipBias has two items of two lists. Rows of y with skip bias 1 get no bias.
func TestLinearListsAndSkipBias(t *testing.T) {
	a := LinearArgs{
		X: []float32{1, 2, 3, 40, 50, 60}, W: []float32{10}, Bias: []float32{7}, SkipBias: []uint8{0, 1, 1, 0},
		Batch: 2, InRows: 3, Rows: 2, In: 1, Out: 1, Lists: 2, List: 1,
		Gather: []int32{0, 0, 2, 1 /**/, 0, 0, 1, 2}, Score: []float32{9, 9, 1, 2 /**/, 9, 9, 3, 1}, Valid: []uint8{0, 0, 1, 1 /**/, 0, 0, 1, 0},
		Base: []float32{-1, -2, -3, -4},
	}
	assertNear(t, []float64{37, 40, 1500, -4}, Linear(a), Linear32(a))
	a.List = 0
	assertNear(t, []float64{-1, -2, -3, -4}, Linear(a), Linear32(a))
	a.List = 2
	assertPanics(t, "ref: Linear: list holds 2, want 0..1", func() { Linear(a) })
}
