package shaders

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSPV(t *testing.T) {
	names, err := Names()
	require.NoError(t, err)
	assert.True(t, slices.IsSorted(names))
	assert.Greater(t, len(names), 100)
	code, err := SPV("rmsnorm")
	require.NoError(t, err)
	assert.Equal(t, []byte{3, 2, 0x23, 7}, code[:4], "the magic number of SPIR-V")
	code[0] = 0
	again, err := SPV("rmsnorm")
	require.NoError(t, err)
	assert.EqualValues(t, 3, again[0], "a copy")
	_, err = SPV("rmsnrom")
	assert.EqualError(t, err, `shaders: no module "rmsnrom"`)
}
