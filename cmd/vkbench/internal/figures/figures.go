// Package figures makes charts of rows: a roofline, and time against sequence length.
package figures

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

// All returns the figures that the rows of one device suffice for.
func All(rows []results.Row) []chart.Figure {
	var list []chart.Figure
	for _, f := range []chart.Figure{roofline(rows), lengthFigure(rows, false), tokenFigure(rows), lengthFigure(rows, true)} {
		if len(f.Lines) > 0 {
			list = append(list, f)
		}
	}
	return list
}

// FileStems are the file names of all figures, without extensions.
var FileStems = []string{"roofline", "length", "token", "length_dense"}

var formats = []string{"f32", "f16", "bf16"}

// precisionLine returns a line in the colour and with the markers of a precision. A later precision is a thinner line,
// so that all show where they coincide.
func precisionLine(name, format string) chart.Line {
	l := chart.Line{Name: name, Color: chart.Green, Marked: true, Marker: draw.PyramidGlyph{}, Width: 1}
	switch format {
	case "f32":
		l.Color, l.Marker, l.Width = chart.Blue, draw.CircleGlyph{}, 4
	case "f16":
		l.Color, l.Marker, l.Width = chart.Orange, draw.BoxGlyph{}, 2.4
	}
	return l
}

// hoverText describes a row. more follows the time.
func hoverText(r results.Row, more ...string) string {
	parts := append([]string{table.Time(r.GPU)}, more...)
	if r.GBs > 0 {
		parts = append(parts, table.Significant(r.GBs)+" GB/s")
	}
	if r.TFLOPs > 0 {
		parts = append(parts, table.Significant(r.TFLOPs)+" TFLOP/s")
	}
	if r.PeakShare > 0 {
		parts = append(parts, table.Markdown(table.Share(r.PeakShare))+" of the peak")
	}
	return fmt.Sprintf("%s %s %s: %s", r.Name, r.Shape, r.Precision, strings.Join(parts, ", "))
}

// roofline plots the arithmetic rate of each row against its arithmetic intensity, below the ceilings of the device. It
// is empty without peaks.
func roofline(rows []results.Row) chart.Figure {
	f := chart.Figure{
		File: "roofline", Title: "Roofline", X: chart.Axis{Title: "FLOP / byte", Log: true}, Y: chart.Axis{Title: "TFLOP/s", Log: true},
		Caption: "Each point is a row: its operations per byte that it has to move at least (FLOP / byte), and the rate that it reaches. Lines are the roofline " +
			"ceilings measured in the same run: the bandwidth of copies on the left, the rate of products of the precision on the right. " +
			"Points that share a name have one label, and a label without space is left out.",
	}
	copies, products := results.Rates(rows)
	points := map[string]*chart.Line{}
	low, high := 0.0, 0.0
	for _, r := range rows {
		if r.GBs <= 0 || r.TFLOPs <= 0 || r.IsPeak() || r.IsLength() {
			continue
		}
		x := r.TFLOPs * 1e3 / r.GBs
		if low == 0 || x < low {
			low = x
		}
		high = max(high, x)
		l := points[r.Precision]
		if l == nil {
			m := precisionLine(r.Precision, r.Precision)
			l = &m
			points[r.Precision] = l
		}
		l.Points, l.Labels = append(l.Points, plotter.XY{X: x, Y: r.TFLOPs}), append(l.Labels, r.Name)
		l.Hover = append(l.Hover, hoverText(r))
	}
	if copies == 0 || len(points) == 0 || !results.HavePeaks(rows) {
		return chart.Figure{}
	}
	low, high = low/1.5, high*1.5
	for _, peak := range products {
		ridge := peak * 1e3 / copies
		low, high = min(low, ridge/4), max(high, ridge*4)
	}
	for _, format := range formats {
		if peak := products[format]; peak > 0 {
			ridge := peak * 1e3 / copies
			l := precisionLine(fmt.Sprintf("peak of %s: %s TFLOP/s", format, table.Significant(peak)), format)
			l.Points, l.Marked, l.Joined = plotter.XYs{{X: low, Y: low * copies / 1e3}, {X: ridge, Y: peak}, {X: high, Y: peak}}, false, true
			l.Dashed = format == "bf16" // often as fast as f16
			f.Lines = append(f.Lines, l)
		}
	}
	for _, format := range slices.Concat(formats, slices.Sorted(maps.Keys(points))) {
		if l := points[format]; l != nil {
			f.Lines = append(f.Lines, *l)
			delete(points, format)
		}
	}
	return f
}

// series is a case at growing lengths in one precision.
type series struct {
	rows   []results.Row
	tokens []int // of all batch items, ascending
}

// seriesByShape groups the rows of a case by precision and the dimensions other than the length, in the order of the
// rows.
func seriesByShape(rows []results.Row, name string) (groups []string, by map[string]*series) {
	by = map[string]*series{}
	for _, r := range rows {
		size, err := dims.Parse(r.Shape)
		if r.Name != name || err != nil || len(size) < 2 || r.GPU <= 0 || size[0] < 1 || size[1] < 1 {
			continue
		}
		key := fmt.Sprintf("%s, %d x N x %s", r.Precision, size[0], strings.ReplaceAll(dims.Format(size[2:]), "x", " x "))
		if by[key] == nil {
			by[key] = &series{}
			groups = append(groups, key)
		}
		g, tokens := by[key], size[0]*size[1]
		i, _ := slices.BinarySearch(g.tokens, tokens)
		g.rows, g.tokens = slices.Insert(g.rows, i, r), slices.Insert(g.tokens, i, tokens)
	}
	return groups, by
}

// blockLines returns the lines of the block. value computes the y of a row.
func blockLines(rows []results.Row, value func(r results.Row, tokens float64) float64) []chart.Line {
	var lines []chart.Line
	groups, by := seriesByShape(rows, results.BlockLength)
	for _, group := range groups {
		g := by[group]
		l := precisionLine("block, "+group, g.rows[0].Precision)
		l.Joined = true
		for i, r := range g.rows {
			l.Points = append(l.Points, plotter.XY{X: float64(g.tokens[i]), Y: value(r, float64(g.tokens[i]))})
			l.Hover = append(l.Hover, lengthHover(r, g.tokens[i]))
		}
		lines = append(lines, l)
	}
	return lines
}

func lengthHover(r results.Row, tokens int) string {
	return hoverText(r, table.Time(r.GPU/float64(tokens))+" per token")
}

const blockCaption = "A transformer block, forward: N tokens, N/32 of them in the heavy feedforward, a fixed number in the heavy attention."

// lengthFigure plots time against length, for the block and, if dense is set, for dense attention. It is empty without
// rows of them.
func lengthFigure(rows []results.Row, dense bool) chart.Figure {
	f := chart.Figure{
		File: "length", Title: "Transformer block", Caption: blockCaption,
		X: chart.Axis{Title: "tokens", Tokens: true}, Y: chart.Axis{Title: "GPU time", Log: true, Millis: true},
	}
	f.Lines = blockLines(rows, func(r results.Row, _ float64) float64 { return r.GPU })
	if !dense {
		return f
	}
	f.File, f.Title = "length_dense", "Transformer block and dense attention"
	f.Caption = "The block, and the attention of all tokens to all tokens with as many heads, without projections and feedforward. Its lines end where a run " +
		"would take seconds."
	groups, by := seriesByShape(rows, results.DenseAttention)
	if len(groups) == 0 || len(f.Lines) == 0 {
		return chart.Figure{}
	}
	for _, group := range groups {
		l := precisionLine("dense attention, "+group, by[group].rows[0].Precision)
		l.Dashed, l.Joined = true, true
		for i, r := range by[group].rows {
			l.Points = append(l.Points, plotter.XY{X: float64(by[group].tokens[i]), Y: r.GPU})
			l.Hover = append(l.Hover, lengthHover(r, by[group].tokens[i]))
		}
		f.Lines = append(f.Lines, l)
	}
	return f
}

// tokenFigure plots the time per token against length.
func tokenFigure(rows []results.Row) chart.Figure {
	f := chart.Figure{
		File: "token", Title: "Transformer block: time per token",
		Caption: blockCaption + " A horizontal line means that cost grows linearly.",
		X:       chart.Axis{Title: "tokens", Tokens: true}, Y: chart.Axis{Title: "GPU time per token", Millis: true},
	}
	f.Lines = blockLines(rows, func(r results.Row, tokens float64) float64 { return r.GPU / tokens })
	return f
}
