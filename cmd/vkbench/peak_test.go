package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPeak wants a row for each cooperative matrix of the device.
func TestPeak(t *testing.T) {
	caps := gputest.Device(t).Caps()
	code, out, remarks := onDevice(t, "peak", "-o", "json", "-reps", "2", "-warmup", "0")
	require.Equal(t, exitFine, code, remarks)
	rows := objects(t, out)
	assert.Equal(t, copyRoof, rows[0]["name"])
	assert.Positive(t, rows[0]["gb_per_s"])
	assert.Equal(t, matmulRoof, rows[1]["name"])
	assert.Len(t, rows, 2+len(caps.MatrixShapes)-strings.Count(remarks, "Left out: "))
	for _, r := range rows[1:] {
		assert.Positive(t, r["tflop_per_s"], r)
	}
	assert.Equal(t, len(rows) == 2, strings.Contains(remarks, "no cooperative matrices to measure"))
	assert.Equal(t, caps.CPU, strings.Contains(remarks, "no GPU figures"))
}

func TestAllRoofs(t *testing.T) {
	shape := func(m, n, k, a, c uint32) vk.MatrixShape {
		return vk.MatrixShape{M: m, N: n, K: k, A: a, B: a, C: c, Result: c, Scope: 3}
	}
	const f16, f32, f64, s8, s32, bf16 = 0, 1, 2, 3, 5, 1000141000
	list, remarks := allRoofs(vk.Caps{MatrixShapes: []vk.MatrixShape{
		shape(16, 16, 16, f16, f16), shape(16, 16, 16, f16, f32), shape(16, 8, 16, f16, f32), shape(16, 8, 16, f16, f32),
		shape(16, 16, 32, s8, s32), shape(16, 16, 16, bf16, f32), shape(8, 8, 4, f64, f64),
	}})
	titles := func(list []sized) (titles []string) {
		for _, x := range list {
			titles = append(titles, x.title())
		}
		return titles
	}
	all := []string{"roof copy 268435456 f32", "roof matmul 4096x4096x4096 f32", "roof matrix to f16 16x16x16 f16", "roof matrix to f32 16x16x16 f16",
		"roof matrix to f32 16x8x16 f16", "roof matrix to s32 16x16x32 s8", "roof matrix to f32 16x16x16 bf16"}
	assert.Equal(t, all, titles(list))
	require.Len(t, remarks, 1)
	assert.Contains(t, remarks[0], "Left out: M 8 N 8 K 4: float64 x float64 + float64 -> float64, of a subgroup: ")

	caps := vk.Caps{MatrixShapes: []vk.MatrixShape{shape(16, 16, 16, f16, f16), shape(16, 16, 16, f16, f32), shape(16, 16, 32, s8, s32), shape(16, 16, 16, bf16, f32)}}
	for want, precisions := range map[string][]pipelines.DType{
		"":                                 {pipelines.F32},
		"roof matrix to f32 16x16x16 f16":  {pipelines.F32, pipelines.F16},
		"roof matrix to f32 16x16x16 bf16": {pipelines.BF16},
	} {
		got := titles(roofs(caps, precisions))
		assert.Equal(t, want, strings.Join(got[2:], ", "))
	}
	_, remarks = allRoofs(vk.Caps{})
	assert.Equal(t, []string{"There are no cooperative matrices to measure."}, remarks, fmt.Sprint(remarks))
}
