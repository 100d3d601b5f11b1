package report

import (
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
)

func TestFacts(t *testing.T) {
	rows := resultstest.Rows()
	assert.Equal(t, []fact{
		{"peak bandwidth", "4,000 GB/s", "of a large copy, reads and writes"},
		{"peak rate of f32", "40.00 TFLOP/s", "of matrix products"},
		{"peak rate of f16", "400.0 TFLOP/s", "of matrix products"},
		{"f32 time / f16 time", "4.00", "median of 1 case"},
		{"transformer block, 2,048 tokens", "2.000 ms", "f32, 976.6 ns per token"},
		{"dense attention / block, 2,048 tokens", "6.000", "12.00 ms in f32, 2.000 ms in f32"},
	}, facts(rows))
	assert.Empty(t, facts(nil))
	rows = append(rows[:1:1], results.Row{Name: "a", Shape: "1", Precision: "f32", GPU: 1}, results.Row{Name: "a", Shape: "1", Precision: "bf16", GPU: 0.5},
		results.Row{Name: "b", Shape: "1", Precision: "f32", GPU: 4}, results.Row{Name: "b", Shape: "1", Precision: "bf16", GPU: 1})
	assert.Equal(t, []fact{
		{"measured bandwidth", "4,000 GB/s", "of a large copy, reads and writes"}, // without shares it is no peak
		{"f32 time / bf16 time", "3.00", "median of 2 cases"},
	}, facts(rows))
}

func TestRate(t *testing.T) {
	for x, want := range map[float64]string{627.5: "627.5 T", 1: "1.000 T", 0.9: "900.0 G", 0.000292: "292.0 M", 1e-9: "0.001000 M"} {
		assert.Equal(t, want, rate(x, "T", "G", "M"))
	}
}

func TestLead(t *testing.T) {
	info := vk.Info{Driver: "d", DriverInfo: "1", API: "1.3.0"}
	assert.Equal(t, "5 rates of copies and matrix products, 2 module and kernel cases and 5 rows of growing sequence lengths in f32 and f16, measured on 2026-01-02 with vkbench; "+
		"driver d 1, Vulkan 1.3.0. GPU times are medians.", lead(info, "2026-01-02", resultstest.Rows()))
	assert.Equal(t, "1 module and kernel case in f32, measured on today with vkbench; driver d 1, Vulkan 1.3.0. GPU times are medians.",
		lead(info, "today", []results.Row{{Name: "a", Precision: "f32"}}))
	assert.Equal(t, "1 module and kernel case in f32, measured on today with vkbench v1.2.3, commit 0123456789ab; driver d 1, Vulkan 1.3.0. GPU times are medians. "+
		"Host: linux/amd64, D; C, 2 logical CPUs.",
		lead(info, "today", []results.Row{{Name: "a", Precision: "f32", Version: "v1.2.3", Commit: "0123456789ab", OS: "linux/amd64, D", CPU: "C, 2 logical CPUs"}}))
}
