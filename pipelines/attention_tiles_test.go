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

func tileSpec(dimHead int, t attentionTile, factors bool) spirv.Spec {
	spec := spirv.Spec{
		shaders.AttentionDimHead: uint32(dimHead), shaders.AttentionTileQueries: uint32(t.queries), shaders.AttentionTileKeys: uint32(t.keys),
		shaders.AttentionRowFactors: specBool(factors),
	}
	if t.subgroups > 0 {
		spec[shaders.Attention16Subgroups] = uint32(t.subgroups)
	}
	return spec
}

// tile.shared is what the shader declares, every head has a tile that fits the device, and its keys, which determine
// the order of summation, do not depend on the number of queries.
func TestAttentionTiles(t *testing.T) {
	for _, name := range []string{"patch_attention", "patch_attention_lowreg"} {
		code, err := shaders.SPV(name)
		require.NoError(t, err)
		for d := 1; d <= 128; d++ {
			factors := d%2 == 0
			for _, tile := range attentionTiles {
				m, err := spirv.Reflect(code, tileSpec(d, tile, factors))
				require.NoError(t, err)
				assert.EqualValues(t, tile.shared(d, factors), m.SharedBytes, "%s, %v, dim %d, factors %v", name, tile, d, factors)
			}
		}
	}
	for d := 1; d <= 128; d++ {
		for _, bytes := range []uint32{32 << 10, 48 << 10, 64 << 10} {
			many, err := selectAttentionTile(vk.Caps{MaxSharedBytes: bytes}, attentionTiles, d, true, 1000)
			require.NoError(t, err, "dim %d", d)
			few, err := selectAttentionTile(vk.Caps{MaxSharedBytes: bytes}, attentionTiles, d, true, 3)
			require.NoError(t, err)
			assert.LessOrEqual(t, many.shared(d, true), bytes)
			assert.Equal(t, attentionTile{32, many.keys, 0, false}, few)
		}
	}
	_, err := selectAttentionTile(vk.Caps{MaxSharedBytes: 16 << 10}, attentionTiles, 128, true, 1000)
	assert.ErrorIs(t, err, vk.ErrUnsupported)
	assert.ErrorContains(t, err, "bytes of shared memory, the device has 16384")
}

// The float32 tiles of chips. Those of chips with many registers follow from the shared memory alone. Chips with few have
// 32 keys in every tile, and a last tile that is known to fit.
func TestFloatAttentionTiles(t *testing.T) {
	few := []string{"skl", "icl", "tgl", "mtl", "dg2", "lnl", "bmg", "ptl", "apple"}
	for name, l := range chipLimits() {
		for d := 1; d <= 128; d++ {
			for _, queries := range []int{1, 32, 33, 1000} {
				tiles, err := floatAttentionTiles(l, d, true, queries)
				require.NoError(t, err)
				if !slices.Contains(few, name) {
					want, err := selectAttentionTile(l.Caps, attentionTiles, d, true, queries)
					assert.NoError(t, err)
					assert.Equal(t, []attentionTile{want}, tiles, "%s, dim %d, %d queries", name, d, queries)
					continue
				}
				for _, tile := range tiles {
					assert.Equal(t, 32, tile.keys)
					assert.LessOrEqual(t, tile.shared(d, true), l.MaxSharedBytes)
					assert.True(t, tile.queries == 32 || queries > 32)
				}
			}
		}
	}
	for _, test := range []struct {
		chip       string
		d, queries int
		want       []attentionTile
	}{
		{"tgl", 32, 1000, []attentionTile{{64, 32, 0, false}}}, {"tgl", 32, 32, []attentionTile{{32, 32, 0, false}}},
		{"tgl", 64, 1000, []attentionTile{{64, 32, 0, false}, {64, 32, 0, true}, {32, 32, 0, true}}},
		{"tgl", 64, 32, []attentionTile{{32, 32, 0, false}, {32, 32, 0, true}}},
		{"bmg", 65, 1000, []attentionTile{{32, 32, 0, true}}}, {"apple", 128, 1000, []attentionTile{{32, 32, 0, true}}},
		{"h200", 64, 1000, []attentionTile{{64, 64, 0, false}}}, {"navi31", 128, 32, []attentionTile{{32, 32, 0, false}}},
	} {
		tiles, err := floatAttentionTiles(chipLimits()[test.chip], test.d, false, test.queries)
		assert.NoError(t, err)
		assert.Equal(t, test.want, tiles, "%+v", test)
	}
	small := chipLimits()["tgl"]
	small.MaxSharedBytes = 16 << 10
	_, err := floatAttentionTiles(small, 128, true, 1000)
	assert.ErrorIs(t, err, vk.ErrUnsupported)
}

// tile.shared is what the shader declares, and every head has a tile that fits in 32 KiB.
func TestAttentionMatrixTiles(t *testing.T) {
	code, err := shaders.SPV("patch_attention_f16")
	require.NoError(t, err)
	for d := 2; d <= 128; d += 2 {
		factors := d%4 == 0
		for _, tile := range slices.Concat(attentionMatrixCPU, attentionMatrixTiles, attentionMatrixShort, attentionMatrixWide) {
			m, err := spirv.Reflect(code, tileSpec(d, tile, factors))
			require.NoError(t, err)
			assert.EqualValues(t, tile.shared(d, factors), m.SharedBytes, "%v, dim %d, factors %v", tile, d, factors)
		}
		many, err := selectAttentionTile(vk.Caps{MaxSharedBytes: 32 << 10}, attentionMatrixTiles, d, true, 1000)
		require.NoError(t, err, "dim %d", d)
		few, err := selectAttentionTile(vk.Caps{MaxSharedBytes: 32 << 10}, attentionMatrixTiles, d, true, 3)
		require.NoError(t, err)
		assert.Equal(t, attentionTile{32, many.keys, 32 * many.subgroups / many.queries, false}, few)
	}
	for _, test := range []struct {
		list       []attentionTile
		d, queries int
		want       attentionTile
	}{
		{attentionMatrixTiles, 96, 1000, attentionTile{64, 64, 4, false}}, {attentionMatrixTiles, 98, 1000, attentionTile{64, 32, 4, false}},
		{attentionMatrixWide, 64, 65, attentionTile{128, 32, 4, false}}, {attentionMatrixWide, 64, 64, attentionTile{64, 32, 4, false}},
		{attentionMatrixWide, 66, 1000, attentionTile{64, 32, 4, false}}, {attentionMatrixWide, 2, 32, attentionTile{32, 32, 2, false}},
	} {
		tile, err := selectAttentionTile(vk.Caps{MaxSharedBytes: 48 << 10}, test.list, test.d, true, test.queries)
		require.NoError(t, err)
		assert.Equal(t, test.want, tile, "%+v", test)
	}
}

// The keys of a tile, which determine the order of summation, do not depend on the number of queries.
func TestAttentionMatrixKeys(t *testing.T) {
	for _, list := range [][]attentionTile{attentionMatrixTiles, attentionMatrixShort, attentionMatrixWide, attentionMatrixCPU} {
		for _, bytes := range []uint32{32 << 10, 48 << 10, 64 << 10} {
			for d := 2; d <= 128; d += 2 {
				first, err := selectAttentionTile(vk.Caps{MaxSharedBytes: bytes}, list, d, true, 1)
				require.NoError(t, err)
				for _, queries := range []int{1, 32, 33, 64, 65, 128, 129, 5000} {
					tiles, err := attentionMatrixCandidates(vk.Caps{MaxSharedBytes: bytes}, list, d, true, queries)
					require.NoError(t, err)
					for _, tile := range tiles {
						assert.Equal(t, first.keys, tile.keys, "%d bytes, dim %d, %d queries", bytes, d, queries)
					}
				}
			}
		}
	}
}

// For all shapes of cooperative matrices, the queries of a subgroup are a multiple of their rows, and its strip is wide
// enough.
func TestAttentionMatrixShapes(t *testing.T) {
	for _, p := range []DType{F16, BF16} {
		for _, m := range []vk.MatrixShape{{M: 8, N: 8, K: 8}, {M: 16, N: 8, K: 16}, {M: 8, N: 16, K: 16}, {M: 16, N: 16, K: 16}} {
			for _, test := range []struct {
				queries int
				list    []attentionTile
				want    attentionTile // on GPUs
			}{
				{1, attentionMatrixTiles, attentionTile{32, 64, 2, false}}, {33, attentionMatrixTiles, attentionTile{64, 64, 4, false}},
				{1, attentionMatrixShort, attentionTile{32, 32, 2, false}}, {33, attentionMatrixShort, attentionTile{64, 32, 4, false}},
				{1, attentionMatrixWide, attentionTile{32, 32, 2, false}}, {1000, attentionMatrixWide, attentionTile{128, 32, 4, false}},
			} {
				config := attentionConfig{dimHead: 64, precision: p, matrixTiles: test.list}
				k := &attentionKernels{kernelCache: kernelCache{dev: gputest.Device(t)}, attentionConfig: config, matrix: m, gpuKernel: true}
				tiles, preset, err := k.tiles(attentionWork{queries: test.queries, keys: 100})
				require.NoError(t, err)
				assert.Equal(t, test.want, tiles[0])
				assert.Zero(t, preset)
				k.gpuKernel = false
				tiles, _, err = k.tiles(attentionWork{queries: test.queries, keys: 100})
				require.NoError(t, err)
				tile := tiles[0]
				rows := uint32(tile.queries / tile.subgroups)
				assert.True(t, rows >= m.M && rows%m.M == 0, "%+v: %+v", m, tile)
				assert.GreaterOrEqual(t, uint32(tile.keys/8+1), m.N/4, "%+v: %+v", m, tile)
				assert.Zero(t, uint32(tile.keys)%m.N+uint32(tile.keys)%m.K, "%+v: %+v", m, tile)
			}
		}
	}
}

// Windows of at most 128 tokens use the short tiles.
func TestAttentionMatrixLists(t *testing.T) {
	for window, want := range map[int][]attentionTile{1: attentionMatrixShort, 64: attentionMatrixShort, 128: attentionMatrixShort, 129: attentionMatrixTiles,
		4096: attentionMatrixTiles} {
		w, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: 1, DimHead: 8, Window: window})
		require.NoError(t, err)
		assert.Equal(t, want, w.kernels.matrixTiles, "window %d", window)
		require.NoError(t, w.Close())
	}
}
