package chart

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

func TestTicks(t *testing.T) {
	var texts []string
	for _, tick := range tokenTicks(900, 1<<20) {
		texts = append(texts, tick.Label)
	}
	assert.Equal(t, "1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M", strings.Join(texts, " "))
	texts = nil
	for _, tick := range decadeTicks(0.03, 3, tickLabel) {
		if tick.Label != "" {
			texts = append(texts, tick.Label)
		}
	}
	assert.Equal(t, "0.05 0.1 0.2 0.5 1 2", strings.Join(texts, " "))
	texts = nil
	for _, tick := range linearTicks(0, 4, millisLabel) {
		if tick.Label != "" {
			texts = append(texts, tick.Label)
		}
	}
	assert.Equal(t, "0 2 ms 4 ms", strings.Join(texts, " "))
	for x, want := range map[float64]string{1e5: "100,000", 1e6: "1,000,000", 0.001: "0.001", 1e-5: "1e-05", 0: "0"} {
		assert.Equal(t, want, tickLabel(x))
	}
	for x, want := range map[float64]string{1.29e6: "1,290 s", 0.1: "100 µs", 1: "1 ms", 2.5e-5: "25 ns"} {
		assert.Equal(t, want, millisLabel(x))
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

// TestInline requires variables for all colours, the hover text of each point on its mark, and a legend.
func TestInline(t *testing.T) {
	f := Figure{Title: "<title>", X: Axis{Title: "x"}, Y: Axis{Title: "y"}, Lines: []Line{
		{Name: "line", Color: Blue, Joined: true, Points: plotter.XYs{{X: 1, Y: 2}, {X: 3, Y: 5}}},
		{Name: "marks", Color: Orange, Marked: true, Points: plotter.XYs{{X: 1, Y: 2}, {X: 3, Y: 5}}, Hover: []string{"a < b", "second"}},
	}}
	in, err := f.Inline()
	require.NoError(t, err)
	assert.Len(t, in.Legend, 2)
	assert.Equal(t, "marks", in.Legend[1].Name)
	assert.Contains(t, in.Legend[1].Sample, "var(--f16)")
	mark := regexp.MustCompile(`<path d="M([0-9.]+),([0-9.]+)A3,3[^>]*fill:var\(--f16\)`)
	spot := regexp.MustCompile(`<circle cx="([0-9.]+)" cy="([0-9.]+)" r="7"><title>([^<]*)</title>`)
	for svg, height := range map[string]float64{string(in.Wide): 440, string(in.Narrow): 380} {
		assert.NotContains(t, svg, "#")
		assert.Contains(t, svg, `aria-label="&lt;title&gt;"`)
		assert.NotContains(t, svg, ">line<", "the legend is not in the drawing")
		marks, spots := mark.FindAllStringSubmatch(svg, -1), spot.FindAllStringSubmatch(svg, -1)
		require.Len(t, marks, 2)
		require.Len(t, spots, 2)
		assert.Equal(t, []string{"a &lt; b", "second"}, []string{spots[0][3], spots[1][3]})
		for i, m := range marks { // a disc starts at its right, and y points up
			assert.InDelta(t, number(t, m[1])-3, number(t, spots[i][1]), 0.1)
			assert.InDelta(t, height-number(t, m[2]), number(t, spots[i][2]), 0.1)
		}
		charttest.CheckSVG(t, []byte(svg))
	}
	_, err = Figure{File: "bad", Lines: []Line{{Joined: true, Points: plotter.XYs{{X: math.NaN()}}}}}.Inline()
	assert.ErrorContains(t, err, "bad: ")
}

// The last label of the x axis has space for a font that is wider than the one that labels are measured with.
func TestLastLabel(t *testing.T) {
	line := Line{Color: Blue, Joined: true, Points: plotter.XYs{{X: 1, Y: 2}, {X: 626, Y: 5}}} // the axis ends at 1,000
	in, err := Figure{X: Axis{Title: "x", Log: true}, Y: Axis{Title: "y"}, Lines: []Line{line}}.Inline()
	require.NoError(t, err)
	label := regexp.MustCompile(`<text x="([0-9.]+)"[^>]*>1,000</text>`)
	for svg, of := range map[string]layout{string(in.Wide): wideLayout, string(in.Narrow): narrowLayout} {
		found := label.FindStringSubmatch(svg)
		require.NotEmpty(t, found, svg)
		const widest = 0.64 * 5 // em, of five characters in a wide font
		assert.Less(t, number(t, found[1])+widest*float64(of.tick), float64(of.width))
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	x, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return x
}

// TestLabels has points that share a label, and one whose label has no space.
func TestLabels(t *testing.T) {
	f := Figure{X: Axis{Title: "x"}, Y: Axis{Title: "y"}, Lines: []Line{
		{Name: "l", Color: Blue, Joined: true, Points: plotter.XYs{{X: 0, Y: 0}, {X: 10, Y: 10}}},
		{Name: "m", Color: Orange, Marked: true, Points: plotter.XYs{{X: 2, Y: 8}, {X: 3, Y: 8}, {X: 5, Y: 2}}, Labels: []string{"same", "same", "on the line " + strings.Repeat("w", 90)}},
	}}
	in, err := f.Inline()
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(string(in.Wide), ">same<"))
	assert.NotContains(t, string(in.Wide), "on the line")

	// A label beside its point would be on the line through it.
	f.Lines = []Line{{Name: "l", Color: Blue, Joined: true, Points: plotter.XYs{{X: 0, Y: 5}, {X: 10, Y: 5}}},
		{Name: "m", Color: Orange, Marked: true, Points: plotter.XYs{{X: 5, Y: 5}, {X: 5, Y: 9}}, Labels: []string{"on", "free"}, Hover: []string{"on", "free"}}}
	in, err = f.Inline()
	require.NoError(t, err)
	for _, v := range []struct {
		name string
		near bool
	}{{"on", false}, {"free", true}} {
		text := regexp.MustCompile(`<text x="[0-9.]+" y="-([0-9.]+)"[^>]*>` + v.name + "<").FindStringSubmatch(string(in.Wide))
		spot := regexp.MustCompile(`cy="([0-9.]+)" r="7"><title>` + v.name + "<").FindStringSubmatch(string(in.Wide))
		require.Len(t, text, 2)
		assert.Equal(t, v.near, math.Abs(440-number(t, spot[1])-number(t, text[1])) < 6, v.name)
	}
	unit := vg.Rectangle{Min: vg.Point{X: 1, Y: 1}, Max: vg.Point{X: 2, Y: 2}}
	for _, s := range []struct {
		ax, ay, bx, by vg.Length
		want           bool
	}{{0, 0, 3, 3, true}, {0, 3, 3, 0, true}, {1.5, 0, 1.5, 9, true}, {0, 1.5, 9, 1.5, true}, {1.2, 1.2, 1.3, 1.3, true}, {0, 1.5, 0.9, 1.5, false}, {2.1, 1.5, 9, 1.5, false},
		{0, 0, 9, 0, false}, {3, 0, 3, 9, false}, {0, 1.9, 0.1, 9, false}, {0, 3, 1.4, 2.1, false}} {
		assert.Equal(t, s.want, crosses(vg.Point{X: s.ax, Y: s.ay}, vg.Point{X: s.bx, Y: s.by}, unit), s)
		assert.Equal(t, s.want, crosses(vg.Point{X: s.bx, Y: s.by}, vg.Point{X: s.ax, Y: s.ay}, unit), s)
	}
}
