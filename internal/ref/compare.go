package ref

import (
	"fmt"
	"math"
	"slices"
)

// Error is the largest difference between a result and its reference.
type Error struct {
	// Rel is max |got - want| / max(1, max |want|). It is +Inf if a value of either slice is not finite, if the lengths
	// differ, or if both are empty.
	Rel float64
	// Index is the element with the largest difference, or the first that is not finite; -1 if the lengths differ or
	// are 0.
	Index     int
	Got, Want float64 // the values at Index; with Index -1 the lengths
}

// MaxErr compares a result with its reference. See [Error].
func MaxErr(got []float32, want []float64) Error {
	if len(got) != len(want) || len(got) == 0 {
		return Error{math.Inf(1), -1, float64(len(got)), float64(len(want))}
	}
	worst := Error{Got: float64(got[0]), Want: want[0]}
	scale := 1.0
	for i, w := range want {
		g := float64(got[i])
		diff := math.Abs(g - w)
		if math.IsNaN(diff) || math.IsInf(diff, 0) || math.IsInf(w, 0) {
			return Error{math.Inf(1), i, g, w}
		}
		if diff > worst.Rel {
			worst = Error{diff, i, g, w}
		}
		scale = max(scale, math.Abs(w))
	}
	worst.Rel /= scale
	return worst
}

// String returns the error, the index and both values.
func (e Error) String() string {
	if e.Index < 0 {
		return fmt.Sprintf("cannot compare: got %.0f elements, want %.0f", e.Got, e.Want)
	}
	return fmt.Sprintf("error %.3g at element %d: got %.9g, want %.9g", e.Rel, e.Index, e.Got, e.Want)
}

// Within returns an error unless e.Rel is at most the bound. It always fails if the bound is NaN, infinite or negative.
func (e Error) Within(bound float64) error {
	if e.Rel <= bound && !math.IsInf(bound, 0) {
		return nil
	}
	return fmt.Errorf("%v, bound %.3g", e, bound)
}

// Bound returns the tolerance of a GPU result: twice the error of plain float32 on the CPU, plus a floor for results
// that float32 happens to compute exactly. If the float32 result is not finite or has the wrong length, the bound is
// +Inf, which [Error.Within] never accepts.
func Bound(result32 []float32, want []float64, floor float64) float64 {
	return 2*MaxErr(result32, want).Rel + floor
}

// SameSet returns an error unless both lists hold the same indices with the same multiplicity, in any order. It does
// not modify the lists.
func SameSet(got, want []int32) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d indices, want %d", len(got), len(want))
	}
	g, w := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	for i := range g {
		if g[i] < w[i] {
			return fmt.Errorf("unexpected index %d (element %d of %d in sorted order)", g[i], i, len(g))
		}
		if g[i] > w[i] {
			return fmt.Errorf("missing index %d (element %d of %d in sorted order)", w[i], i, len(g))
		}
	}
	return nil
}
