package main

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

// figure is a chart: what it shows, without how it is drawn.
type figure struct {
	file, title, caption string
	x, y                 axis
	lines                []line
}

// axis is logarithmic, or starts at 0.
type axis struct {
	title  string
	log    bool
	tokens bool // ticks are powers of 2
}

// line is a series of points.
type line struct {
	name   string // in the legend
	points plotter.XYs
	labels []string // of points, or none
	color  color.Color
	shape  draw.GlyphDrawer // of marks; nil: a disc
	dashes bool
	marks  bool // points are marked
	joined bool // points are joined
}

// Colours that are told apart by all eyes, on white.
var (
	blue   = color.RGBA{0x1f, 0x5f, 0xb4, 0xff}
	orange = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	green  = color.RGBA{0x1b, 0x8a, 0x5a, 0xff}
	grey   = color.RGBA{0x66, 0x66, 0x66, 0xff}
	ink    = color.RGBA{0x22, 0x22, 0x22, 0xff}
	faint  = color.RGBA{0xd8, 0xd8, 0xd8, 0xff}
)

const chartWidth, chartHeight, chartMargin = 8 * vg.Inch, 5 * vg.Inch, vg.Inch / 7

// draw makes an SVG and a PNG of a figure.
func (f figure) draw() (svg, png []byte, err error) {
	vector := vgsvg.New(chartWidth, chartHeight)
	pixels := vgimg.NewWith(vgimg.UseWH(chartWidth, chartHeight), vgimg.UseDPI(144))
	for _, c := range []vg.CanvasSizer{vector, pixels} {
		p, err := f.plot() // drawing changes a plot: a fresh one each
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.file, err)
		}
		p.Draw(draw.Crop(draw.New(c), chartMargin, -chartMargin, chartMargin, -chartMargin))
	}
	var out, picture bytes.Buffer
	_, err = vector.WriteTo(&out)
	if err == nil {
		_, err = vgimg.PngCanvas{Canvas: pixels}.WriteTo(&picture)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.file, err)
	}
	// Fonts of the same widths, for machines without Liberation.
	svg = bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return svg, picture.Bytes(), nil
}

func lettering(size vg.Length) text.Style {
	return text.Style{Color: ink, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size), Handler: plot.DefaultTextHandler}
}

// plot is the figure as the library has it.
func (f figure) plot() (*plot.Plot, error) {
	p := plot.New()
	title := lettering(13)
	title.XAlign, title.YAlign = draw.XCenter, draw.YTop
	p.Title.Text, p.Title.TextStyle, p.Title.Padding = f.title, title, 8
	p.Legend.TextStyle, p.Legend.Top, p.Legend.Left, p.Legend.ThumbnailWidth, p.Legend.XOffs, p.Legend.YOffs = lettering(10), true, true, 24, 8, -6
	p.Legend.Padding = 3
	dress(&p.X, f.x)
	dress(&p.Y, f.y)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
	var names labels
	for _, l := range f.lines {
		if err := l.add(p); err != nil {
			return nil, err
		}
		for i, text := range l.labels {
			names = append(names, label{l.points[i], text, l.color})
		}
	}
	p.Add(names)
	widen(&p.X, f.x)
	widen(&p.Y, f.y)
	return p, nil
}

func dress(a *plot.Axis, to axis) {
	title, ticks := lettering(11), lettering(10)
	title.XAlign, title.YAlign = a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign
	title.Rotation = a.Label.TextStyle.Rotation
	ticks.XAlign, ticks.YAlign = a.Tick.Label.XAlign, a.Tick.Label.YAlign
	a.Label.Text, a.Label.TextStyle, a.Tick.Label = to.title, title, ticks
	a.Color, a.Tick.Color = grey, grey
	switch {
	case to.tokens:
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.TickerFunc(tokenTicks)
	case to.log:
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decadeTicks)
	}
}

// widen leaves some room around the points; a logarithmic axis may not have a range of nothing.
func widen(a *plot.Axis, to axis) {
	switch {
	case to.tokens:
		a.Min, a.Max = a.Min/1.2, a.Max*1.2
	case to.log:
		a.Min, a.Max = a.Min/1.6, a.Max*2.5
	default:
		a.Min, a.Max = 0, a.Max*1.25
	}
}

// tokenTicks are at powers of 2.
func tokenTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for n := math.Exp2(math.Ceil(math.Log2(low))); n <= high; n *= 2 {
		ticks = append(ticks, plot.Tick{Value: n, Label: shortCount(n)})
	}
	return ticks
}

// shortCount writes 131,072 as 128k.
func shortCount(n float64) string {
	switch {
	case n >= 1<<20:
		return strconv.FormatFloat(n/(1<<20), 'g', 4, 64) + "M"
	case n >= 1<<10:
		return strconv.FormatFloat(n/(1<<10), 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(n, 'g', 4, 64)
}

// decadeTicks are at powers of 10, and between them where there are few.
func decadeTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	few := high/low < 1000
	for decade := math.Floor(math.Log10(low)); decade <= math.Log10(high); decade++ {
		for step := 1; step < 10; step++ {
			x := float64(step) * math.Pow(10, decade)
			if x < low || x > high {
				continue
			}
			t := plot.Tick{Value: x}
			if step == 1 || few && (step == 2 || step == 5) {
				t.Label = tickLabel(x)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// tickLabel has no exponent where that is readable.
func tickLabel(x float64) string {
	format := byte('f')
	if x < 1e-4 || x >= 1e6 {
		format = 'e'
	}
	return strconv.FormatFloat(float64(float32(x)), format, -1, 32)
}

// add puts a line on a plot.
func (l line) add(p *plot.Plot) error {
	var thumbs []plot.Thumbnailer
	if l.joined {
		path, err := plotter.NewLine(l.points)
		if err != nil {
			return err
		}
		path.Color, path.Width = l.color, 1.5
		if l.dashes {
			path.Dashes = []vg.Length{5, 4}
		}
		p.Add(path)
		thumbs = append(thumbs, path)
	}
	if l.marks {
		dots, err := plotter.NewScatter(l.points)
		if err != nil {
			return err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 3, Shape: draw.CircleGlyph{}}
		if l.shape != nil {
			dots.Shape = l.shape
		}
		p.Add(dots)
		thumbs = append(thumbs, dots)
	}
	p.Legend.Add(l.name, thumbs...)
	return nil
}

// labels name points, each where there is room: a name that would lie on a point or on another name is left out.
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
	style := lettering(8)
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
