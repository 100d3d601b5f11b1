package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/internal/spirv"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAttentionBackwardShared: tile.shared is the most that the kernels of both stages declare, or little more.
func TestAttentionBackwardShared(t *testing.T) {
	for _, m := range []vk.MatrixShape{{M: 16, N: 16, K: 16}, {M: 16, N: 8, K: 16}, {M: 16, N: 8, K: 8}} {
		for d := 2; d <= 128; d += 2 {
			factors := d%4 == 0
			for _, tile := range attentionBackwardWideTiles {
				most := uint64(0)
				for _, name := range []string{"window_attention_backward_queries_f16", "window_attention_backward_keys_f16", "patch_attention_backward_queries_f16"} {
					code, err := shaders.SPV(name)
					require.NoError(t, err)
					r, err := spirv.Reflect(code, spirv.Spec{
						shaders.AttentionBackwardDimHead: uint32(d), shaders.AttentionBackwardOwnRows: uint32(tile.own),
						shaders.AttentionBackwardOtherRows: uint32(tile.other), shaders.AttentionBackwardRowFactors: specBool(factors),
						shaders.AttentionBackwardOwnInRegisters: specBool(tile.ownInRegisters), shaders.Attention16MatrixM: m.M,
						shaders.Attention16MatrixN: m.N, shaders.Attention16MatrixK: m.K, shaders.Attention16Subgroups: uint32(tile.subgroups),
					})
					require.NoError(t, err)
					most = max(most, r.SharedBytes)
				}
				limit := uint64(tile.shared(m, d, factors))
				assert.LessOrEqual(t, most, limit, "%v, dim %d, %v", m, d, tile)
				assert.GreaterOrEqual(t, most, limit-1024, "%v, dim %d, %v", m, d, tile)
			}
		}
	}
}

// The float32 tiles for GPUs, also on CPU drivers.
func TestAttentionBackwardGPUTiles(t *testing.T) {
	if testing.Short() {
		t.Skip("CPU drivers compile these kernels for tens of seconds")
	}
	for _, c := range []windowGradient{
		{WindowAttentionConfig{Heads: 2, DimHead: 24, Window: 40, Causal: true}, 2, 101, 0, paddingMask(2, 101), false},
		{WindowAttentionConfig{Heads: 2, DimHead: 7, Window: 5}, 2, 32, 0, nil, false}, // 32 rows
		{WindowAttentionConfig{Heads: 1, DimHead: 100, Window: 40}, 2, 70, 0, paddingMask(2, 70), false},
		{WindowAttentionConfig{Heads: 1, DimHead: 64, Window: 33}, 1, 100, 1e4, nil, false}, // every softmax is 1 and 0
	} {
		t.Run(c.String(), func(t *testing.T) {
			gpu := gputest.New(t)
			w := c.open(t, gpu)
			w.kernels.gpuKernel = true
			a, dy := c.data()
			want, naive := ref.WindowAttentionBackward(a, dy), ref.WindowAttentionBackward32(a, dy)
			assert.NoError(t, ref.MaxErr(c.compute(t, w, gpu, c.poisonMasked(a.QKV), dy), want).Within(ref.Bound(naive, want, 2e-6)))
		})
	}
	all := func(c *RoutedAttentionConfig) {
		c.Valid, c.QueryValid, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
	}
	for _, c := range []routedCase{
		{RoutedAttentionConfig: ownKeys(4, 24, 2).with(all), lists: 2, queries: 64, keys: 65},
		{RoutedAttentionConfig: ownKeys(2, 100, 2).with(all), lists: 1, queries: 40, keys: 70},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			r := c.openBackward(t)
			r.kernels.gpuKernel = true
			a, dy := c.gradientArgs()
			c.check(t, a, dy, c.backward(t, r, gputest.New(t), a, dy))
		})
	}
}
