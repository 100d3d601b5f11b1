package ref

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
)

// normal returns n normally distributed values with the given standard deviation.
func normal(seed uint64, n int, scale float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// randomMask returns n bytes, each 1 with the given probability.
func randomMask(seed uint64, n int, p float64) []uint8 {
	r := rand.New(rand.NewPCG(seed, 2))
	m := make([]uint8, n)
	for i := range m {
		if r.Float64() < p {
			m[i] = 1
		}
	}
	return m
}

// assertNear compares the float64 and float32 results of a reference with hand-computed values.
func assertNear(t *testing.T, want, got []float64, got32 []float32) {
	t.Helper()
	assert.InDeltaSlice(t, want, got, 1e-12)
	assert.NoError(t, MaxErr(got32, want).Within(1e-6), "float32")
}

func log(x float64) float32 { return float32(math.Log(x)) }

// coarse returns n normally distributed values that are multiples of 2^-6, so that checkGradient moves them exactly.
func coarse(seed uint64, n int, scale float64) []float32 {
	x := normal(seed, n, scale)
	for i, v := range x {
		x[i] = float32(math.Round(float64(v)*64) / 64)
	}
	return x
}

// lossOf returns sum_i y[i] * upstream[i].
func lossOf(y []float64, upstream []float32) (sum float64) {
	for i, v := range y {
		sum += v * float64(upstream[i])
	}
	return sum
}

// checkGradient compares gradients of loss with respect to x with finite differences, and the float32 gradients with
// those in float64. loss reads x, whose values are coarse.
func checkGradient(t *testing.T, what string, x []float32, loss func() float64, got []float64, got32 []float32) {
	t.Helper()
	if assert.Len(t, got, len(x), what) && checkDifferences(t, what, x, loss, got, 1) {
		assert.NoError(t, MaxErr(got32, got).Within(1e-5), "%s in float32", what)
	}
}

// checkDifferences compares the gradient of every step-th element of x with finite differences of fourth order.
func checkDifferences(t *testing.T, what string, x []float32, loss func() float64, got []float64, step int) bool {
	t.Helper()
	const h = 0x1p-14
	for i := 0; i < len(x); i += step {
		v := x[i]
		at := func(d float32) float64 {
			x[i] = v + d
			return loss()
		}
		want := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
		x[i] = v
		if !(math.Abs(want-got[i]) <= 1e-7*max(1, math.Abs(want))) {
			t.Errorf("%s: gradient of element %d is %.12g, finite differences give %.12g", what, i, got[i], want)
			return false
		}
	}
	return true
}

// assertPanics checks that f panics with the message want.
func assertPanics(t *testing.T, want string, f func()) {
	t.Helper()
	assert.PanicsWithValue(t, want, f)
}
