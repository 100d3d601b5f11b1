package cases

import (
	"testing"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelect(t *testing.T) {
	selected, err := Select(All(), []string{"topk", "linear"}, []string{"topk=1x5x2", "3x5x4", "linear=7x8x9"})
	require.NoError(t, err)
	assert.Equal(t, []string{"linear", "topk"}, Names(selected))
	assert.Equal(t, [][]int{{3, 5, 4}, {7, 8, 9}}, selected[0].Sizes)
	assert.Equal(t, [][]int{{1, 5, 2}, {3, 5, 4}}, selected[1].SmallSizes)
	assert.Equal(t, "7x8x9", selected[0].expand(false, []pipelines.DType{pipelines.F32})[1].Shape())

	selected, err = Select(All(), []string{"cross"}, []string{"1x2x3x4x5x0"})
	require.NoError(t, err)
	assert.Equal(t, [][]int{{1, 2, 3, 4, 5, 0}}, selected[0].Sizes, "no blocks")

	_, err = Select(All(), []string{"cross"}, []string{"1x1024x4194304x512x2x131072"})
	require.NoError(t, err, "8 GiB of memories; the block is no dimension")

	selected, err = Select(All(), []string{"rmsnorm"}, []string{"3,5x12,16", "rmsnorm=7x8"})
	require.NoError(t, err)
	assert.Equal(t, [][]int{{3, 12}, {3, 16}, {5, 12}, {5, 16}, {7, 8}}, selected[0].Sizes, "all combinations")

	all, err := Select(All(), nil, nil)
	require.NoError(t, err)
	assert.Equal(t, Names(All()), Names(all))
	for _, c := range all {
		for _, size := range append(c.Sizes, c.SmallSizes...) {
			assert.Len(t, size, len(c.Dims), c.Name)
			assert.NoError(t, c.checkSize(size), c.Name)
		}
		assert.NotEmpty(t, c.Sizes, c.Name)
		assert.NotEmpty(t, c.SmallSizes, c.Name)
	}
}

// TestExpand has a device with float16 and without bfloat16.
func TestExpand(t *testing.T) {
	some := vk.Caps{CooperativeMatrix: true, MemoryModel: true, FullSubgroups: true, Float16: true,
		MatrixShapes: []vk.MatrixShape{{M: 16, N: 16, K: 16, C: 1, Result: 1, Scope: 3}}}
	list, err := Select(All(), []string{"rmsnorm", "linear"}, []string{"rmsnorm=3x4,8", "linear=1x2x3"})
	require.NoError(t, err)
	titles := func(sized []SizedCase) (list []string) {
		for _, x := range sized {
			list = append(list, x.Title())
		}
		return list
	}
	sized, remarks := Expand(list, true, some, []pipelines.DType{pipelines.F16, pipelines.BF16, pipelines.F32})
	assert.Equal(t, []string{"rmsnorm 3x4 f32", "rmsnorm 3x8 f32", "linear 1x2x3 f16", "linear 1x2x3 f32"}, titles(sized))
	require.Len(t, remarks, 2)
	assert.Contains(t, remarks[0], "Left out: bf16, which the device does not support: ")
	assert.Contains(t, remarks[0], "VK_KHR_shader_bfloat16")
	assert.Contains(t, remarks[1], "In f32 only, without 16-bit variants: rmsnorm.")

	sized, remarks = Expand(list, true, vk.Caps{}, []pipelines.DType{pipelines.F32})
	assert.Equal(t, []string{"rmsnorm 3x4 f32", "rmsnorm 3x8 f32", "linear 1x2x3 f32"}, titles(sized))
	assert.Empty(t, remarks)

	assert.NoError(t, CheckNotEmpty([]SizedCase{{}}, nil))
	assert.ErrorContains(t, CheckNotEmpty(nil, []string{"Left out: all."}), "nothing of what was requested can run here. Left out: all.")

	for _, name := range with16Bit() {
		assert.Contains(t, Names(All()), name)
	}
}
