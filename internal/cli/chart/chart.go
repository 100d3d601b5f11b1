// Package chart draws line charts: as SVG and PNG files, and as SVG elements of a page that follow its colours.
package chart

import (
	"bytes"
	"fmt"
	"image/color"

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
	Millis bool // values are milliseconds; tick labels have units
}

// Line is a series of points.
type Line struct {
	Name   string // in the legend
	Points plotter.XYs
	Labels []string // beside the points, each text once; nil: none
	Hover  []string // of the points, shown where the pointer is on one; nil: none
	Color  color.Color
	Marker draw.GlyphDrawer // nil: a disc
	Width  vg.Length        // of the line between points; 0: 1.5
	Dashed bool
	Marked bool // draw markers
	Joined bool // draw lines between points
}

// Colours on white that people with colour vision deficiency can distinguish.
var (
	Blue   = color.RGBA{0x1f, 0x5f, 0xb4, 0xff}
	Orange = color.RGBA{0xb8, 0x4e, 0x00, 0xff}
	Green  = color.RGBA{0x12, 0x77, 0x4c, 0xff}
	grey   = color.RGBA{0x66, 0x66, 0x66, 0xff}
	ink    = color.RGBA{0x22, 0x22, 0x22, 0xff}
	faint  = color.RGBA{0xd8, 0xd8, 0xd8, 0xff}
)

// layout is the size of a drawing and of its texts.
type layout struct{ width, height, margin, axis, tick, label vg.Length }

var fileLayout = layout{8 * vg.Inch, 5 * vg.Inch, vg.Inch / 7, 11, 10, 8}

// Draw draws the figure as the contents of an SVG and a PNG file, with title and legend on white.
func (f Figure) Draw() (svg, png []byte, err error) {
	vector := vgsvg.New(fileLayout.width, fileLayout.height)
	pixels := vgimg.NewWith(vgimg.UseWH(fileLayout.width, fileLayout.height), vgimg.UseDPI(144))
	for _, c := range []vg.CanvasSizer{vector, pixels} {
		if err := f.drawFile(draw.New(c)); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.File, err)
		}
	}
	var out, picture bytes.Buffer
	_, err = vector.WriteTo(&out)
	if err == nil {
		_, err = vgimg.PngCanvas{Canvas: pixels}.WriteTo(&picture)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.File, err)
	}
	return withFallbackFonts(out.Bytes()), picture.Bytes(), nil
}

// withFallbackFonts adds fonts of the same metrics to an SVG.
func withFallbackFonts(svg []byte) []byte {
	return bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
}

// drawFile draws the title, under it the legend in one or two columns, and under that the plot, so that none covers
// another.
func (f Figure) drawFile(c draw.Canvas) error {
	p, err := f.prepare(fileLayout)
	if err != nil {
		return err
	}
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	m := fileLayout.margin
	c = draw.Crop(c, m, -m, m, -m)
	title := textStyle(13)
	title.XAlign, title.YAlign = draw.XCenter, draw.YTop
	c.FillText(title, vg.Point{X: c.Center().X, Y: c.Max.Y}, f.Title)
	c = draw.Crop(c, 0, 0, 0, -title.Height(f.Title)-8)

	columns := 1
	if len(p.keys) > 3 {
		columns = 2
	}
	perColumn := (len(p.keys) + columns - 1) / columns
	var height vg.Length
	for i := range columns {
		legend := plot.NewLegend()
		legend.TextStyle, legend.Top, legend.Left, legend.ThumbnailWidth, legend.Padding = textStyle(10), true, true, 24, 3
		for _, k := range p.keys[i*perColumn : min((i+1)*perColumn, len(p.keys))] {
			legend.Add(k.name, k.thumbs...)
		}
		r := legend.Rectangle(c)
		height = max(height, r.Max.Y-r.Min.Y)
		legend.Draw(draw.Crop(c, vg.Length(i)*(c.Max.X-c.Min.X)/2+24, 0, 0, 0))
	}
	p.Draw(draw.Crop(c, 0, 0, 0, -height-10))
	return nil
}

// textStyle returns the font of all texts.
func textStyle(size vg.Length) text.Style {
	return text.Style{Color: ink, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size), Handler: plot.DefaultTextHandler}
}

// prepared is a figure as a plot of the library, without title, legend and background.
type prepared struct {
	*plot.Plot
	keys  []key  // of the legend
	spots *spots // filled when the plot is drawn
}

// key is an entry of the legend.
type key struct {
	name   string
	thumbs []plot.Thumbnailer
}

// prepare converts the figure. A plot is drawn once only, because drawing changes it.
func (f Figure) prepare(l layout) (prepared, error) {
	p := prepared{plot.New(), nil, &spots{}}
	p.BackgroundColor = nil
	styleAxis(&p.X, f.X, l)
	styleAxis(&p.Y, f.Y, l)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
	for _, line := range f.Lines {
		thumbs, err := line.add(p.Plot)
		if err != nil {
			return p, err
		}
		p.keys = append(p.keys, key{line.Name, thumbs})
		for i, text := range line.Hover {
			p.spots.list = append(p.spots.list, spot{at: line.Points[i], text: text})
		}
	}
	p.Add(labels{f.Lines, l.label}, p.spots)
	padRange(&p.X, f.X)
	padRange(&p.Y, f.Y)
	return p, nil
}

// styleAxis sets titles, ticks and scale of an axis.
func styleAxis(a *plot.Axis, to Axis, l layout) {
	title, ticks := textStyle(l.axis), textStyle(l.tick)
	title.XAlign, title.YAlign = a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign
	title.Rotation = a.Label.TextStyle.Rotation
	ticks.XAlign, ticks.YAlign = a.Tick.Label.XAlign, a.Tick.Label.YAlign
	a.Label.Text, a.Label.TextStyle, a.Tick.Label = to.Title, title, ticks
	a.Color, a.Tick.Color = grey, grey
	format := tickLabel
	if to.Millis {
		format = millisLabel
	}
	switch {
	case to.Tokens:
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.TickerFunc(tokenTicks)
	case to.Log:
		a.Scale = plot.LogScale{}
		a.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return decadeTicks(low, high, format) })
	default:
		a.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return linearTicks(low, high, format) })
	}
}

// padRange leaves space around the points, also because the range of a logarithmic axis must not be empty.
func padRange(a *plot.Axis, to Axis) {
	switch {
	case to.Tokens:
		a.Min, a.Max = a.Min/1.2, a.Max*1.2
	case to.Log:
		a.Min, a.Max = a.Min/1.6, a.Max*1.6
	default:
		a.Min, a.Max = 0, a.Max*1.1
	}
}

// add adds the line to a plot.
func (l Line) add(p *plot.Plot) (thumbs []plot.Thumbnailer, err error) {
	if l.Joined {
		path, err := plotter.NewLine(l.Points)
		if err != nil {
			return nil, err
		}
		path.Color, path.Width = l.Color, l.Width
		if l.Width == 0 {
			path.Width = 1.5
		}
		if l.Dashed {
			path.Dashes = []vg.Length{5, 4}
		}
		p.Add(path)
		thumbs = append(thumbs, path)
	}
	if l.Marked {
		dots, err := plotter.NewScatter(l.Points)
		if err != nil {
			return nil, err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: l.Color, Radius: 3, Shape: draw.CircleGlyph{}}
		if l.Marker != nil {
			dots.Shape = l.Marker
		}
		p.Add(dots)
		thumbs = append(thumbs, dots)
	}
	return thumbs, nil
}
