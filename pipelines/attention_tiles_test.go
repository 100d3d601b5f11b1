package pipelines

import (
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Which tiles 16-bit attention has.

// Every tile has the shared memory that it claims and fits the device that it is for.
func TestAttentionMatrixTiles(t *testing.T) {
	code, err := shaders.SPV("patch_attention_f16")
	require.NoError(t, err)
	for d := 2; d <= 128; d += 2 {
		factors := d%4 == 0
		for _, tile := range slices.Concat(attentionMatrixCPU, attentionMatrixTiles, attentionMatrixShort, attentionMatrixWide) {
			m, err := spirv.Reflect(code, spirv.Spec{0: uint32(d), 1: uint32(tile.queries), 2: uint32(tile.keys), 4: specBool(factors), 24: uint32(tile.subgroups)})
			require.NoError(t, err)
			assert.EqualValues(t, tile.shared(d, factors), m.SharedBytes, "%v, dim %d, factors %v", tile, d, factors)
		}
		many, err := chooseAttentionTile(vk.Caps{SharedBytes: 32 << 10}, attentionMatrixTiles, d, true, 1000)
		require.NoError(t, err, "dim %d", d)
		few, err := chooseAttentionTile(vk.Caps{SharedBytes: 32 << 10}, attentionMatrixTiles, d, true, 3)
		require.NoError(t, err)
		assert.Equal(t, attentionTile{32, many.keys, 32 * many.subgroups / many.queries}, few)
	}
	for _, test := range []struct {
		list       []attentionTile
		d, queries int
		want       attentionTile
	}{
		{attentionMatrixTiles, 96, 1000, attentionTile{64, 64, 4}}, {attentionMatrixTiles, 98, 1000, attentionTile{64, 32, 4}},
		{attentionMatrixWide, 64, 65, attentionTile{128, 32, 4}}, {attentionMatrixWide, 64, 64, attentionTile{64, 32, 4}},
		{attentionMatrixWide, 66, 1000, attentionTile{64, 32, 4}}, {attentionMatrixWide, 2, 32, attentionTile{32, 32, 2}},
	} {
		tile, err := chooseAttentionTile(vk.Caps{SharedBytes: 48 << 10}, test.list, test.d, true, test.queries)
		require.NoError(t, err)
		assert.Equal(t, test.want, tile, "%+v", test)
	}
}

// The order of summation follows from the keys of a tile: whatever fits the device, they are the same for every number of queries.
func TestAttentionMatrixKeys(t *testing.T) {
	for _, list := range [][]attentionTile{attentionMatrixTiles, attentionMatrixShort, attentionMatrixWide, attentionMatrixCPU} {
		for _, bytes := range []uint32{32 << 10, 48 << 10, 64 << 10} {
			for d := 2; d <= 128; d += 2 {
				first, err := chooseAttentionTile(vk.Caps{SharedBytes: bytes}, list, d, true, 1)
				require.NoError(t, err)
				for _, queries := range []int{32, 33, 64, 65, 128, 129, 5000} {
					tile, err := chooseAttentionTile(vk.Caps{SharedBytes: bytes}, list, d, true, queries)
					require.NoError(t, err)
					assert.Equal(t, first.keys, tile.keys, "%d bytes, dim %d, %d queries", bytes, d, queries)
				}
			}
		}
	}
}

// Whatever the cooperative matrices of a device are, a subgroup's queries are a multiple of their rows, and its strip is wide enough.
func TestAttentionMatrixShapes(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		for _, m := range []vk.MatrixShape{{M: 8, N: 8, K: 8}, {M: 16, N: 8, K: 16}, {M: 8, N: 16, K: 16}, {M: 16, N: 16, K: 16}} {
			for _, test := range []struct {
				queries int
				list    []attentionTile
				want    attentionTile // where no CPU driver has its own
			}{
				{1, attentionMatrixTiles, attentionTile{32, 64, 2}}, {33, attentionMatrixTiles, attentionTile{64, 64, 4}},
				{1, attentionMatrixShort, attentionTile{32, 32, 2}}, {33, attentionMatrixShort, attentionTile{64, 32, 4}},
				{1, attentionMatrixWide, attentionTile{32, 32, 2}}, {1000, attentionMatrixWide, attentionTile{128, 32, 4}},
			} {
				config := attentionConfig{dimHead: 64, precision: p, matrices: test.list}
				k := &attentionKernels{kernelCache: kernelCache{dev: gputest.Device(t)}, attentionConfig: config, matrix: m, tiled: true}
				tile, err := k.tile("Test", attentionWork{queries: test.queries, keys: 100})
				require.NoError(t, err)
				assert.Equal(t, test.want, tile)
				k.tiled = false
				tile, err = k.tile("Test", attentionWork{queries: test.queries, keys: 100})
				require.NoError(t, err)
				rows := uint32(tile.queries / tile.subgroups)
				assert.True(t, rows >= m.M && rows%m.M == 0, "%+v: %+v", m, tile)
				assert.GreaterOrEqual(t, uint32(tile.keys/8+1), m.N/4, "%+v: %+v", m, tile)
				assert.Zero(t, uint32(tile.keys)%m.N+uint32(tile.keys)%m.K, "%+v: %+v", m, tile)
			}
		}
	}
}

// Windows have short tiles up to 128 tokens on each side.
func TestAttentionMatrixLists(t *testing.T) {
	for window, want := range map[int][]attentionTile{1: attentionMatrixShort, 64: attentionMatrixShort, 128: attentionMatrixShort, 129: attentionMatrixTiles,
		4096: attentionMatrixTiles} {
		w, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: 1, DimHead: 8, Window: window})
		require.NoError(t, err)
		assert.Equal(t, want, w.kernels.matrices, "window %d", window)
		require.NoError(t, w.Close())
	}
}
