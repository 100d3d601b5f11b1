package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// matrixAttention returns the SPIR-V variant of an attention with 16-bit operands on the device, or the chip that a test
// pretends.
func matrixAttention(stem string, p DType) string {
	if chip := pretend.Current(); chip != nil && (deviceLimits{chip.Caps, registersOf(chip.Caps)}).lowRegisters() {
		stem += "_lowreg"
	}
	return stem + "_" + p.String()
}

// The attentions with 16-bit operands, with the kernel for devices with few registers. Bits, masks, NaN and scores have
// the same tests as those of the other kernel.
func TestAttentionLowRegisters(t *testing.T) {
	defer pretend.Chip(pretend.Chips()["dg2"])()
	t.Run("window bits", TestWindowAttentionMatrixBits)
	t.Run("NaN queries", TestAttentionMatrixNaNQueries)
	if testing.Short() {
		t.Skip("compiles kernels for 20 s on CPU drivers")
	}
	t.Run("window", TestWindowAttentionMatrix)
	t.Run("patch", TestPatchAttentionMatrix)
	t.Run("routed", TestRoutedAttentionMatrix)
}

// The tiles of chips with few registers: two matrices of results in a subgroup, as many keys for few queries as for many,
// the same invocations per query, and the shared memory that the shader declares.
func TestLowRegisterTiles(t *testing.T) {
	code, err := shaders.SPV("patch_attention_lowreg_f16")
	require.NoError(t, err)
	for name, l := range chipLimits() {
		m, err := F16.matrixShape(l.Caps)
		if err != nil {
			continue
		}
		for d := 2; d <= 128; d += 2 {
			factors := d%4 == 0
			many, err := lowRegisterTile(l, m, d, factors, 1000)
			require.NoError(t, err, "%s, dim %d", name, d)
			few, err := lowRegisterTile(l, m, d, factors, 32)
			require.NoError(t, err, "%s, dim %d", name, d)
			assert.Equal(t, attentionTile{32, many.keys, 32 * many.subgroups / many.queries, false}, few, "%s, dim %d", name, d)
			for _, tile := range []attentionTile{many, few} {
				threads := uint32(tile.subgroups) * l.SubgroupMin
				assert.LessOrEqual(t, uint32(tile.queries), threads)
				assert.LessOrEqual(t, threads, l.MaxWorkgroupInvocations)
				assert.LessOrEqual(t, uint32(tile.subgroups), l.MaxWorkgroupSubgroups)
				spec := tileSpec(d, tile, factors)
				spec[shaders.Attention16MatrixM], spec[shaders.Attention16MatrixN], spec[shaders.Attention16MatrixK] = m.M, m.N, m.K
				spec[shaders.Attention16Threads], spec[shaders.Attention16SubgroupSize] = threads, l.SubgroupMin
				reflected, err := spirv.Reflect(code, spec)
				require.NoError(t, err)
				assert.EqualValues(t, lowRegisterShared(tile, m, d, factors), reflected.SharedBytes, "%s, %v, dim %d", name, tile, d)
				assert.LessOrEqual(t, reflected.SharedBytes, uint64(l.MaxSharedBytes))
			}
		}
	}
	intel := chipLimits()
	for _, test := range []struct {
		chip       string
		d, queries int
		want       attentionTile
	}{
		{"dg2", 16, 1000, attentionTile{64, 32, 8, false}}, {"dg2", 64, 1000, attentionTile{64, 32, 32, false}}, {"dg2", 64, 32, attentionTile{32, 32, 16, false}},
		{"dg2", 128, 1000, attentionTile{32, 32, 32, false}}, {"bmg", 16, 1000, attentionTile{64, 32, 4, false}}, {"bmg", 64, 1000, attentionTile{64, 32, 16, false}},
		{"bmg", 80, 1000, attentionTile{32, 32, 10, false}}, {"ptl", 128, 1000, attentionTile{32, 32, 16, false}}, {"lavapipe", 128, 1000, attentionTile{32, 16, 32, false}},
	} {
		l := intel[test.chip]
		m, err := F16.matrixShape(l.Caps)
		require.NoError(t, err)
		tile, err := lowRegisterTile(l, m, test.d, true, test.queries)
		require.NoError(t, err)
		assert.Equal(t, test.want, tile, "%+v", test)
	}
	small := intel["dg2"]
	small.MaxSharedBytes = 16 << 10
	_, err = lowRegisterTile(small, vk.MatrixShape{M: 8, N: 8, K: 16}, 128, true, 1000)
	assert.ErrorIs(t, err, vk.ErrUnsupported)
	assert.ErrorContains(t, err, "heads of dim 128 with matrices of 8x8 need")
}
