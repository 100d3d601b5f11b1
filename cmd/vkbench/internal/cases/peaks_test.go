package cases

import (
	"fmt"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAllPeaks(t *testing.T) {
	shape := func(m, n, k, a, c uint32) vk.MatrixShape {
		return vk.MatrixShape{M: m, N: n, K: k, A: a, B: a, C: c, Result: c, Scope: 3}
	}
	const f16, f32, f64, s8, s32, bf16 = 0, 1, 2, 3, 5, 1000141000
	list, remarks := AllPeaks(vk.Caps{MatrixShapes: []vk.MatrixShape{
		shape(16, 16, 16, f16, f16), shape(16, 16, 16, f16, f32), shape(16, 8, 16, f16, f32), shape(16, 8, 16, f16, f32),
		shape(16, 16, 32, s8, s32), shape(16, 16, 16, bf16, f32), shape(8, 8, 4, f64, f64),
	}})
	titles := func(list []SizedCase) (titles []string) {
		for _, x := range list {
			titles = append(titles, x.Title())
		}
		return titles
	}
	all := []string{"peak copy 268435456 f32", "peak matmul 4096x4096x4096 f32", "peak matrix to f16 16x16x16 f16", "peak matrix to f32 16x16x16 f16",
		"peak matrix to f32 16x8x16 f16", "peak matrix to s32 16x16x32 s8", "peak matrix to f32 16x16x16 bf16"}
	assert.Equal(t, all, titles(list))
	require.Len(t, remarks, 1)
	assert.Contains(t, remarks[0], "Left out: M 8 N 8 K 4: float64 x float64 + float64 -> float64, of a subgroup: ")

	caps := vk.Caps{MatrixShapes: []vk.MatrixShape{shape(16, 16, 16, f16, f16), shape(16, 16, 16, f16, f32), shape(16, 16, 32, s8, s32), shape(16, 16, 16, bf16, f32)}}
	for want, precisions := range map[string][]pipelines.DType{
		"":                                 {pipelines.F32},
		"peak matrix to f32 16x16x16 f16":  {pipelines.F32, pipelines.F16},
		"peak matrix to f32 16x16x16 bf16": {pipelines.BF16},
	} {
		got := titles(Peaks(caps, precisions))
		assert.Equal(t, want, strings.Join(got[2:], ", "))
	}
	_, remarks = AllPeaks(vk.Caps{})
	assert.Equal(t, []string{"There are no cooperative matrices to measure."}, remarks, fmt.Sprint(remarks))
}
