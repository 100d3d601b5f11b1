package figures

import (
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// TestFigures compares axes, lines and points.
func TestFigures(t *testing.T) {
	list := All(resultstest.Rows())
	require.Len(t, list, 4)
	type drawnLine struct {
		name   string
		points plotter.XYs
	}
	block, half := plotter.XYs{{X: 1024, Y: 1.5}, {X: 2048, Y: 2}}, plotter.XYs{{X: 1024, Y: 0.5}}
	for i, want := range []struct {
		file string
		x, y chart.Axis
		line []drawnLine
	}{
		{"roofline", chart.Axis{Title: "FLOP / byte", Log: true}, chart.Axis{Title: "TFLOP/s", Log: true}, []drawnLine{
			{"peak of f32: 40.00 TFLOP/s", plotter.XYs{{X: 2.5, Y: 10}, {X: 10, Y: 40}, {X: 400, Y: 40}}},
			{"peak of f16: 400.0 TFLOP/s", plotter.XYs{{X: 2.5, Y: 10}, {X: 100, Y: 400}, {X: 400, Y: 400}}},
			{"f32", plotter.XYs{{X: 20, Y: 10}}}, {"f16", plotter.XYs{{X: 80, Y: 20}}},
		}},
		{"length", chart.Axis{Title: "tokens", Tokens: true}, chart.Axis{Title: "GPU time", Log: true, Millis: true},
			[]drawnLine{{"block, f32, 1 x N x 512 x 1024", block}, {"block, f16, 1 x N x 512 x 1024", half}}},
		{"token", chart.Axis{Title: "tokens", Tokens: true}, chart.Axis{Title: "GPU time per token", Millis: true}, []drawnLine{
			{"block, f32, 1 x N x 512 x 1024", plotter.XYs{{X: 1024, Y: 1.5 / 1024}, {X: 2048, Y: 2.0 / 2048}}},
			{"block, f16, 1 x N x 512 x 1024", plotter.XYs{{X: 1024, Y: 0.5 / 1024}}}}},
		{"length_dense", chart.Axis{Title: "tokens", Tokens: true}, chart.Axis{Title: "GPU time", Log: true, Millis: true}, []drawnLine{
			{"block, f32, 1 x N x 512 x 1024", block}, {"block, f16, 1 x N x 512 x 1024", half},
			{"dense attention, f32, 1 x N x 8 x 64", plotter.XYs{{X: 1024, Y: 3}, {X: 2048, Y: 12}}}}},
	} {
		f := list[i]
		assert.Equal(t, want.file, f.File)
		assert.NotEmpty(t, f.Title)
		assert.Equal(t, want.x, f.X)
		assert.Equal(t, want.y, f.Y)
		assert.NotEmpty(t, f.Caption)
		var lines []drawnLine
		for _, l := range f.Lines {
			lines = append(lines, drawnLine{l.Name, l.Points})
		}
		assert.Equal(t, want.line, lines, want.file)
	}
	assert.Equal(t, []string{"linear"}, list[0].Lines[2].Labels)
	assert.Equal(t, []string{"linear 1x2x3 f16: 250.0 µs, 250.0 GB/s, 20.00 TFLOP/s, 6.2 % of the peak"}, list[0].Lines[3].Hover)
	assert.Equal(t, "block_length 1x2048x512x1024 f32: 2.000 ms, 976.6 ns per token", list[1].Lines[0].Hover[1])
	widths := map[vg.Length]bool{}
	for _, l := range list[0].Lines[:2] {
		widths[l.Width] = true
	}
	assert.Len(t, widths, 2, "ceilings that coincide are told apart by their widths")
}

// TestMissingRows has rows that do not suffice for all figures.
func TestMissingRows(t *testing.T) {
	files := func(rows []results.Row) string {
		var names []string
		for _, f := range All(rows) {
			names = append(names, f.File)
		}
		return strings.Join(names, " ")
	}
	all := resultstest.Rows()
	assert.Empty(t, files(nil))
	assert.Empty(t, files(all[1:8]), "without the copy peak")
	assert.Empty(t, files(all[:5]), "only peaks")
	noShares := slices.Clone(all)
	for i := range noShares {
		noShares[i].PeakShare = 0
	}
	assert.Empty(t, files(noShares[:8]), "the rates of a CPU driver are no peaks")
	assert.Equal(t, "roofline", files(all[:8]))
	assert.Equal(t, "length token", files(all[8:11]))
	assert.Empty(t, files(all[11:]), "only dense attention")
	assert.Empty(t, files([]results.Row{{Name: results.BlockLength, Shape: "invalid", GPU: 1}, {Name: results.BlockLength, Shape: "1x2x3x4"}}))
}

// TestDraw requires valid files with the expected text, and the same bytes each time.
func TestDraw(t *testing.T) {
	for _, f := range All(resultstest.Rows()) {
		f.Title += ` <b> & "c"`
		svg, picture, err := f.Draw()
		require.NoError(t, err)
		charttest.CheckSVG(t, svg)
		charttest.CheckPNG(t, picture)
		assert.Contains(t, string(svg), "&lt;b&gt; &amp;")
		for _, l := range f.Lines {
			assert.Contains(t, string(svg), ">"+l.Name+"<")
		}
		again, _, err := f.Draw()
		require.NoError(t, err)
		assert.Equal(t, string(svg), string(again))
	}
}
