package chart

import (
	"math"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/charttest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/plotter"
)

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

func TestDraw(t *testing.T) {
	line := Line{Name: "line", Color: Green, Joined: true, Dashed: true, Marked: true, Points: plotter.XYs{{X: 1, Y: 2}, {X: 3, Y: 5}}, Labels: []string{"a", "b"}}
	svg, picture, err := Figure{Title: "title", X: Axis{Title: "x"}, Y: Axis{Title: "y", Log: true}, Lines: []Line{line}}.Draw()
	require.NoError(t, err)
	charttest.CheckSVG(t, svg)
	charttest.CheckPNG(t, picture)
	for _, text := range []string{"title", "x", "y", "line", "a", "b"} {
		assert.Contains(t, string(svg), ">"+text+"<")
	}
	_, _, err = Figure{File: "bad", Lines: []Line{{Joined: true, Points: plotter.XYs{{X: math.NaN()}}}}}.Draw()
	assert.ErrorContains(t, err, "bad: ")
}
