package bench

import (
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPeak requires a row for each cooperative matrix of the device.
func TestPeak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s; TestBench measures peaks")
	}
	caps := gputest.Device(t).Caps()
	code, out, remarks := program.RunOnDevice(t, "peak", "-o", "json", "-reps", "2", "-warmup", "0")
	require.Equal(t, command.ExitOK, code, remarks)
	rows := commandtest.Objects(t, out)
	assert.Equal(t, results.CopyPeak, rows[0]["name"])
	assert.Positive(t, rows[0]["gb_per_s"])
	assert.Equal(t, results.MatmulPeak, rows[1]["name"])
	assert.Len(t, rows, 2+len(caps.MatrixShapes)-strings.Count(remarks, "Left out: "))
	for _, r := range rows[1:] {
		assert.Positive(t, r["tflop_per_s"], r)
	}
	assert.Equal(t, len(rows) == 2, strings.Contains(remarks, "no cooperative matrices to measure"))
	assert.Equal(t, caps.CPU, strings.Contains(remarks, "no GPU figures"))
}
