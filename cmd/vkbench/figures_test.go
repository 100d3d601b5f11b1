package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/plotter"
)

// someRows are enough for every figure.
func someRows() []benchRow {
	return []benchRow{
		{Name: copyRoof, Shape: "1", Precision: "f32", GPU: 1, GBs: 4000},
		{Name: matmulRoof, Shape: "1x1x1", Precision: "f32", GPU: 1, GBs: 50, TFLOPs: 40},
		{Name: matrixRoof + "f32", Shape: "16x8x8", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 300},
		{Name: matrixRoof + "f32", Shape: "16x16x16", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 400},
		{Name: matrixRoof + "f16", Shape: "16x16x16", Precision: "f16", GPU: 1, GBs: 1, TFLOPs: 500},
		{Name: "linear", Shape: "1x2x3", Precision: "f32", GPU: 1, GBs: 500, TFLOPs: 10},
		{Name: "linear", Shape: "1x2x3", Precision: "f16", GPU: 1, GBs: 250, TFLOPs: 20},
		{Name: "membership_mask", Shape: "1x2x3", Precision: "f32", GPU: 1, GBs: 500},
		{Name: blockLength, Shape: "1x2048x512x1024", Precision: "f32", GPU: 2},
		{Name: blockLength, Shape: "1x1024x512x1024", Precision: "f32", GPU: 1.5},
		{Name: blockLength, Shape: "1x1024x512x1024", Precision: "f16", GPU: 0.5},
		{Name: denseAttention, Shape: "1x1024x8x64", Precision: "f32", GPU: 3},
		{Name: denseAttention, Shape: "1x2048x8x64", Precision: "f32", GPU: 12},
	}
}

// TestFigures looks at what is drawn: axes, lines and points.
func TestFigures(t *testing.T) {
	list := figures(someRows(), "Device")
	require.Len(t, list, 4)
	type drawnLine struct {
		name   string
		points plotter.XYs
	}
	block, half := plotter.XYs{{X: 1024, Y: 1.5}, {X: 2048, Y: 2}}, plotter.XYs{{X: 1024, Y: 0.5}}
	for i, want := range []struct {
		file string
		x, y axis
		line []drawnLine
	}{
		{"roofline", axis{title: "FLOP / byte", log: true}, axis{title: "TFLOP/s", log: true}, []drawnLine{
			{"roof of f32: 40.00 TFLOP/s", plotter.XYs{{X: 2.5, Y: 10}, {X: 10, Y: 40}, {X: 400, Y: 40}}},
			{"roof of f16: 400.0 TFLOP/s", plotter.XYs{{X: 2.5, Y: 10}, {X: 100, Y: 400}, {X: 400, Y: 400}}},
			{"f32", plotter.XYs{{X: 20, Y: 10}}}, {"f16", plotter.XYs{{X: 80, Y: 20}}},
		}},
		{"length", axis{title: "tokens", tokens: true}, axis{title: "GPU ms", log: true},
			[]drawnLine{{"block, f32, 1 x N x 512 x 1024", block}, {"block, f16, 1 x N x 512 x 1024", half}}},
		{"token", axis{title: "tokens", tokens: true}, axis{title: "GPU ns for each token"}, []drawnLine{
			{"block, f32, 1 x N x 512 x 1024", plotter.XYs{{X: 1024, Y: 1.5e6 / 1024}, {X: 2048, Y: 2e6 / 2048}}},
			{"block, f16, 1 x N x 512 x 1024", plotter.XYs{{X: 1024, Y: 0.5e6 / 1024}}}}},
		{"length_dense", axis{title: "tokens", tokens: true}, axis{title: "GPU ms", log: true}, []drawnLine{
			{"block, f32, 1 x N x 512 x 1024", block}, {"block, f16, 1 x N x 512 x 1024", half},
			{"dense attention, f32, 1 x N x 8 x 64", plotter.XYs{{X: 1024, Y: 3}, {X: 2048, Y: 12}}}}},
	} {
		f := list[i]
		assert.Equal(t, want.file, f.file)
		assert.True(t, strings.HasSuffix(f.title, ", Device"), f.title)
		assert.Equal(t, want.x, f.x)
		assert.Equal(t, want.y, f.y)
		assert.NotEmpty(t, f.caption)
		var lines []drawnLine
		for _, l := range f.lines {
			lines = append(lines, drawnLine{l.name, l.points})
		}
		assert.Equal(t, want.line, lines, want.file)
	}
	assert.Equal(t, []string{"linear"}, list[0].lines[2].labels)
}

// TestFiguresOfLess has rows that are not enough for all.
func TestFiguresOfLess(t *testing.T) {
	files := func(rows []benchRow) string {
		var names []string
		for _, f := range figures(rows, "") {
			names = append(names, f.file)
		}
		return strings.Join(names, " ")
	}
	all := someRows()
	assert.Empty(t, files(nil))
	assert.Empty(t, files(all[1:8]), "without the roof of copies")
	assert.Empty(t, files(all[:5]), "roofs alone")
	assert.Equal(t, "roofline", files(all[:8]))
	assert.Equal(t, "length token", files(all[8:11]))
	assert.Empty(t, files(all[11:]), "dense attention alone")
	assert.Empty(t, files([]benchRow{{Name: blockLength, Shape: "strange", GPU: 1}, {Name: blockLength, Shape: "1x2x3x4"}}))
}

func TestLatest(t *testing.T) {
	rows := latest([]benchRow{{Name: "a", GPU: 1}, {Name: "b", GPU: 2}, {Name: "a", GPU: 3}})
	assert.Equal(t, []benchRow{{Name: "a", GPU: 3}, {Name: "b", GPU: 2}}, rows)
}

func TestTicks(t *testing.T) {
	var texts []string
	for _, tick := range tokenTicks(900, 1<<20) {
		texts = append(texts, tick.Label)
	}
	assert.Equal(t, "1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M", strings.Join(texts, " "))
	texts = nil
	for _, tick := range decadeTicks(0.03, 3) {
		if tick.Label != "" {
			texts = append(texts, tick.Label)
		}
	}
	assert.Equal(t, "0.05 0.1 0.2 0.5 1 2", strings.Join(texts, " "))
	for x, want := range map[float64]string{1e5: "100000", 1e6: "1e+06", 0.001: "0.001", 1e-5: "1e-05"} {
		assert.Equal(t, want, tickLabel(x))
	}
}

// TestDraw wants files of the formats that they say, with something in them, and always the same.
func TestDraw(t *testing.T) {
	for _, f := range figures(someRows(), `<b> & "c"`) {
		svg, picture, err := f.draw()
		require.NoError(t, err)
		checkSVG(t, svg)
		checkPNG(t, picture)
		assert.Contains(t, string(svg), "&lt;b&gt; &amp;")
		for _, l := range f.lines {
			assert.Contains(t, string(svg), ">"+l.name+"<")
		}
		again, _, err := f.draw()
		require.NoError(t, err)
		assert.Equal(t, string(svg), string(again))
	}
	_, _, err := figure{file: "bad", lines: []line{{joined: true, points: plotter.XYs{{X: math.NaN()}}}}}.draw()
	assert.ErrorContains(t, err, "bad: ")
}

// checkSVG wants XML with paths, and nothing that comes from elsewhere.
func checkSVG(t *testing.T, svg []byte) {
	t.Helper()
	paths := 0
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			if e.Name.Local == "path" {
				paths++
			}
			own(t, e)
		}
	}
	assert.Greater(t, paths, 5)
}

// own wants an element to refer to nothing outside.
func own(t *testing.T, e xml.StartElement) {
	t.Helper()
	assert.NotContains(t, []string{"script", "link", "img", "image", "iframe", "object", "embed", "base", "use"}, e.Name.Local)
	for _, a := range e.Attr {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue
		}
		assert.NotContains(t, []string{"src", "srcset", "href", "action", "data", "onload"}, a.Name.Local)
		assert.NotContains(t, a.Value, "//", a.Name.Local)
		assert.NotContains(t, a.Value, "url(", a.Name.Local)
	}
}

// checkPNG wants a picture with several colours.
func checkPNG(t *testing.T, data []byte) {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	size := picture.Bounds().Size()
	assert.Equal(t, 1152, size.X)
	assert.Equal(t, 720, size.Y)
	colors := map[any]bool{}
	for y := range size.Y {
		for x := range size.X {
			colors[picture.At(x, y)] = true
		}
	}
	assert.Greater(t, len(colors), 10)
}

func TestPlot(t *testing.T) {
	var lines []string
	for _, r := range someRows() {
		r.Device = "D"
		text, err := json.Marshal(r)
		require.NoError(t, err)
		lines = append(lines, string(text))
	}
	first, second := file(t, "first.jsonl", strings.Join(lines[:9], "\n")), file(t, "second.json", "[\n"+strings.Join(lines[9:], ",\n")+"\n]\n")
	dir := filepath.Join(t.TempDir(), "new", "plots")
	code, out, remarks := vkbench("plot", "-out", dir, first, second)
	require.Equal(t, exitFine, code, remarks)
	var want []string
	for _, name := range []string{"roofline", "length", "token", "length_dense"} {
		want = append(want, filepath.Join(dir, name+".svg"), filepath.Join(dir, name+".png"))
	}
	assert.Equal(t, strings.Join(want, "\n")+"\n", out)
	for _, path := range want {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if strings.HasSuffix(path, ".svg") {
			checkSVG(t, data)
		} else {
			checkPNG(t, data)
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, len(want), "nothing else is left")
}
