// Package resultstest has rows for tests.
package resultstest

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/vk"
)

// Rows returns rows that suffice for every figure and every table of a report.
func Rows() []results.Row {
	return []results.Row{
		{Name: results.CopyPeak, Shape: "1", Precision: "f32", GPU: 1, GBs: 4000},
		{Name: results.MatmulPeak, Shape: "1x1x1", Precision: "f32", GPU: 1, GBs: 50, TFLOPs: 40, PeakShare: 1},
		{Name: results.MatrixPeak + "f32", Shape: "16x8x8", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 300},
		{Name: results.MatrixPeak + "f32", Shape: "16x16x16", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 400},
		{Name: results.MatrixPeak + "f16", Shape: "16x16x16", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 500},
		{Name: "linear", Shape: "1x2x3", Precision: "f32", GPU: 1, GBs: 500, TFLOPs: 10},
		{Name: "linear", Shape: "1x2x3", Precision: "f16", GPU: 0.25, GBs: 250, TFLOPs: 20, PeakShare: 0.0625},
		{Name: "membership_mask", Shape: "1x2x3", Precision: "f32", GPU: 1, GBs: 500},
		{Name: results.BlockLength, Shape: "1x2048x512x1024", Precision: "f32", GPU: 2},
		{Name: results.BlockLength, Shape: "1x1024x512x1024", Precision: "f32", GPU: 1.5},
		{Name: results.BlockLength, Shape: "1x1024x512x1024", Precision: "f16", GPU: 0.5},
		{Name: results.DenseAttention, Shape: "1x1024x8x64", Precision: "f32", GPU: 3},
		{Name: results.DenseAttention, Shape: "1x2048x8x64", Precision: "f32", GPU: 12},
	}
}

// JSON returns a row of bench in the format jsonl, with a line break.
func JSON(name, shape, precision string, gpuMillis float64, i vk.Info) string {
	return fmt.Sprintf(`{"name": %q, "shape": %q, "precision": %q, "gpu_ms": %g, "device": %q, "driver": %q}`+"\n", name, shape, precision, gpuMillis,
		i.Name, deviceinfo.Driver(i))
}
