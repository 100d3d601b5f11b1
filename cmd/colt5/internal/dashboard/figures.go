package dashboard

import (
	"fmt"
	"image/color"
	"math"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/train"
	"gonum.org/v1/plot/plotter"
)

// figures are the charts that there are values for.
func (r Run) figures() []chart.Figure {
	var list []chart.Figure
	if len(r.History.Steps) > 0 {
		list = append(list, r.lossFigure())
	}
	steps := chart.Axis{Title: "step"}
	if r.Config.Task == settings.Classifier {
		line := r.evaluations("held out", chart.Orange, func(e history.Evaluation) (float64, bool) { return 100 * e.Accuracy, e.Labels > 0 })
		if len(line.Points) > 0 {
			list = append(list, chart.Figure{File: "accuracy", Title: "Accuracy", X: steps, Y: chart.Axis{Title: "%"}, Lines: []chart.Line{line},
				Caption: "Share of the held-out documents whose class has the largest logit."})
		}
	}
	for _, f := range []struct {
		file, title, caption, unit string
		value                      func(model.Router) float64
	}{
		{"scores", "Sum of soft scores", "Mean over the routers of a kind: the sum of the soft scores of coordinate descent as a share of its target, the " +
			"bytes to select times fetch_k_ratio. 100 % where the descent has converged.", "%", func(x model.Router) float64 { return 100 * x.ScoreSum / x.KEff }},
		{"saturated", "Saturated scores", "Mean over the routers of a kind: the share of selected bytes whose soft score is 1. They pass no gradient to the router.", "%",
			func(x model.Router) float64 { return 100 * x.Saturated }},
		{"ties", "Ties", "Mean over the routers of a kind: the coordinate descents in which a byte that is not selected has the same logit as the last one that is.",
			"descents", func(x model.Router) float64 { return float64(x.Ties) }},
		{"empty", "Empty slots", "Mean over the routers of a kind: the share of the slots of lists that no byte fills.", "%",
			func(x model.Router) float64 { return 100 * x.Empty }},
	} {
		lines := r.routerLines(f.value)
		if len(lines) > 0 {
			list = append(list, chart.Figure{File: f.file, Title: f.title, Caption: f.caption, X: steps, Y: chart.Axis{Title: f.unit}, Lines: lines})
		}
	}
	return list
}

// lossFigure is the chart of training and held-out loss.
func (r Run) lossFigure() chart.Figure {
	unit := Unit(r.Config.Task)
	f := chart.Figure{File: "loss", Title: "Loss, " + unit, X: chart.Axis{Title: "step"}, Y: chart.Axis{Title: unit}}
	points, each := means(r.History.Steps)
	name := "training"
	f.Caption = "Training: each step."
	if each > 1 {
		f.Caption = fmt.Sprintf("Training: means of %d steps.", each)
	}
	f.Lines = []chart.Line{{Name: name, Color: chart.Blue, Points: points, Joined: true, Width: 1}}
	if len(points) == 0 {
		f.Lines = nil
	}
	held := r.evaluations("held out", chart.Orange, func(e history.Evaluation) (float64, bool) { return history.Bits(e.HeldOut), e.Labels > 0 })
	if len(held.Points) > 0 {
		f.Lines = append(f.Lines, held)
	}
	return f
}

// means returns the loss in bits over the steps, at most 500 points: means of so many steps each.
func means(steps []train.Record) (list plotter.XYs, each int) {
	each = (len(steps) + 499) / 500
	for from := 0; from < len(steps); from += each {
		part := steps[from:min(from+each, len(steps))]
		if y := history.Bits(history.Mean(part)); y != 0 {
			list = append(list, plotter.XY{X: float64(from) + float64(len(part))/2, Y: y})
		}
	}
	return list, each
}

// evaluations returns a line of a value of each evaluation that has it.
func (r Run) evaluations(name string, c color.Color, value func(history.Evaluation) (float64, bool)) chart.Line {
	l := chart.Line{Name: name, Color: c, Joined: true, Marked: true}
	for _, e := range r.History.Evaluations {
		if y, ok := value(e); ok && !math.IsNaN(y) && !math.IsInf(y, 0) {
			l.Points = append(l.Points, plotter.XY{X: float64(e.Step), Y: y})
			l.Hover = append(l.Hover, fmt.Sprintf("step %d: %.4g", e.Step, y))
		}
	}
	return l
}

// kinds are the kinds of routers.
var kinds = []struct {
	name  string
	title string
	color color.Color
}{{"q_router", "queries", chart.Blue}, {"kv_router", "keys and values", chart.Orange}, {"router", "feedforward", chart.Green}}

// routerLines returns a line for each kind of router: the mean of a value.
func (r Run) routerLines(value func(model.Router) float64) []chart.Line {
	var list []chart.Line
	for _, k := range kinds {
		line := r.evaluations(k.title, k.color, func(e history.Evaluation) (float64, bool) {
			sum, n := 0.0, 0
			for _, x := range e.Routers {
				if kind(x) == k.name {
					sum += value(x)
					n++
				}
			}
			return sum / float64(max(n, 1)), n > 0
		})
		if len(line.Points) > 0 {
			list = append(list, line)
		}
	}
	return list
}
