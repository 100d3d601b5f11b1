package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMaxErr(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	nan32, inf32 := float32(nan), float32(inf)
	for _, c := range []struct {
		name string
		got  []float32
		want []float64
		err  Error
	}{
		{"equal", []float32{1, -2}, []float64{1, -2}, Error{0, 0, 1, 1}},
		{"small values: absolute error", []float32{0, 0.25}, []float64{0, 0.5}, Error{0.25, 1, 0.25, 0.5}},
		{"large values: relative error", []float32{100, 5}, []float64{100, 6}, Error{0.01, 1, 5, 6}},
		{"negative values", []float32{-100, 5}, []float64{-100, 6}, Error{0.01, 1, 5, 6}},
		{"difference below float32 precision", []float32{1}, []float64{1 + 1e-12}, Error{1e-12, 0, 1, 1 + 1e-12}},
		{"too short", []float32{1}, []float64{1, 1}, Error{inf, -1, 1, 2}},
		{"too long", []float32{1, 1}, []float64{1}, Error{inf, -1, 2, 1}},
		{"empty", nil, nil, Error{inf, -1, 0, 0}},
		{"NaN", []float32{1, nan32}, []float64{1, 2}, Error{inf, 1, nan, 2}},
		{"want NaN", []float32{1}, []float64{nan}, Error{inf, 0, 1, nan}},
		{"both NaN", []float32{nan32}, []float64{nan}, Error{inf, 0, nan, nan}},
		{"infinite", []float32{inf32}, []float64{1}, Error{inf, 0, inf, 1}},
		{"both infinite", []float32{inf32}, []float64{inf}, Error{inf, 0, inf, inf}},
		{"want infinity", []float32{1}, []float64{-inf}, Error{inf, 0, 1, -inf}},
	} {
		e := MaxErr(c.got, c.want)
		if math.IsInf(c.err.Rel, 1) {
			assert.Equal(t, inf, e.Rel, c.name)
		} else {
			assert.InDelta(t, c.err.Rel, e.Rel, 1e-15, c.name)
		}
		assert.Equal(t, c.err.Index, e.Index, c.name)
		for _, pair := range [][2]float64{{c.err.Got, e.Got}, {c.err.Want, e.Want}} {
			assert.True(t, pair[0] == pair[1] || math.IsNaN(pair[0]) && math.IsNaN(pair[1]), c.name)
		}
	}
	assert.Equal(t, "error 0.01 at element 1: got 5, want 6", MaxErr([]float32{100, 5}, []float64{100, 6}).String())
	assert.Equal(t, "cannot compare: got 1 elements, want 2", MaxErr([]float32{1}, []float64{1, 1}).String())
}

// TestWithinRejects checks that Within fails where it must.
func TestWithinRejects(t *testing.T) {
	e := MaxErr([]float32{1, 2.5}, []float64{1, 2})
	assert.NoError(t, e.Within(0.25))
	assert.EqualError(t, e.Within(0.24), "error 0.25 at element 1: got 2.5, want 2, bound 0.24")
	same := MaxErr([]float32{1}, []float64{1})
	assert.NoError(t, same.Within(0))
	for _, bound := range []float64{-1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		assert.Error(t, same.Within(bound), bound)
	}
	for _, e := range []Error{MaxErr(nil, nil), MaxErr([]float32{1}, nil), MaxErr([]float32{float32(math.NaN())}, []float64{1})} {
		assert.Error(t, e.Within(1e30))
	}
}

func TestBound(t *testing.T) {
	assert.InDelta(t, 2*0.25+0.125, Bound([]float32{1.25}, []float64{1}, 0.125), 1e-15)
	// With an invalid float32 result no bound is accepted.
	for _, float32Result := range [][]float32{nil, {1, 2}, {float32(math.Inf(1))}, {float32(math.NaN())}} {
		assert.Error(t, MaxErr([]float32{1}, []float64{1}).Within(Bound(float32Result, []float64{1}, 1)))
	}
}

func TestSameSet(t *testing.T) {
	got := []int32{5, 1, 5, 0}
	assert.NoError(t, SameSet(got, []int32{0, 5, 5, 1}))
	assert.Equal(t, []int32{5, 1, 5, 0}, got)
	assert.NoError(t, SameSet(nil, []int32{}))
	assert.EqualError(t, SameSet([]int32{1}, []int32{1, 2}), "got 1 indices, want 2")
	assert.EqualError(t, SameSet([]int32{1, 3, 7}, []int32{1, 4, 7}), "unexpected index 3 (element 1 of 3 in sorted order)")
	assert.EqualError(t, SameSet([]int32{4, 1, 1}, []int32{1, 4, 4}), "unexpected index 1 (element 1 of 3 in sorted order)")
	assert.EqualError(t, SameSet([]int32{1, 9}, []int32{1, 4}), "missing index 4 (element 1 of 2 in sorted order)")
}
