// Package history has the losses and the evaluations of a training run, and their files.
package history

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"path/filepath"
	"slices"
	"strconv"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/train"
)

// Names of the files.
const (
	LossesFile      = "losses.csv"
	EvaluationsFile = "evaluations.jsonl"
)

// History is what happened in a run so far.
type History struct {
	Steps       []train.Record // one for each step, from step 0 on
	Evaluations []Evaluation   // in order
}

// Evaluation is the state of a run after some steps.
type Evaluation struct {
	Step     int64          `json:"step"`             // steps that the run has done
	Training float64        `json:"training"`         // mean loss in nats of the steps since the evaluation before
	HeldOut  float64        `json:"held_out"`         // mean loss in nats of a label
	Labels   int64          `json:"labels"`           // that are held out; 0: there are none
	Accuracy float64        `json:"accuracy"`         // share of the labels; of Classifier
	Prompt   string         `json:"prompt,omitempty"` // of the sample
	Sample   string         `json:"sample,omitempty"` // what the model generates after the prompt
	Text     string         `json:"text,omitempty"`   // that Routers refer to, a byte for each character
	Routers  []model.Router `json:"routers,omitempty"`
}

// Bits converts nats to bits.
func Bits(nats float64) float64 { return nats / math.Ln2 }

// Add adds an evaluation. Only the last one keeps what the routers chose.
func (h *History) Add(e Evaluation) {
	from := 0
	if n := len(h.Evaluations); n > 0 {
		last := &h.Evaluations[n-1]
		from = int(last.Step)
		last.Text = ""
		for i := range last.Routers {
			last.Routers[i].Chosen = nil
		}
	}
	e.Training = Mean(h.Steps[min(from, len(h.Steps)):])
	h.Evaluations = append(h.Evaluations, e)
}

// Mean is the mean loss of steps that have one.
func Mean(steps []train.Record) float64 {
	sum, n := 0.0, 0
	for _, r := range steps {
		if !math.IsNaN(r.Loss) && !math.IsInf(r.Loss, 0) {
			sum += r.Loss
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// header is the first line of the file of losses. Loss is in nats, bits in bits for each label, a byte of LM.
var header = []string{"step", "loss", "bits", "norm", "rate", "loss_scale", "labels", "updates", "skipped"}

// CSV returns the losses as a table.
func (h *History) CSV() []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	w.Write(header)                                                                 // errors are those of out, which has none
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 32) } // the values are float32
	for _, r := range h.Steps {
		w.Write([]string{strconv.Itoa(r.Step), number(r.Loss), strconv.FormatFloat(Bits(r.Loss), 'f', 5, 64), number(r.Norm), number(r.Rate),
			number(r.LossScale), number(r.Labels), strconv.Itoa(r.Updates), strconv.FormatBool(r.Skipped)})
	}
	w.Flush()
	return out.Bytes()
}

// readCSV reads what CSV returned.
func readCSV(data []byte) ([]train.Record, error) {
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || !slices.Equal(rows[0], header) {
		return nil, fmt.Errorf("the first line is not %q", header)
	}
	var list []train.Record
	for i, row := range rows[1:] {
		var r train.Record
		for column, to := range []any{&r.Step, &r.Loss, nil, &r.Norm, &r.Rate, &r.LossScale, &r.Labels, &r.Updates, &r.Skipped} {
			var err error
			switch to := to.(type) {
			case *int:
				*to, err = strconv.Atoi(row[column])
			case *float64:
				var x float64
				x, err = strconv.ParseFloat(row[column], 32)
				*to = x
			case *bool:
				*to, err = strconv.ParseBool(row[column])
			}
			if err != nil {
				return nil, fmt.Errorf("row %d, column %s: %w", i+1, header[column], err)
			}
		}
		if r.Step != i {
			return nil, fmt.Errorf("row %d is of step %d, want %d", i+1, r.Step, i)
		}
		list = append(list, r)
	}
	return list, nil
}

// Write writes both files into a folder, each as a whole.
func (h *History) Write(dir string) error {
	if err := atomicfile.Write(filepath.Join(dir, LossesFile), h.CSV()); err != nil {
		return err
	}
	var out bytes.Buffer
	for _, e := range h.Evaluations {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		out.Write(append(line, '\n'))
	}
	return atomicfile.Write(filepath.Join(dir, EvaluationsFile), out.Bytes())
}

// Read reads the files of a folder, of a run that has done so many steps.
func Read(dir string, steps int64) (*History, error) {
	h := &History{}
	data, err := input.ReadFile(filepath.Join(dir, LossesFile), input.ResultsLimit)
	if err != nil {
		return nil, err
	}
	if h.Steps, err = readCSV(data); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, LossesFile), err)
	}
	if int64(len(h.Steps)) != steps {
		return nil, fmt.Errorf("%s has %d steps, want %d", filepath.Join(dir, LossesFile), len(h.Steps), steps)
	}
	data, err = input.ReadFile(filepath.Join(dir, EvaluationsFile), input.ResultsLimit)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var e Evaluation
		if err := d.Decode(&e); err == io.EOF {
			return h, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, EvaluationsFile), err)
		}
		h.Evaluations = append(h.Evaluations, e)
	}
}
