package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlot(t *testing.T) {
	var lines []string
	for _, r := range resultstest.Rows() {
		r.Device = "D"
		text, err := json.Marshal(r)
		require.NoError(t, err)
		lines = append(lines, string(text))
	}
	first, second := commandtest.File(t, "first.jsonl", strings.Join(lines[:9], "\n")), commandtest.File(t, "second.json", "[\n"+strings.Join(lines[9:], ",\n")+"\n]\n")
	dir := filepath.Join(t.TempDir(), "new", "plots")
	code, out, remarks := program.Run("plot", "-out", dir, first, second)
	require.Equal(t, command.ExitOK, code, remarks)
	var want []string
	for _, name := range []string{"roofline", "length", "token", "length_dense"} {
		want = append(want, filepath.Join(dir, name+".svg"), filepath.Join(dir, name+".png"))
	}
	assert.Equal(t, strings.Join(want, "\n")+"\n", out)
	for _, path := range want {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if strings.HasSuffix(path, ".svg") {
			charttest.CheckSVG(t, data)
		} else {
			charttest.CheckPNG(t, data)
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, len(want), "no temporary files")
}

func TestPlotUsage(t *testing.T) {
	text := commandtest.File(t, "text", "some text")
	a, b := vk.Info{Name: "A"}, vk.Info{Name: "B"}
	row := commandtest.File(t, "row", resultstest.JSON(results.BlockLength, "1x2x3x4", "f32", 1, a))
	two := commandtest.File(t, "two", resultstest.JSON(results.BlockLength, "1x2x3x4", "f32", 1, a)+resultstest.JSON(results.BlockLength, "1x3x3x4", "f32", 1, b))
	none := commandtest.File(t, "none", resultstest.JSON("membership_mask", "1x2x3", "f32", 1, a))
	rows := commandtest.File(t, "rows", "[\n{\"name\": \"a\", \"shape\": \"1\", \"gpu_ms\": 1},\n{\"name\": \"a\"}\n]\n")
	program.RejectsUsage(t, [][2]string{
		{"plot", "plot needs a file"},
		{"plot " + text, text + ":1: invalid character"},
		{"plot " + row, "-out names no folder"},
		{"plot -out " + text + " " + row, "-out " + text},
		{"plot " + rows, rows + ":3: an object"},
		{"plot -out /tmp " + two, `"A" and "B"`},
		{"plot -out /tmp " + none, "nothing to draw"},
	})
}
