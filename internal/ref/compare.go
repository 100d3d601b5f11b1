package ref

import (
	"fmt"
	"math"
	"slices"
)

// Error is the largest difference between a result and its reference.
type Error struct {
	// Rel is max |got - want| / max(1, max |want|). It is +Inf if either side
	// holds a NaN or an infinity, if the lengths differ, or if there is
	// nothing to compare.
	Rel float64
	// Index is the worst element, or the first that is not finite; -1 if the
	// lengths are wrong.
	Index     int
	Got, Want float64 // the values there; with wrong lengths: the lengths
}

// MaxErr compares a result with its reference, see [Error].
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

// String names the error, the place and the two values.
func (e Error) String() string {
	if e.Index < 0 {
		return fmt.Sprintf("nothing compared: got %.0f elements, want %.0f", e.Got, e.Want)
	}
	return fmt.Sprintf("error %.3g at element %d: got %.9g, want %.9g", e.Rel, e.Index, e.Got, e.Want)
}

// Within returns an error unless e is at most the bound. A bound that is NaN,
// infinite or negative lets nothing pass.
func (e Error) Within(bound float64) error {
	if e.Rel <= bound && !math.IsInf(bound, 0) {
		return nil
	}
	return fmt.Errorf("%v, bound %.3g", e, bound)
}

// Bound derives the tolerance for a GPU result: twice the error of plain
// float32 on the CPU, plus a floor for results that float32 happens to hit
// exactly. If the naive result is itself useless (not finite, wrong length)
// the bound is +Inf, which [Error.Within] never accepts.
func Bound(naive32 []float32, want []float64, floor float64) float64 {
	return 2*MaxErr(naive32, want).Rel + floor
}

// SameSet returns an error unless both lists hold the same indices, each as
// often, in any order. The lists are left as they are.
func SameSet(got, want []int32) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d indices, want %d", len(got), len(want))
	}
	g, w := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	for i := range g {
		if g[i] < w[i] {
			return fmt.Errorf("got index %d, which is not wanted so often (%d of %d in order)", g[i], i, len(g))
		}
		if g[i] > w[i] {
			return fmt.Errorf("index %d is missing (%d of %d in order)", w[i], i, len(g))
		}
	}
	return nil
}
