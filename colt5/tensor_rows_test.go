package colt5

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTensorRows: a view shares the elements, and keeps the memory until both are closed.
func TestTensorRows(t *testing.T) {
	fx := newFixture(t)
	data := normal(1, 6*4)
	x, err := FromSlice(t.Context(), fx.dev, data, 6, 4)
	require.NoError(t, err)
	view, err := x.Rows(2, 3)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 4}, view.Shape())
	assert.Equal(t, data[8:20], fx.read(view))
	require.NoError(t, view.Write(t.Context(), make([]float32, 12)))
	assert.Equal(t, make([]float32, 12), fx.read(x)[8:20])
	part, err := view.Rows(1, 1)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	require.NoError(t, x.Close())
	_, err = x.Float32(t.Context())
	assert.ErrorContains(t, err, "closed")
	require.NoError(t, view.Close())
	assert.Equal(t, make([]float32, 4), fx.read(part))
	require.NoError(t, part.Close())
	_, err = part.Rows(0, 1)
	assert.ErrorContains(t, err, "colt5: Tensor.Rows: the tensor is closed")

	bytes := fx.bytes(make([]uint8, 60), 4, 15)
	_, err = bytes.Rows(1, 1)
	assert.ErrorContains(t, err, "row 1 starts at byte 15, want a multiple of 16")
	for _, bad := range [][2]int{{-1, 1}, {0, 0}, {0, 5}, {4, 1}} {
		_, err = bytes.Rows(bad[0], bad[1])
		assert.ErrorContains(t, err, "want rows of a tensor of 4")
	}
}
