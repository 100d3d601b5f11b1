// Package chart draws line charts as SVG and PNG.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Figure is a chart: its data and texts.
type Figure struct {
	File, Title, Caption string // File has no extension
	X, Y                 Axis
	Lines                []Line
}

// Axis is logarithmic if Log or Tokens is set, and starts at 0 otherwise.
type Axis struct {
	Title  string
	Log    bool
	Tokens bool // ticks at powers of 2
}

// Line is a series of points.
type Line struct {
	Name   string // in the legend
	Points plotter.XYs
	Labels []string // of the points; nil: none
	Color  color.Color
	Marker draw.GlyphDrawer // nil: a disc
	Dashed bool
	Marked bool // draw markers
	Joined bool // draw lines between points
}

// Colours on white that people with colour vision deficiency can distinguish.
var (
	Blue   = color.RGBA{0x1f, 0x5f, 0xb4, 0xff}
	Orange = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	Green  = color.RGBA{0x1b, 0x8a, 0x5a, 0xff}
	grey   = color.RGBA{0x66, 0x66, 0x66, 0xff}
	ink    = color.RGBA{0x22, 0x22, 0x22, 0xff}
	faint  = color.RGBA{0xd8, 0xd8, 0xd8, 0xff}
)

const chartWidth, chartHeight, chartMargin = 8 * vg.Inch, 5 * vg.Inch, vg.Inch / 7

// Draw draws the figure as SVG and PNG.
func (f Figure) Draw() (svg, png []byte, err error) {
	vector := vgsvg.New(chartWidth, chartHeight)
	pixels := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight), vgimg.UseDPI(144))
	for _, c := range []vg.CanvasSizer{vector, pixels} {
		p, err := f.plot() // drawing changes a plot
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.File, err)
		}
		p.Draw(draw.Crop(draw.New(c), chartMargin, -chartMargin, chartMargin, -chartMargin))
	}
	var out, picture bytes.Buffer
	_, err = vector.WriteTo(&out)
	if err == nil {
		_, err = vgimg.PngCanvas{Canvas: pixels}.WriteTo(&picture)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.File, err)
	}
	// Fallback fonts of the same metrics.
	svg = bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return svg, picture.Bytes(), nil
}

// textStyle returns the font of all texts.
func textStyle(size vg.Length) text.Style {
	return text.Style{Color: ink, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size), Handler: plot.DefaultTextHandler}
}

// plot converts the figure to a plot of the library.
func (f Figure) plot() (*plot.Plot, error) {
	p := plot.New()
	title := textStyle(13)
	title.XAlign, title.YAlign = draw.XCenter, draw.YTop
	p.Title.Text, p.Title.TextStyle, p.Title.Padding = f.Title, title, 8
	p.Legend.TextStyle, p.Legend.Top, p.Legend.Left, p.Legend.ThumbnailWidth, p.Legend.XOffs, p.Legend.YOffs = textStyle(10), true, true, 24, 8, -6
	p.Legend.Padding = 3
	styleAxis(&p.X, f.X)
	styleAxis(&p.Y, f.Y)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
	var names labels
	for _, l := range f.Lines {
		if err := l.add(p); err != nil {
			return nil, err
		}
		for i, text := range l.Labels {
			names = append(names, label{l.Points[i], text, l.Color})
		}
	}
	p.Add(names)
	padRange(&p.X, f.X)
	padRange(&p.Y, f.Y)
	return p, nil
}

// styleAxis sets titles, ticks and scale of an axis.
func styleAxis(a *plot.Axis, to Axis) {
	title, ticks := textStyle(11), textStyle(10)
	title.XAlign, title.YAlign = a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign
	title.Rotation = a.Label.TextStyle.Rotation
	ticks.XAlign, ticks.YAlign = a.Tick.Label.XAlign, a.Tick.Label.YAlign
	a.Label.Text, a.Label.TextStyle, a.Tick.Label = to.Title, title, ticks
	a.Color, a.Tick.Color = grey, grey
	switch {
	case to.Tokens:
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.TickerFunc(tokenTicks)
	case to.Log:
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decadeTicks)
	}
}

// padRange leaves space around the points, also because the range of a logarithmic axis must not be empty.
func padRange(a *plot.Axis, to Axis) {
	switch {
	case to.Tokens:
		a.Min, a.Max = a.Min/1.2, a.Max*1.2
	case to.Log:
		a.Min, a.Max = a.Min/1.6, a.Max*2.5
	default:
		a.Min, a.Max = 0, a.Max*1.25
	}
}

// tokenTicks returns ticks at powers of 2.
func tokenTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for n := math.Exp2(math.Ceil(math.Log2(low))); n <= high; n *= 2 {
		ticks = append(ticks, plot.Tick{Value: n, Label: shortCount(n)})
	}
	return ticks
}

// shortCount formats 131,072 as 128k.
func shortCount(n float64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(n/(1<<20), 'g', 4, 64) + "M"
	case n >= 1<<10:
		return strconv.FormatFloat(n/(1<<10), 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// decadeTicks returns labelled ticks at powers of 10, and at 2 and 5 times these if the range is below 3 decades.
func decadeTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	detailed := high/low < 1000
	for decade := math.Floor(math.Log10(low)); decade <= math.Log10(high); decade++ {
		for step := 1; step < 10; step++ {
			x := float64(step) * math.Pow(10, decade)
			if x < low || x > high {
				continue
			}
			t := plot.Tick{Value: x}
			if step == 1 || detailed && (step == 2 || step == 5) {
				t.Label = tickLabel(x)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// tickLabel formats a number without an exponent from 0.0001 to 1,000,000.
func tickLabel(x float64) string {
	format := byte('f')
	if x < 1e-4 || x >= 1e6 {
		format = 'e'
	}
	return strconv.FormatFloat(float64(float32(x)), format, -1, 32)
}

// add adds the line to a plot.
func (l Line) add(p *plot.Plot) error {
	var thumbs []plot.Thumbnailer
	if l.Joined {
		path, err := plotter.NewLine(l.Points)
		if err != nil {
			return err
		}
		path.Color, path.Width = l.Color, 1.5
		if l.Dashed {
			path.Dashes = []vg.Length{5, 4}
		}
		p.Add(path)
		thumbs = append(thumbs, path)
	}
	if l.Marked {
		dots, err := plotter.NewScatter(l.Points)
		if err != nil {
			return err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: l.Color, Radius: 3, Shape: draw.CircleGlyph{}}
		if l.Marker != nil {
			dots.Shape = l.Marker
		}
		p.Add(dots)
		thumbs = append(thumbs, dots)
	}
	p.Legend.Add(l.Name, thumbs...)
	return nil
}

// labels draws the names of points. A name without space, where it would cover a point or another name, is left out.
type labels []label

type label struct {
	at    plotter.XY
	text  string
	color color.Color
}

func (l labels) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var taken []vg.Rectangle
	for _, one := range l {
		at := vg.Point{X: x(one.at.X), Y: y(one.at.Y)}
		taken = append(taken, vg.Rectangle{Min: at.Sub(vg.Point{X: 3, Y: 3}), Max: at.Add(vg.Point{X: 3, Y: 3})})
	}
	style := textStyle(8)
	style.YAlign = draw.YCenter
	for _, one := range l {
		box := style.Rectangle(one.text)
		w := box.Max.X - box.Min.X
		style.Color = one.color
		for _, offset := range []vg.Point{{X: 5}, {X: -5 - w}, {X: -w / 2, Y: 8}, {X: -w / 2, Y: -8}, {X: 5, Y: 7}, {X: 5, Y: -7}} {
			at := vg.Point{X: x(one.at.X), Y: y(one.at.Y)}.Add(offset)
			place := box.Add(at)
			if !inside(place, c.Rectangle) || overlaps(place, taken) {
				continue
			}
			c.FillText(style, at, one.text)
			taken = append(taken, place)
			break
		}
	}
}

func inside(r, outer vg.Rectangle) bool {
	return r.Min.X >= outer.Min.X && r.Max.X <= outer.Max.X && r.Min.Y >= outer.Min.Y && r.Max.Y <= outer.Max.Y
}

func overlaps(r vg.Rectangle, others []vg.Rectangle) bool {
	for _, o := range others {
		if r.Min.X < o.Max.X && o.Min.X < r.Max.X && r.Min.Y < o.Max.Y && o.Min.Y < r.Max.Y {
			return true
		}
	}
	return false
}
