package measure

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

func TestBaseline(t *testing.T) {
	here, other := vk.Info{Name: "A", Driver: "d", DriverInfo: "1"}, vk.Info{Name: "B", Driver: "e"}
	b, err := ReadBaseline(commandtest.File(t, "base.jsonl", resultstest.JSON("x", "1", "f32", 9, here)+resultstest.JSON("x", "1", "f32", 4, here)+resultstest.JSON("x", "1", "f16", 0, here)+resultstest.JSON("y", "1", "f32", 1, here)))
	require.NoError(t, err)
	b.rows[results.CopyPeak+" 1 f32"] = results.Row{Name: results.CopyPeak, GPU: 1}
	assert.Equal(t, []any{table.Millis(4), 2.0}, b.cells("x 1 f32", 2), "the last of two rows counts")
	assert.Equal(t, []any{table.Millis(0), nil}, b.cells("x 1 f16", 2))
	assert.Equal(t, []any{table.Absent{}, nil}, b.cells("x 2 f32", 2))
	assert.Equal(t, "Not run, but in the baseline: y 1 f32.", b.Missing())
	assert.Equal(t, []any{table.Millis(1), nil}, b.cells("y 1 f32", 0))
	assert.Empty(t, b.Missing())
	assert.Len(t, b.remarks(here), 1)
	assert.Contains(t, b.remarks(here)[0], "3 rows of ")
	assert.Equal(t, []string{"The baseline is of another device: A, d 1."}, b.remarks(other)[1:])
	here.DriverInfo = "2"
	assert.Equal(t, []string{"The baseline is of another driver: d 1."}, b.remarks(here)[1:])

	b.compared = nil
	assert.ErrorContains(t, b.Check(5), "no row of this run can be compared with one of ")
	b.cells(results.CopyPeak+" 1 f32", 100)
	assert.ErrorContains(t, b.Check(5), "no row of this run", "peaks do not count")
	b.cells("x 1 f32", 4.4)
	b.cells("y 1 f32", 2)
	b.cells("x 1 f16", 2)
	assert.NoError(t, b.Check(100))
	assert.EqualError(t, b.Check(99.5), "1 of 2 rows took more than 99.5 % longer than in "+b.path+":\n   y 1 f32: 2.000 ms, before 1.000 ms, +100.0 %")
	assert.ErrorContains(t, b.Check(5), "2 of 2 rows took more than 5 % longer than in "+b.path+":\n   x 1 f32: 4.400 ms, before 4.000 ms, +10.00 %\n   y 1 f32:")
	assert.ErrorContains(t, b.Check(0), "2 of 2 rows")

	var none *Baseline
	assert.Empty(t, none.columns())
	assert.Empty(t, none.cells("x 1 f32", 2))
	assert.Empty(t, none.remarks(here))
	assert.Empty(t, none.Missing())

	text := ""
	for i := range 20 {
		text += fmt.Sprintf(`{"name": "x", "shape": "%d", "gpu_ms": 1}`+"\n", i)
	}
	b, err = ReadBaseline(commandtest.File(t, "old.jsonl", text))
	require.NoError(t, err)
	assert.Equal(t, []string{"The baseline has rows that do not name their device."}, b.remarks(here)[1:])
	assert.Contains(t, b.Missing(), "x 11 f32, and 8 more.")
}
