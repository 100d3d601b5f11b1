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

// assertPanics checks that f panics with the message want.
func assertPanics(t *testing.T, want string, f func()) {
	t.Helper()
	assert.PanicsWithValue(t, want, f)
}
