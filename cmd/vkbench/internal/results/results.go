// Package results reads the JSON rows that vkbench bench writes.
package results

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/internal/errtext"
)

// Row is a row of bench. Its JSON keys are the columns of measure.Runner. Missing values are 0.
type Row struct {
	Name      string  `json:"name"`
	Shape     string  `json:"shape"`
	Precision string  `json:"precision"`
	GPU       float64 `json:"gpu_ms"`
	P10       float64 `json:"gpu_p10_ms"`
	P90       float64 `json:"gpu_p90_ms"`
	Wall      float64 `json:"wall_ms"`
	GBs       float64 `json:"gb_per_s"`
	TFLOPs    float64 `json:"tflop_per_s"`
	PeakShare float64 `json:"peak_share"`
	Workspace uint64  `json:"workspace_bytes"`
	Peak      uint64  `json:"peak_bytes"`
	Runs      int     `json:"runs"`
	Device    string  `json:"device"`
	Driver    string  `json:"driver"`

	// When the row was measured (RFC 3339, UTC), and by what. Rows of earlier versions have none of these.
	Time    string `json:"time"`
	Version string `json:"version"` // of the module
	Commit  string `json:"commit"`
	OS      string `json:"os"`
	CPU     string `json:"cpu"` // of the host
}

// Key is equal for rows of the same measurement.
func (r Row) Key() string { return r.Name + " " + r.Shape + " " + r.Precision }

// plausible rejects values that no measurement yields; an axis for them would have an unbounded number of ticks. Text
// reaches terminals and pages.
func (r Row) plausible() error {
	const least, most = 1e-18, 1e18
	for _, x := range []struct {
		name  string
		value float64
	}{{"gpu_ms", r.GPU}, {"gb_per_s", r.GBs}, {"tflop_per_s", r.TFLOPs}} {
		if x.value != 0 && (x.value < least || x.value > most) {
			return fmt.Errorf("%s is %v, want 0, or %v to %v", x.name, x.value, least, most)
		}
	}
	for _, x := range []struct{ name, text string }{{"name", r.Name}, {"shape", r.Shape}, {"precision", r.Precision}, {"device", r.Device}, {"driver", r.Driver},
		{"time", r.Time}, {"version", r.Version}, {"commit", r.Commit}, {"os", r.OS}, {"cpu", r.CPU}} {
		if len(x.text) > 300 || strings.ContainsFunc(x.text, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return fmt.Errorf("%s is %s, want at most 300 printable characters", x.name, errtext.Quote(x.text))
		}
	}
	return nil
}

// atEnd reports whether the input of d is exhausted.
func atEnd(d *json.Decoder) bool {
	_, err := d.Token()
	return err == io.EOF
}

// ReadFile reads the output of bench in the format jsonl or json, also of earlier versions. Errors name file and line.
func ReadFile(path string) ([]Row, error) {
	text, err := input.ReadFile(path, input.ResultsLimit)
	if err != nil {
		return nil, err
	}
	rows, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s holds no rows of bench", path)
	}
	return rows, nil
}

// Latest removes rows that a later row of the same key replaces. A replacement takes the place of the first one.
func Latest(rows []Row) []Row {
	at := map[string]int{}
	var list []Row
	for _, r := range rows {
		if i, ok := at[r.Key()]; ok {
			list[i] = r
			continue
		}
		at[r.Key()] = len(list)
		list = append(list, r)
	}
	return list
}

// Parse reads rows, one object per line. It ignores the brackets and commas of the format json. Errors start with the
// line number.
func Parse(text []byte) ([]Row, error) {
	var rows []Row
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(strings.TrimSpace(line), ",")
		if line == "" || line == "[" || line == "]" {
			continue
		}
		text := struct {
			Row
			RoofShare float64 `json:"roof_share"` // PeakShare in rows of earlier versions
		}{Row: Row{Precision: "f32"}} // the oldest rows name no precision
		d := json.NewDecoder(strings.NewReader(line))
		err := d.Decode(&text)
		r := text.Row
		r.Name, r.PeakShare = currentName(r.Name), max(r.PeakShare, text.RoofShare)
		switch {
		case err == nil && !atEnd(d):
			err = fmt.Errorf("more than one object")
		case err == nil && (r.Name == "" || r.Shape == ""):
			err = fmt.Errorf("an object without name or shape, want a row of vkbench bench -o jsonl")
		case err == nil && !strings.Contains(line, `"gpu_ms"`):
			err = fmt.Errorf("a row without gpu_ms, want one of vkbench bench -o jsonl without -steps")
		case err == nil && r.GPU < 0:
			err = fmt.Errorf("gpu_ms is %v, want at least 0", r.GPU)
		case err == nil:
			err = r.plausible()
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}
