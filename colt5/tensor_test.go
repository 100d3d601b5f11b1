package colt5

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInvalidTensors(t *testing.T) {
	fx := newFixture(t)
	for _, test := range []struct {
		dtype DType
		shape []int
		want  string
	}{
		{F32, nil, "shape is [], want at least one dimension"},
		{F32, []int{2, 0, 3}, "dimension 1 of shape [2 0 3] is 0, want 1 to"},
		{F32, []int{-1}, "dimension 0 of shape [-1] is -1"},
		{U8, []int{math.MaxInt32, math.MaxInt32, math.MaxInt32}, "fits memory"},
		{DType(9), []int{1}, "dtype is DType(9), want f32, i32 or u8"},
	} {
		_, err := NewTensor(fx.dev, test.dtype, test.shape...)
		assert.ErrorContains(t, err, test.want)
	}
	_, err := NewTensor(fx.dev, F32, math.MaxInt32, 1<<20)
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
	_, err = NewTensor(nil, F32, 1)
	assert.ErrorContains(t, err, "device is nil")
	_, err = FromSlice(t.Context(), fx.dev, make([]float32, 5), 2, 3)
	assert.ErrorContains(t, err, "FromSlice: data has 5 elements, want 6 for f32[2 3]")
	x := fx.tensor(F32, 2, 3)
	assert.ErrorContains(t, x.Write(t.Context(), make([]float32, 7)), "data is 7 elements of f32, want 6 of f32")
	assert.ErrorContains(t, x.Write(t.Context(), make([]int32, 6)), "data is 6 elements of i32, want 6 of f32")
	assert.ErrorContains(t, x.Write(t.Context(), "six"), "data is string, want []float32")
	_, err = x.Int32(t.Context())
	assert.ErrorContains(t, err, "data holds 6 elements of i32, the tensor has 6 of f32")
	y, err := NewTensor(fx.dev, F32, 1)
	require.NoError(t, err)
	require.NoError(t, y.Close())
	require.NoError(t, y.Close())
	_, err = y.Float32(t.Context())
	assert.ErrorIs(t, err, vk.ErrClosed)
	assert.NoError(t, (*Tensor)(nil).Close())
}
