package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// benchRow is a row of bench, as its JSON has it: keys are those of benchmark.columns. What a row does not say is 0.
type benchRow struct {
	Name      string  `json:"name"`
	Shape     string  `json:"shape"`
	Precision string  `json:"precision"`
	GPU       float64 `json:"gpu_ms"`
	P10       float64 `json:"gpu_p10_ms"`
	P90       float64 `json:"gpu_p90_ms"`
	Wall      float64 `json:"wall_ms"`
	GBs       float64 `json:"gb_per_s"`
	TFLOPs    float64 `json:"tflop_per_s"`
	RoofShare float64 `json:"roof_share"`
	Workspace uint64  `json:"workspace_bytes"`
	Peak      uint64  `json:"peak_bytes"`
	Runs      int     `json:"runs"`
	Device    string  `json:"device"`
	Driver    string  `json:"driver"`
}

// key is what makes two rows the same measurement.
func (r benchRow) key() string { return r.Name + " " + r.Shape + " " + r.Precision }

// measured rejects what nothing measures: a plot of it has no end of ticks.
func (r benchRow) measured() error {
	const least, most = 1e-18, 1e18
	for _, x := range []struct {
		name  string
		value float64
	}{{"gpu_ms", r.GPU}, {"gb_per_s", r.GBs}, {"tflop_per_s", r.TFLOPs}} {
		if x.value != 0 && (x.value < least || x.value > most) {
			return fmt.Errorf("%s is %v, want 0, or %v to %v", x.name, x.value, least, most)
		}
	}
	return nil
}

// ended says whether nothing follows what was decoded.
func ended(d *json.Decoder) bool {
	_, err := d.Token()
	return err == io.EOF
}

// readRows reads the JSON of bench, -o jsonl or -o json. Errors name file and line.
func readRows(path string) ([]benchRow, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rows, err := parseRows(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s holds no rows of bench", path)
	}
	return rows, nil
}

// parseRows reads rows, an object a line; errors start with the line's number. -o json has brackets around and commas between them.
func parseRows(text []byte) ([]benchRow, error) {
	var rows []benchRow
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(strings.TrimSpace(line), ",")
		if line == "" || line == "[" || line == "]" {
			continue
		}
		r := benchRow{Precision: "f32"} // of rows from before there were others
		d := json.NewDecoder(strings.NewReader(line))
		err := d.Decode(&r)
		switch {
		case err == nil && !ended(d):
			err = fmt.Errorf("more than one object")
		case err == nil && (r.Name == "" || r.Shape == ""):
			err = fmt.Errorf("an object without name or shape, want a row of vkbench bench -o jsonl")
		case err == nil && !strings.Contains(line, `"gpu_ms"`):
			err = fmt.Errorf("a row without gpu_ms, want one of vkbench bench -o jsonl without -steps")
		case err == nil && r.GPU < 0:
			err = fmt.Errorf("gpu_ms is %v, want at least 0", r.GPU)
		case err == nil:
			err = r.measured()
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}
