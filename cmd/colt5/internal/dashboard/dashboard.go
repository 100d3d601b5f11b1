// Package dashboard writes the page and the chart of a training run.
package dashboard

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/cli/webpage"
)

// Names of the files.
const (
	PageFile  = "index.html"
	ChartFile = "loss.png"
)

//go:embed page.html
var pageTemplate string

// Run is what a page shows.
type Run struct {
	Config  settings.Config
	History *history.History
	Facts   []Fact // of the device, the data and the rate
}

// Fact is a labelled value.
type Fact struct{ Label, Value string }

// page is the data of page.html.
type page struct {
	Title, Task string
	Facts       []Fact
	Figures     []figure
	Routers     []router
	RoutersAt   string
	Samples     []sample
	Config      string
	Classifier  bool
}

type figure struct {
	File, Title, Caption string
	Inline               chart.Inline
}

// router is a row of the table of routers, and the text with what it chose.
type router struct {
	ID, Name, ScoreSum, Saturated, Empty, Share string
	Ties                                        int
	Runs                                        []textRun
}

// textRun is characters that are all chosen, or all not.
type textRun struct {
	Text   string
	Chosen bool
}

type sample struct{ Step, Loss, Prompt, Text string }

// Unit is the unit of a loss in bits.
func Unit(task settings.Task) string {
	if task == settings.LM {
		return "bits per byte"
	}
	return "bits per document"
}

// Write writes a page that needs no other file. config is shown as it is.
func Write(w io.Writer, r Run, config []byte) error {
	t, err := webpage.New("training", pageTemplate)
	if err != nil {
		return err
	}
	p := page{Title: "Training of a language model", Task: string(r.Config.Task), Facts: r.facts(), Config: string(config)}
	if r.Config.Task == settings.Classifier {
		p.Title, p.Classifier = "Training of a classifier", true
	}
	for _, f := range r.figures() {
		inline, err := f.Inline()
		if err != nil {
			return err
		}
		p.Figures = append(p.Figures, figure{f.File, f.Title, f.Caption, inline})
	}
	if n := len(r.History.Evaluations); n > 0 {
		last := r.History.Evaluations[n-1]
		p.RoutersAt, p.Routers = table.Thousands(fmt.Sprint(last.Step)), routersOf(last)
	}
	for _, e := range slices.Backward(r.History.Evaluations) {
		if e.Sample != "" {
			p.Samples = append(p.Samples, sample{table.Thousands(fmt.Sprint(e.Step)), lossText(e), shown(e.Prompt), shown(e.Sample)})
		}
	}
	return t.Execute(w, p)
}

// PNG is the chart of the loss.
func PNG(r Run) ([]byte, error) {
	_, png, err := r.lossFigure().Draw()
	return png, err
}

// facts are the values above the charts.
func (r Run) facts() []Fact {
	var list []Fact
	unit := Unit(r.Config.Task)
	if n := len(r.History.Evaluations); n > 0 {
		e := r.History.Evaluations[n-1]
		if e.Labels > 0 {
			list = append(list, Fact{"held out, " + unit, fmt.Sprintf("%.4f", history.Bits(e.HeldOut))})
		}
		list = append(list, Fact{"training, " + unit, fmt.Sprintf("%.4f", history.Bits(e.Training))})
		if r.Config.Task == settings.Classifier && e.Labels > 0 {
			list = append(list, Fact{"accuracy, held out", fmt.Sprintf("%.1f %%", 100*e.Accuracy)})
		}
	}
	return append(append(list, Fact{"steps", table.Thousands(fmt.Sprint(len(r.History.Steps)))}), r.Facts...)
}

// routersOf makes the rows of the routers, with the text.
func routersOf(e history.Evaluation) []router {
	var text []byte
	for _, c := range e.Text {
		text = append(text, byte(c))
	}
	var list []router
	for i, x := range e.Routers {
		chosen := expand(x.Chosen, len(text))
		count := 0
		for _, c := range chosen {
			if c {
				count++
			}
		}
		list = append(list, router{
			ID: fmt.Sprintf("r%d", i), Name: x.Name, ScoreSum: percent(x.ScoreSum / x.KEff), Saturated: percent(x.Saturated), Empty: percent(x.Empty),
			Ties: x.Ties, Share: percent(float64(count) / float64(max(len(text), 1))), Runs: textRuns(text, chosen),
		})
	}
	return list
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// expand returns the values of runs, from one of false on.
func expand(runs []int, n int) []bool {
	list, at := make([]bool, n), 0
	for i, length := range runs {
		for range length {
			if at < n {
				list[at] = i%2 == 1
				at++
			}
		}
	}
	return list
}

// textRuns splits a text into runs of characters. A character is chosen if one of its bytes is.
func textRuns(text []byte, chosen []bool) []textRun {
	var list []textRun
	for at := 0; at < len(text); {
		c, width := utf8.DecodeRune(text[at:])
		is := slices.Contains(chosen[at:at+width], true)
		if len(list) == 0 || list[len(list)-1].Chosen != is {
			list = append(list, textRun{Chosen: is})
		}
		list[len(list)-1].Text += string(webpage.Shown(c))
		at += width
	}
	return list
}

// shown is a text without characters that a page cannot show.
func shown(text string) string { return strings.Map(webpage.Shown, text) }

// Latin1 makes a character of each byte, for history.Evaluation.Text.
func Latin1(text []byte) string {
	out := make([]rune, len(text))
	for i, b := range text {
		out[i] = rune(b)
	}
	return string(out)
}

// kind is the kind of a router: what its name ends in.
func kind(r model.Router) string { return r.Name[strings.LastIndex(r.Name, ".")+1:] }

// lossText is the held-out loss of an evaluation of a language model.
func lossText(e history.Evaluation) string {
	if e.Labels == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f bits per held-out byte", history.Bits(e.HeldOut))
}
