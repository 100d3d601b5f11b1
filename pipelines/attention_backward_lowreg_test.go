package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The backward passes of attention with 16-bit operands, with the kernels for devices with few registers.
func TestAttentionBackwardMatrixLowRegisters(t *testing.T) {
	defer pretend.Chip(pretend.Chips()["dg2"])()
	t.Run("window bits", TestWindowAttentionBackwardMatrixBits)
	t.Run("routed", TestRoutedAttentionBackwardMatrix)
	if testing.Short() {
		return
	}
	t.Run("window", TestWindowAttentionBackwardMatrix)
	t.Run("patch", TestPatchAttentionBackwardMatrix)
}

// The tiles of chips with few registers fit the device, have two matrices of sums in a subgroup, and the shared memory that the
// shader declares.
func TestLowRegisterBackwardTiles(t *testing.T) {
	for _, stage := range []string{"queries", "keys"} {
		code, err := shaders.SPV("patch_attention_backward_" + stage + "_lowreg_f16")
		require.NoError(t, err)
		for name, l := range chipLimits() {
			m, err := F16.matrixShape(l.Caps)
			if err != nil || !l.lowRegisters() && name != "lavapipe" && name != "lavapipe4" { // CPU drivers test the kernels
				continue
			}
			for d := 2; d <= 128; d += 2 {
				what, factors := fmt.Sprintf("%s, %s of dim %d", name, stage, d), d%4 == 0
				tile, err := lowRegisterBackwardTile(l, m, stage, d, factors)
				require.NoError(t, err, what)
				threads, padded := uint32(tile.subgroups)*l.SubgroupMin, (d+15)/16*16
				if name != "lavapipe4" {
					assert.EqualValues(t, 2*tile.subgroups*int(m.M*m.N), tile.own*padded*sumKinds(stage), what)
				}
				assert.LessOrEqual(t, tile.own, int(threads), what)
				assert.LessOrEqual(t, threads, min(256, l.MaxWorkgroupInvocations), what)
				assert.LessOrEqual(t, uint32(tile.subgroups), l.MaxWorkgroupSubgroups, what)
				assert.True(t, tile.lowRegisters && !tile.ownInRegisters, what)
				reflected, err := spirv.Reflect(code, map[uint32]uint32{
					shaders.AttentionBackwardDimHead: uint32(d), shaders.AttentionBackwardRowFactors: specBool(factors),
					shaders.AttentionBackwardOwnRows: uint32(tile.own), shaders.AttentionBackwardOtherRows: uint32(tile.other),
					shaders.Attention16MatrixM: m.M, shaders.Attention16MatrixN: m.N, shaders.Attention16MatrixK: m.K,
					shaders.Attention16Subgroups: uint32(tile.subgroups), shaders.Attention16SubgroupSize: l.SubgroupMin,
					shaders.Attention16Threads: threads,
				})
				require.NoError(t, err, what)
				shared := uint64(tile.lowRegisterShared(stage, d, factors))
				assert.LessOrEqual(t, reflected.SharedBytes, shared, what)
				assert.Less(t, shared-64, reflected.SharedBytes, what)
				assert.LessOrEqual(t, shared, uint64(l.MaxSharedBytes), what)
			}
		}
	}
	chips := chipLimits()
	for _, test := range []struct {
		chip, stage string
		d           int
		want        [3]int // own and other rows, subgroups
	}{
		{"dg2", "queries", 16, [3]int{32, 32, 4}}, {"dg2", "queries", 64, [3]int{32, 32, 16}}, {"dg2", "queries", 128, [3]int{32, 16, 32}},
		{"dg2", "keys", 64, [3]int{32, 32, 32}}, {"dg2", "keys", 128, [3]int{16, 32, 32}},
		{"bmg", "queries", 64, [3]int{32, 32, 8}}, {"bmg", "queries", 128, [3]int{32, 16, 16}},
		{"bmg", "keys", 64, [3]int{32, 32, 16}}, {"bmg", "keys", 80, [3]int{16, 32, 10}}, {"ptl", "keys", 128, [3]int{16, 32, 16}},
	} {
		l := chips[test.chip]
		m, err := F16.matrixShape(l.Caps)
		require.NoError(t, err)
		tile, err := lowRegisterBackwardTile(l, m, test.stage, test.d, true)
		require.NoError(t, err)
		assert.Equal(t, test.want, [3]int{tile.own, tile.other, tile.subgroups}, "%+v", test)
	}
	small := chips["dg2"]
	small.MaxSharedBytes = 16 << 10
	_, err := lowRegisterBackwardTile(small, vk.MatrixShape{M: 8, N: 8, K: 16}, "keys", 128, true)
	assert.ErrorIs(t, err, vk.ErrUnsupported)
	assert.ErrorContains(t, err, "keys of heads of dim 128 with matrices of 8x8 need")
}

// The loop iterations of a head of 128 and 32 subgroups: tiles of 32 keys with two chunks to load, two of 16 products,
// one weight, and 16 vec4 of the softmax.
func TestLowRegisterBackwardIterations(t *testing.T) {
	tile := attentionBackwardTile{own: 32, other: 32, subgroups: 32, lowRegisters: true}
	assert.Greater(t, tile.iterations(128, "queries", 3200), 2*100*(2+16+1+16))
	assert.Less(t, tile.iterations(128, "queries", 3200), 2*102*80)
}
