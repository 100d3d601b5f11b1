package chart

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// labels draws the labels of lines. A label that several points of a line share is drawn once. A label without space,
// where it would cover a point, a line or another label, is left out.
type labels struct {
	lines []Line
	size  vg.Length // of the text
}

func (l labels) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	pixel := func(at plotter.XY) vg.Point { return vg.Point{X: x(at.X), Y: y(at.Y)} }
	taken := l.obstacles(pixel)
	style := textStyle(l.size)
	style.YAlign = draw.YCenter
	for _, line := range l.lines {
		done := map[string]bool{}
		for i, text := range line.Labels {
			if done[text] {
				continue
			}
			box := style.Rectangle(text)
			w := box.Max.X - box.Min.X
			box.Max.X += w / 8 // a page may have another font
			const gap = 6
			above := style.Height(text)/2 + gap
			for _, offset := range []vg.Point{
				{X: gap}, {X: -gap - w*9/8}, {X: -w / 2, Y: above}, {X: -w / 2, Y: -above},
				{X: gap, Y: above}, {X: gap, Y: -above}, {X: -gap - w, Y: above}, {X: -gap - w, Y: -above},
			} {
				at := pixel(line.Points[i]).Add(offset)
				place := box.Add(at)
				if !inside(place, c.Rectangle) || taken.overlap(place) {
					continue
				}
				style.Color = line.Color
				c.FillText(style, at, text)
				taken.boxes = append(taken.boxes, place)
				done[text] = true
				break
			}
		}
	}
}

// obstacles are what a label must not cover.
type obstacles struct {
	boxes    []vg.Rectangle
	segments [][2]vg.Point
}

// obstacles returns the points, as boxes, and the line segments.
func (l labels) obstacles(pixel func(plotter.XY) vg.Point) obstacles {
	var o obstacles
	for _, line := range l.lines {
		for i, xy := range line.Points {
			at := pixel(xy)
			if line.Marked {
				o.boxes = append(o.boxes, vg.Rectangle{Min: at.Sub(vg.Point{X: 4, Y: 4}), Max: at.Add(vg.Point{X: 4, Y: 4})})
			}
			if line.Joined && i > 0 {
				o.segments = append(o.segments, [2]vg.Point{pixel(line.Points[i-1]), at})
			}
		}
	}
	return o
}

// overlap reports whether an obstacle overlaps a rectangle, or a line is closer to it than 2 points.
func (o obstacles) overlap(r vg.Rectangle) bool {
	for _, b := range o.boxes {
		if r.Min.X < b.Max.X && b.Min.X < r.Max.X && r.Min.Y < b.Max.Y && b.Min.Y < r.Max.Y {
			return true
		}
	}
	const near = 2
	r.Min, r.Max = r.Min.Sub(vg.Point{X: near, Y: near}), r.Max.Add(vg.Point{X: near, Y: near})
	for _, s := range o.segments {
		if crosses(s[0], s[1], r) {
			return true
		}
	}
	return false
}

// crosses reports whether a part of the segment from a to b is in r. It clips the segment to the range of each axis.
func crosses(a, b vg.Point, r vg.Rectangle) bool {
	from, to := vg.Length(0), vg.Length(1) // of the part that is inside, as shares of the segment
	for _, axis := range [][4]vg.Length{{a.X, b.X, r.Min.X, r.Max.X}, {a.Y, b.Y, r.Min.Y, r.Max.Y}} {
		start, d, low, high := axis[0], axis[1]-axis[0], axis[2], axis[3]
		if d == 0 {
			if start < low || start > high {
				return false
			}
			continue
		}
		enter, leave := (low-start)/d, (high-start)/d
		from, to = max(from, min(enter, leave)), min(to, max(enter, leave))
	}
	return from <= to
}

func inside(r, outer vg.Rectangle) bool {
	return r.Min.X >= outer.Min.X && r.Max.X <= outer.Max.X && r.Min.Y >= outer.Min.Y && r.Max.Y <= outer.Max.Y
}
