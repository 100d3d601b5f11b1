package pipelines

import (
	"io"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Close fails while an open command list uses a kernel, and frees it when called again.
func TestCloseAfterUse(t *testing.T) {
	gpu := gputest.New(t)
	gputest.CountCase()
	x, y, weights := gpu.In("x", make([]float32, 16)), gpu.Out("y", 64), gpu.In("weights", make([]float32, 16))
	words := gpu.Out("words", 64)
	for name, open := range map[string]func(*vk.CommandList) (io.Closer, error){
		"RMSNorm": func(list *vk.CommandList) (io.Closer, error) {
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: 16})
			if err != nil {
				return nil, err
			}
			return n, n.Record(list, RMSNormArgs{X: x, Gamma: weights, Y: y, Rows: 1})
		},
		"PatchAttention": func(list *vk.CommandList) (io.Closer, error) {
			p, err := NewPatchAttention(gpu.Dev, PatchAttentionConfig{Heads: 1, DimHead: 4, Patch: 1})
			if err != nil {
				return nil, err
			}
			return p, p.Record(list, PatchAttentionArgs{QKV: x.Slice(0, 48), Y: y.Slice(0, 16), Height: 1, Width: 1})
		},
		"CoorDescent": func(list *vk.CommandList) (io.Closer, error) {
			c, err := NewCoorDescent(gpu.Dev, CoorDescentConfig{Iters: 2, Eps: 1})
			if err != nil {
				return nil, err
			}
			return c, c.Record(list, CoorDescentArgs{Logits: x, Scores: y, Rows: 1, N: 16, K: 2})
		},
		"Select": func(list *vk.CommandList) (io.Closer, error) {
			s, err := NewSelect(gpu.Dev, SelectConfig{})
			if err != nil {
				return nil, err
			}
			return s, s.Record(list, SelectArgs{Logits: x, Indices: words.Slice(0, 8), Valid: words.Slice(16, 8), Rows: 1, N: 16, K: 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := gpu.Dev.Stats().Kernels
			list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: name})
			require.NoError(t, err)
			object, err := open(list)
			require.NoError(t, err)
			assert.ErrorContains(t, object.Close(), "an open command list uses")
			require.NoError(t, list.Close())
			require.NoError(t, object.Close())
			assert.Equal(t, before, gpu.Dev.Stats().Kernels)
			require.NoError(t, object.Close())
		})
	}
}
