package chart

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Inline is a figure as elements of a page. The page's style sheet has the colours, as variables, and shows one of Wide
// and Narrow.
type Inline struct {
	Wide, Narrow template.HTML // SVG without title and legend
	Legend       []LegendEntry
}

// LegendEntry is a line of a legend: a sample of the line, and its name.
type LegendEntry struct {
	Sample template.HTML // SVG
	Name   string
}

// Variables returns the CSS variables that Inline has in place of the colours of Draw.
func Variables() map[string]color.Color {
	return map[string]color.Color{"f32": Blue, "f16": Orange, "bf16": Green, "axis": grey, "ink": ink, "grid": faint}
}

var (
	wideLayout   = layout{960, 440, 2, 13, 12, 11.5}
	narrowLayout = layout{480, 380, 2, 13, 12, 11}
)

// overhang is space beside the last label of the x axis, because a browser's fonts may be wider than those that the plot
// measures labels with.
const overhang vg.Length = 12

// Inline draws the figure for a page.
func (f Figure) Inline() (Inline, error) {
	var out Inline
	for _, v := range []struct {
		class string
		layout
		to *template.HTML
	}{{"wide", wideLayout, &out.Wide}, {"narrow", narrowLayout, &out.Narrow}} {
		p, err := f.prepare(v.layout)
		if err != nil {
			return out, fmt.Errorf("%s: %w", f.File, err)
		}
		canvas := vgsvg.New(v.width, v.height)
		p.Draw(draw.Crop(draw.New(canvas), v.margin, -v.margin-overhang, v.margin, -v.margin))
		open := fmt.Sprintf(`<svg class="%s" viewBox="0 0 %g %g" role="img" aria-label="%s">`,
			v.class, v.width, v.height, html.EscapeString(f.Title))
		if *v.to, err = element(canvas, open, p.spots.elements(v.height)); err != nil {
			return out, fmt.Errorf("%s: %w", f.File, err)
		}
		if out.Legend != nil {
			continue
		}
		for _, k := range p.keys {
			sample, err := k.sample()
			if err != nil {
				return out, fmt.Errorf("%s: %w", f.File, err)
			}
			out.Legend = append(out.Legend, LegendEntry{sample, k.name})
		}
	}
	return out, nil
}

// sample draws the sample of an entry of the legend.
func (k key) sample() (template.HTML, error) {
	const width, height = 28, 12
	canvas := vgsvg.New(width, height)
	c := draw.New(canvas)
	for _, t := range k.thumbs {
		t.Thumbnail(&c)
	}
	open := fmt.Sprintf(`<svg class="sample" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" aria-hidden="true">`, width, height)
	return element(canvas, open, "")
}

// element returns a drawing as an element with another start tag, with variables for colours, and with more at its end.
// The texts in it were escaped when they were drawn.
func element(c *vgsvg.Canvas, open, more string) (template.HTML, error) {
	var buffer bytes.Buffer
	if _, err := c.WriteTo(&buffer); err != nil {
		return "", err
	}
	svg := string(withFallbackFonts(buffer.Bytes()))
	start := strings.Index(svg, "<svg")
	if start < 0 {
		return "", fmt.Errorf("internal error: a drawing without an svg element")
	}
	_, inner, _ := strings.Cut(svg[start:], ">")
	inner = strings.TrimSuffix(strings.TrimSpace(inner), "</svg>")
	var pairs []string
	for name, c := range Variables() {
		r, g, b, _ := c.RGBA()
		for _, property := range []string{"fill", "stroke"} {
			pairs = append(pairs, fmt.Sprintf("%s:#%02X%02X%02X", property, r>>8, g>>8, b>>8), property+":var(--"+name+")")
		}
	}
	return template.HTML(open + strings.NewReplacer(pairs...).Replace(inner) + more + "</svg>"), nil
}

// spots records where points with hover text are drawn.
type spots struct{ list []spot }

type spot struct {
	at    plotter.XY
	text  string
	pixel vg.Point
}

// Plot draws nothing.
func (s *spots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i, one := range s.list {
		s.list[i].pixel = vg.Point{X: x(one.at.X), Y: y(one.at.Y)}
	}
}

// elements returns a group of circles with titles, in a drawing of a height. The y axis of SVG points down.
func (s *spots) elements(height vg.Length) string {
	var out strings.Builder
	out.WriteString(`<g class="spots">`)
	for _, one := range s.list {
		fmt.Fprintf(&out, `<circle cx="%.1f" cy="%.1f" r="7"><title>%s</title></circle>`,
			one.pixel.X, height-one.pixel.Y, html.EscapeString(one.text))
	}
	out.WriteString("</g>")
	return out.String()
}
