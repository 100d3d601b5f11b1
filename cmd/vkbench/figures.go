package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

// latest keeps the last of rows for the same, at the place of the first.
func latest(rows []benchRow) []benchRow {
	at := map[string]int{}
	var kept []benchRow
	for _, r := range rows {
		if i, twice := at[r.key()]; twice {
			kept[i] = r
			continue
		}
		at[r.key()] = len(kept)
		kept = append(kept, r)
	}
	return kept
}

// figures are those that rows of one device are enough for.
func figures(rows []benchRow, device string) []figure {
	var list []figure
	for _, f := range []figure{roofline(rows), lengthFigure(rows, false), tokenFigure(rows), lengthFigure(rows, true)} {
		if len(f.lines) > 0 {
			f.title += ", " + device
			list = append(list, f)
		}
	}
	return list
}

// figureFiles are the names that figures have, without endings.
var figureFiles = []string{"roofline", "length", "token", "length_dense"}

var formats = []string{"f32", "f16", "bf16"}

// marked is a line in the colour and with the marks of a precision.
func marked(name, format string) line {
	l := line{name: name, color: green, marks: true, shape: draw.PyramidGlyph{}}
	switch format {
	case "f32":
		l.color, l.shape = blue, draw.CircleGlyph{}
	case "f16":
		l.color, l.shape = orange, draw.BoxGlyph{}
	}
	return l
}

// isRoof says whether a row is a roof, whatever of.
func isRoof(r benchRow) bool { return strings.HasPrefix(r.Name, "roof ") }

// roofsOf finds the roofs: GB/s, and TFLOP/s by precision.
func roofsOf(rows []benchRow) (copies float64, products map[string]float64) {
	products = map[string]float64{}
	for _, r := range rows {
		switch r.Name {
		case copyRoof:
			copies = max(copies, r.GBs)
		case matmulRoof, matrixRoof + "f32":
			products[r.Precision] = max(products[r.Precision], r.TFLOPs)
		}
	}
	return copies, products
}

// roofline has the work of every row for each byte it moves against the rate of that work, under what the device can do. Without roofs there
// is none.
func roofline(rows []benchRow) figure {
	f := figure{
		file: "roofline", title: "Roofline", x: axis{title: "FLOP / byte", log: true}, y: axis{title: "TFLOP/s", log: true},
		caption: "Each point is a row: its operations for each byte that it has to move at least (FLOP / byte), and the rate that it reaches. Lines are the roofs " +
			"measured in the same run: what copies allow on the left, what products of the precision allow on the right.",
	}
	copies, products := roofsOf(rows)
	points := map[string]*line{}
	low, high := 0.0, 0.0
	for _, r := range rows {
		if r.GBs <= 0 || r.TFLOPs <= 0 || isRoof(r) || r.Name == blockLength || r.Name == denseAttention {
			continue
		}
		x := r.TFLOPs * 1e3 / r.GBs
		if low == 0 || x < low {
			low = x
		}
		high = max(high, x)
		l := points[r.Precision]
		if l == nil {
			m := marked(r.Precision, r.Precision)
			l = &m
			points[r.Precision] = l
		}
		l.points, l.labels = append(l.points, plotter.XY{X: x, Y: r.TFLOPs}), append(l.labels, r.Name)
	}
	if copies == 0 || len(points) == 0 {
		return figure{}
	}
	low, high = low/1.5, high*1.5
	for _, peak := range products {
		ridge := peak * 1e3 / copies
		low, high = min(low, ridge/4), max(high, ridge*4)
	}
	for _, format := range formats {
		if peak := products[format]; peak > 0 {
			ridge := peak * 1e3 / copies
			l := marked(fmt.Sprintf("roof of %s: %s TFLOP/s", format, significant(peak)), format)
			l.points, l.marks, l.joined = plotter.XYs{{X: low, Y: low * copies / 1e3}, {X: ridge, Y: peak}, {X: high, Y: peak}}, false, true
			f.lines = append(f.lines, l)
		}
	}
	for _, format := range slices.Concat(formats, slices.Sorted(maps.Keys(points))) {
		if l := points[format]; l != nil {
			f.lines = append(f.lines, *l)
			delete(points, format)
		}
	}
	return f
}

// grown is a case at growing lengths, in one precision.
type grown struct {
	rows   []benchRow
	tokens []int // of all batch items, rising
}

// lengthsOf groups the rows of a case by precision and the sizes that are no length, in their order.
func lengthsOf(rows []benchRow, name string) (groups []string, by map[string]*grown) {
	by = map[string]*grown{}
	for _, r := range rows {
		size, err := parseSize(r.Shape)
		if r.Name != name || err != nil || len(size) < 2 || r.GPU <= 0 || size[0] < 1 || size[1] < 1 {
			continue
		}
		key := fmt.Sprintf("%s, %d x N x %s", r.Precision, size[0], strings.ReplaceAll(sized{size: size[2:]}.shape(), "x", " x "))
		if by[key] == nil {
			by[key] = &grown{}
			groups = append(groups, key)
		}
		g, tokens := by[key], size[0]*size[1]
		i, _ := slices.BinarySearch(g.tokens, tokens)
		g.rows, g.tokens = slices.Insert(g.rows, i, r), slices.Insert(g.tokens, i, tokens)
	}
	return groups, by
}

// blockLines are the block's lines: value makes the height of a row.
func blockLines(rows []benchRow, value func(r benchRow, tokens float64) float64) []line {
	var lines []line
	groups, by := lengthsOf(rows, blockLength)
	for _, group := range groups {
		g := by[group]
		l := marked("block, "+group, g.rows[0].Precision)
		l.joined = true
		for i, r := range g.rows {
			l.points = append(l.points, plotter.XY{X: float64(g.tokens[i]), Y: value(r, float64(g.tokens[i]))})
		}
		lines = append(lines, l)
	}
	return lines
}

const blockCaption = "A transformer block, forward: N tokens, N/32 of them in the heavy feedforward, a fixed number in the heavy attention."

// lengthFigure has time against length, of the block, and beside it of dense attention. Without both there is none.
func lengthFigure(rows []benchRow, dense bool) figure {
	f := figure{file: "length", title: "Transformer block", x: axis{title: "tokens", tokens: true}, y: axis{title: "GPU ms", log: true}, caption: blockCaption}
	f.lines = blockLines(rows, func(r benchRow, _ float64) float64 { return r.GPU })
	if !dense {
		return f
	}
	f.file, f.title = "length_dense", "Transformer block and dense attention"
	f.caption = "The block, and the attention of all tokens to all tokens, of as many heads, alone: no projections, no feedforward. Its lines end where a run " +
		"would take seconds."
	groups, by := lengthsOf(rows, denseAttention)
	if len(groups) == 0 || len(f.lines) == 0 {
		return figure{}
	}
	for _, group := range groups {
		l := marked("dense attention, "+group, by[group].rows[0].Precision)
		l.dashes, l.joined = true, true
		for i, r := range by[group].rows {
			l.points = append(l.points, plotter.XY{X: float64(by[group].tokens[i]), Y: r.GPU})
		}
		f.lines = append(f.lines, l)
	}
	return f
}

// tokenFigure has the time of a token against length: level, where cost grows linearly.
func tokenFigure(rows []benchRow) figure {
	f := figure{file: "token", title: "Transformer block: time for each token", x: axis{title: "tokens", tokens: true}, y: axis{title: "GPU ns for each token"},
		caption: blockCaption + " Where the line is level, cost grows linearly."}
	f.lines = blockLines(rows, func(r benchRow, tokens float64) float64 { return r.GPU * 1e6 / tokens })
	return f
}
