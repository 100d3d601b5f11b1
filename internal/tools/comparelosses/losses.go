package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"gonum.org/v1/plot/plotter"
)

// run is the losses of a run, of steps 0, 1, ..
type run struct {
	name   string
	losses []float64
}

// readRun reads a file, whose extension tells its format.
func readRun(name, file string) (run, error) {
	f, err := os.Open(file)
	if err != nil {
		return run{}, err
	}
	defer f.Close()
	read := readCSV
	if strings.HasSuffix(file, ".jsonl") {
		read = readJSON
	}
	losses, err := read(f)
	if err == nil && len(losses) == 0 {
		err = errors.New("there are no losses")
	}
	if err != nil {
		return run{}, fmt.Errorf("%s: %w", file, err)
	}
	return run{name, losses}, nil
}

// readCSV reads the columns step and loss.
func readCSV(from io.Reader) (losses []float64, err error) {
	rows, err := csv.NewReader(from).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	step, loss := slices.Index(rows[0], "step"), slices.Index(rows[0], "loss")
	if step < 0 || loss < 0 {
		return nil, fmt.Errorf("the columns are %q, want step and loss among them", rows[0])
	}
	for _, row := range rows[1:] {
		if losses, err = add(losses, row[step], row[loss]); err != nil {
			return nil, err
		}
	}
	return losses, nil
}

// readJSON reads an object a line.
func readJSON(from io.Reader) (losses []float64, err error) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		var object struct{ Step, Loss json.Number }
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			return nil, err
		}
		if losses, err = add(losses, object.Step.String(), object.Loss.String()); err != nil {
			return nil, err
		}
	}
	return losses, nil
}

// add adds the loss of the next step.
func add(losses []float64, step, loss string) ([]float64, error) {
	if step != strconv.Itoa(len(losses)) {
		return nil, fmt.Errorf("a step is %q, want %d: those from 0 on, in order", step, len(losses))
	}
	value, err := strconv.ParseFloat(loss, 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return nil, fmt.Errorf("the loss of step %s is %q, want a finite number", step, loss)
	}
	return append(losses, value), nil
}

func parseLimits(text string) (list []int, err error) {
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of steps, want at least 1", part)
		}
		list = append(list, n)
	}
	return list, nil
}

// difference tells the largest relative difference of the first n steps.
func difference(reference, r run, n int) string {
	n = min(n, len(reference.losses), len(r.losses))
	worst, at, sum := 0.0, 0, 0.0
	for i := range n {
		d := math.Abs(r.losses[i]-reference.losses[i]) / math.Abs(reference.losses[i])
		sum += d
		if d > worst {
			worst, at = d, i
		}
	}
	return fmt.Sprintf("%s and %s, first %d steps: at most %.2e relative (step %d: %.6g and %.6g), mean %.2e",
		r.name, reference.name, n, worst, at, r.losses[at], reference.losses[at], sum/float64(n))
}

// table is the losses as CSV: a column of each run.
func table(runs []run) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	row, steps := []string{"step"}, 0
	for _, r := range runs {
		row, steps = append(row, r.name), max(steps, len(r.losses))
	}
	w.Write(row)
	for i := range steps {
		row := []string{strconv.Itoa(i)}
		for _, r := range runs {
			cell := ""
			if i < len(r.losses) {
				cell = strconv.FormatFloat(r.losses[i], 'g', 8, 64)
			}
			row = append(row, cell)
		}
		w.Write(row)
	}
	w.Flush() // a bytes.Buffer has no errors
	return out.Bytes()
}

// figure draws the runs over each other: the first one widest.
func figure(title string, runs []run) chart.Figure {
	f := chart.Figure{File: "losses", Title: title, X: chart.Axis{Title: "step"}, Y: chart.Axis{Title: "nats"}}
	colors := []color.Color{color.RGBA{0xc8, 0xc8, 0xc8, 0xff}, chart.Blue, chart.Orange, chart.Green}
	for i, r := range runs {
		line := chart.Line{Name: r.name, Color: colors[i%len(colors)], Joined: true, Width: 1}
		if i == 0 {
			line.Width = 4
		}
		for step, loss := range r.losses {
			line.Points = append(line.Points, plotter.XY{X: float64(step), Y: loss})
		}
		f.Lines = append(f.Lines, line)
	}
	return f
}
