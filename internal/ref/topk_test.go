package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTopKHandComputed(t *testing.T) {
	// One iteration at eps 1: a = log(k ratio) - log(valid), score = exp(min(x + a, 0)).
	x, mask := []float32{0, log(8), -1, log(2)}, []uint8{1, 1, 1, 0}
	c := TopKConfig{K: 2, Ratio: 0.375, Iters: 1, Eps: 1} // a = log 0.75 - log 4, or log 3 with the mask
	got, got32 := TopK(x, nil, 1, 4, c), TopK32(x, nil, 1, 4, c)
	assert.Equal(t, []int32{1, 3}, got.Indices)
	assert.Equal(t, got.Indices, got32.Indices)
	assertNear(t, []float64{float64(x[1]), float64(x[3])}, got.Values, got32.Values)
	assertNear(t, []float64{1, math.Exp(float64(x[3])) * 0.1875}, got.CoorDescentValues, got32.CoorDescentValues)
	assertNear(t, []float64{1, 1}, got.Gates, got32.Gates)

	got = TopK(x, mask, 1, 4, c)
	assert.Equal(t, []int32{1, 0}, got.Indices)
	assert.InDeltaSlice(t, []float64{1, 0.25}, got.CoorDescentValues, 1e-12)

	// More slots than valid entries; k is 4, not 5: a = log 4 - log 3.
	c = TopKConfig{K: 5, Ratio: 1, Iters: 1, Eps: 1}
	got, got32 = TopK(x, mask, 1, 4, c), TopK32(x, mask, 1, 4, c)
	assert.Equal(t, []int32{1, 0, 2, -1, -1}, got.Indices)
	assertNear(t, []float64{float64(x[1]), 0, -1, 0, 0}, got.Values, got32.Values)
	assertNear(t, []float64{1, 1, math.Exp(-1) * 4 / 3, 0, 0}, got.CoorDescentValues, got32.CoorDescentValues)
	assertNear(t, []float64{1, 1, 1, 0, 0}, got.Gates, got32.Gates)

	c.NonDifferentiable = true
	hard := TopK(x, mask, 1, 4, c)
	assert.Equal(t, got.Indices, hard.Indices)
	assert.Equal(t, got.Values, hard.Values)
	assert.Nil(t, hard.CoorDescentValues)
	assert.Nil(t, hard.Gates)
}

func TestTopKDefaults(t *testing.T) {
	assert.Equal(t, TopKConfig{K: 3, Ratio: 1.125, Iters: 20, Eps: 0.1}, DefaultTopKConfig(3))
}
