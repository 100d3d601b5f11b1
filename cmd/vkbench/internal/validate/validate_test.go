package validate

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFloats(t *testing.T) {
	assert.NoError(t, Floats(nil, false))
	assert.NoError(t, Floats([]float32{1}, false))
	assert.NoError(t, Floats([]float32{1, 2}, false))
	assert.NoError(t, Floats([]float32{1, 1}, true))
	assert.EqualError(t, Floats([]float32{1, 1}, false), "all 2 elements are 1, want different values")
	assert.EqualError(t, Floats([]float32{1, float32(math.NaN())}, true), "element 1 is NaN, want a finite number")
	assert.EqualError(t, Floats([]float32{float32(math.Inf(-1)), 1}, true), "element 0 is -Inf, want a finite number")
}

func TestIndices(t *testing.T) {
	assert.NoError(t, Indices([]int32{0, 2, 2, 1}, 2, 3))
	assert.ErrorContains(t, Indices([]int32{0, 2, 2, 2}, 2, 3), "element 3 is 2")
	assert.ErrorContains(t, Indices([]int32{0, 3}, 2, 3), "element 1 is 3, want a number below 3")
	assert.ErrorContains(t, Indices([]int32{-1, 0}, 2, 3), "element 0 is -1")
}
