// Package settings has the configuration of a training run: JSON, flags and defaults.
package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/train"
)

// Task is what a run trains.
type Task string

// The tasks.
const (
	LM         Task = "lm"         // a language model over bytes: AutoregressiveTransformer
	Classifier Task = "classifier" // of labelled documents: Encoder, mean over the bytes, Linear
)

// Tasks are all tasks.
var Tasks = []Task{LM, Classifier}

// Config is the configuration of a run.
type Config struct {
	Task        Task                                   `json:"task"`
	Transformer *colt5.AutoregressiveTransformerConfig `json:"transformer,omitempty"` // of LM
	Encoder     *colt5.EncoderConfig                   `json:"encoder,omitempty"`     // of Classifier
	Classes     []string                               `json:"classes,omitempty"`     // of Classifier; empty: those of the file
	Batch       int                                    `json:"batch"`                 // items of a step
	Length      int                                    `json:"length"`                // bytes of an item
	Seed        uint64                                 `json:"seed"`                  // of initial values and batches
	Routing     string                                 `json:"routing"`               // "learned", or a control: "random" or, of LM, "static"
	Optimizer   Optimizer                              `json:"optimizer"`
	Data        Data                                   `json:"data"`
	Run         *Run                                   `json:"run,omitempty"`
}

// Optimizer is the configuration of the optimiser. A beta or decay of 0 is none.
type Optimizer struct {
	Rate     float64      `json:"rate"` // the peak
	Beta1    float64      `json:"beta1"`
	Beta2    float64      `json:"beta2"`
	Eps      float64      `json:"eps"`
	Decay    float64      `json:"decay"`
	Clip     float64      `json:"clip"` // largest norm of the gradients; 0: no clipping
	Schedule scheduleName `json:"schedule"`
	WarmUp   int          `json:"warm_up"` // steps
	Total    int          `json:"total"`   // of the schedule cosine: steps until the floor; 0: the steps of the run
	Floor    float64      `json:"floor"`   // of the schedule cosine
}

// scheduleName is the name of a schedule.
type scheduleName string

// Schedules are the names of schedules, by what package train calls them.
var Schedules = map[string]train.ScheduleKind{
	"constant": train.Constant, "cosine": train.Cosine, "inverse-square-root": train.InverseSquareRoot,
}

const scheduleNames = "constant, cosine or inverse-square-root"

// Routings are the ways in which tokens are selected: by the routers, at random, or evenly spaced.
var Routings = []string{"learned", "random", "static"}

const routingNames = "learned, random or static"

// Data says which files, and which part of them, a run trains with.
type Data struct {
	Include       []string `json:"include,omitempty"`        // patterns of files in folders; empty: all
	Exclude       []string `json:"exclude,omitempty"`        // patterns of files and folders that are left out
	SkipGenerated bool     `json:"skip_generated,omitempty"` // leave out files with the line that marks generated Go code
	HeldOut       uint32   `json:"held_out"`                 // one key in so many is held out; 0: none
	HeldOutBy     string   `json:"held_out_by,omitempty"`    // the key of a file of LM: "file", its path, or "folder"
	TextField     string   `json:"text_field,omitempty"`     // of Classifier
	LabelField    string   `json:"label_field,omitempty"`    // of Classifier
	Fingerprint   string   `json:"fingerprint,omitempty"`    // of the names and sizes of the files; set by the program
}

// Run is what may differ between the runs that continue each other: the weights are the same bits.
type Run struct {
	Steps         int `json:"steps"`
	MicroBatches  int `json:"micro_batches"`
	Recompute     int `json:"recompute"`      // layers, from the first one on, that compute their activations again; -1: all
	SaveEvery     int `json:"save_every"`     // steps between checkpoints; 0: only at the end
	Keep          int `json:"keep"`           // checkpoints that are kept; below 0: all
	EvaluateEvery int `json:"evaluate_every"` // steps between evaluations; 0: only at the end
	HeldOutBytes  int `json:"held_out_bytes"` // of an evaluation during training; 0: all
	SampleLength  int `json:"sample_length"`  // bytes that are generated at each evaluation of LM; 0: none
	SamplePrompt  int `json:"sample_prompt"`  // bytes before them
	RoutingLength int `json:"routing_length"` // bytes whose routing is recorded at each evaluation
}

// Default returns a configuration for a small machine.
func Default(task Task) Config {
	c := Config{
		Task: task, Batch: 8, Length: 512, Routing: "learned",
		Optimizer: Optimizer{Rate: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Clip: 1, Schedule: "cosine", WarmUp: 50},
		Data:      Data{HeldOut: 20},
		Run: &Run{Steps: 1000, MicroBatches: 1, SaveEvery: 200, Keep: 3, EvaluateEvery: 100, HeldOutBytes: 1 << 16,
			SampleLength: 200, SamplePrompt: 64, RoutingLength: 512},
	}
	switch task {
	case LM:
		t := colt5.Default[colt5.AutoregressiveTransformerConfig]()
		t.Dim, t.Depth, t.LightHeads, t.HeavyHeads, t.LightDimHead, t.HeavyDimHead = 128, 2, 4, 4, 32, 32
		t.LightWindowSize, t.NumHeavyTokensQ, t.NumHeavyTokensKV, t.NumRoutedKV = 64, 16, 128, 2
		t.LightRotaryEmb, t.CausalQueryRouting, t.Router.ScaleRoutingTokens = true, true, true
		c.Transformer, c.Data.HeldOutBy = &t, "file"
	case Classifier:
		e := colt5.Default[colt5.EncoderConfig]()
		e.NumTokens = 256
		e.Dim, e.Depth, e.LightHeads, e.HeavyHeads, e.LightDimHead, e.HeavyDimHead = 128, 2, 4, 4, 32, 32
		e.LightWindowSize, e.NumHeavyAttnTokensQ, e.NumHeavyAttnTokensKV, e.NumHeavyFFTokens, e.NumRoutedKV = 64, 32, 128, 64, 2
		e.Router.ScaleRoutingTokens, e.RotaryEmb = true, true
		c.Encoder, c.Data.TextField, c.Data.LabelField = &e, "text", "label"
	}
	return c
}

// Read reads a configuration of a task. Absent keys have their defaults; an unknown key is an error.
func Read(task Task, data []byte) (Config, error) {
	c := Default(task)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	if _, err := d.Token(); err != io.EOF {
		return c, fmt.Errorf("there is something after the configuration, want one JSON object")
	}
	if c.Task != task {
		return c, fmt.Errorf("task is %q, want %q", c.Task, task)
	}
	if err := readModule(data, &c); err != nil {
		return c, err
	}
	return c, c.Check()
}

// readModule reads the configuration of the module again: absent keys have the defaults of the task, where package colt5 has just
// set its own.
func readModule(data []byte, c *Config) error {
	var given struct{ Transformer, Encoder json.RawMessage }
	if err := json.Unmarshal(data, &given); err != nil {
		return err
	}
	module, value, defaults := any(c.Transformer), given.Transformer, any(Default(c.Task).Transformer)
	if c.Task == Classifier {
		module, value, defaults = c.Encoder, given.Encoder, Default(c.Task).Encoder
	}
	base, err := json.Marshal(defaults)
	if err == nil {
		value, err = overlay(base, value)
	}
	if err != nil || string(value) == "null" {
		return err // of null, Check has an error
	}
	return json.Unmarshal(value, module)
}

// overlay returns the JSON object base with the values of another one, which may be absent, object by object. Other values than
// objects replace those of base.
func overlay(base, top json.RawMessage) (json.RawMessage, error) {
	var all, changes map[string]json.RawMessage
	if len(top) == 0 {
		return base, nil
	}
	if json.Unmarshal(base, &all) != nil || json.Unmarshal(top, &changes) != nil || all == nil || changes == nil {
		return top, nil
	}
	for key, value := range changes {
		if old, ok := all[key]; ok {
			var err error
			if value, err = overlay(old, value); err != nil {
				return nil, err
			}
		}
		all[key] = value
	}
	return json.Marshal(all)
}

// ReadIdentity reads what Identity returned, of any task.
func ReadIdentity(data []byte) (Config, error) {
	var of struct {
		Task Task `json:"task"`
	}
	if err := json.Unmarshal(data, &of); err != nil {
		return Config{}, err
	}
	if of.Task != LM && of.Task != Classifier {
		return Config{}, fmt.Errorf("task is %q, want %q or %q", of.Task, LM, Classifier)
	}
	return Read(of.Task, data)
}

// Identity is the configuration without Run: what a run that continues another must not change.
func (c Config) Identity() Config {
	c.Run = nil
	if c.Optimizer.Schedule != "cosine" {
		c.Optimizer.Total = 0
	}
	return c
}

// Check checks what the packages that get the values do not, and the values whose flags need good messages.
func (c Config) Check() error {
	switch {
	case c.Run == nil:
		return fmt.Errorf("run is null, want an object")
	case c.Task == LM && (c.Transformer == nil || c.Encoder != nil):
		return fmt.Errorf("the task %s needs a transformer, and no encoder", LM)
	case c.Task == Classifier && (c.Encoder == nil || c.Transformer != nil):
		return fmt.Errorf("the task %s needs an encoder, and no transformer", Classifier)
	case c.Task == LM && c.Transformer.NumTokens != 256:
		return fmt.Errorf("transformer.num_tokens is %d, want 256: tokens are bytes", c.Transformer.NumTokens)
	case c.Task == Classifier && c.Encoder.NumTokens != 256:
		return fmt.Errorf("encoder.num_tokens is %d, want 256: tokens are bytes", c.Encoder.NumTokens)
	case c.Data.HeldOutBy != "" && c.Data.HeldOutBy != "file" && c.Data.HeldOutBy != "folder":
		return fmt.Errorf("held_out_by is %q, want file or folder", c.Data.HeldOutBy)
	}
	if !slices.Contains(Routings, c.Routing) {
		return fmt.Errorf("routing is %q, want %s", c.Routing, routingNames)
	}
	if c.Routing == "static" && c.Task == Classifier {
		return fmt.Errorf("routing is static, want learned or random: documents have masks")
	}
	if _, ok := Schedules[string(c.Optimizer.Schedule)]; !ok {
		return fmt.Errorf("schedule is %q, want %s", c.Optimizer.Schedule, scheduleNames)
	}
	for _, n := range []struct {
		name         string
		value, least int
	}{
		{"batch", c.Batch, 1}, {"length", c.Length, 2}, {"steps", c.Run.Steps, 1}, {"micro_batches", c.Run.MicroBatches, 1},
		{"save_every", c.Run.SaveEvery, 0}, {"evaluate_every", c.Run.EvaluateEvery, 0}, {"held_out_bytes", c.Run.HeldOutBytes, 0},
		{"sample_length", c.Run.SampleLength, 0}, {"sample_prompt", c.Run.SamplePrompt, 1}, {"routing_length", c.Run.RoutingLength, 0},
		{"recompute", c.Run.Recompute, -1}, {"warm_up", c.Optimizer.WarmUp, 0}, {"total", c.Optimizer.Total, 0},
	} {
		if n.value < n.least || n.value > math.MaxInt32 {
			return fmt.Errorf("%s is %d, want %d to %d", n.name, n.value, n.least, math.MaxInt32)
		}
	}
	if c.Batch%c.Run.MicroBatches != 0 {
		return fmt.Errorf("batch is %d, want a multiple of micro_batches, %d", c.Batch, c.Run.MicroBatches)
	}
	for _, x := range []struct {
		name  string
		ok    bool
		value float64
		want  string
	}{
		{"rate", c.Optimizer.Rate > 0, c.Optimizer.Rate, "above 0"}, {"eps", c.Optimizer.Eps > 0, c.Optimizer.Eps, "above 0"},
		{"beta1", c.Optimizer.Beta1 >= 0 && c.Optimizer.Beta1 < 1, c.Optimizer.Beta1, "0 or more, and less than 1"},
		{"beta2", c.Optimizer.Beta2 >= 0 && c.Optimizer.Beta2 < 1, c.Optimizer.Beta2, "0 or more, and less than 1"},
		{"decay", c.Optimizer.Decay >= 0, c.Optimizer.Decay, "at least 0"}, {"clip", c.Optimizer.Clip >= 0, c.Optimizer.Clip, "at least 0"},
		{"floor", c.Optimizer.Floor >= 0, c.Optimizer.Floor, "at least 0"},
	} {
		if !x.ok { // also of a NaN
			return fmt.Errorf("%s is %v, want %s", x.name, x.value, x.want)
		}
	}
	total := c.Optimizer.Total
	if total == 0 {
		total = c.Run.Steps
	}
	if c.Optimizer.Schedule == "cosine" && c.Optimizer.WarmUp > total {
		return fmt.Errorf("warm_up is %d, want at most the steps of the schedule, %d", c.Optimizer.WarmUp, total)
	}
	return c.Data.checkPatterns()
}

// Complete sets what depends on other values.
func (c *Config) Complete() {
	if c.Optimizer.Schedule == "cosine" && c.Optimizer.Total == 0 {
		c.Optimizer.Total = c.Run.Steps
	}
}

// Precision is that of the matrix products.
func (c Config) Precision() colt5.DType {
	if c.Task == LM {
		return c.Transformer.Precision
	}
	return c.Encoder.Precision
}

// OptimizerConfig is the configuration of package train.
func (c Config) OptimizerConfig() train.OptimizerConfig {
	o := c.Optimizer
	none := func(x float64) float64 { // 0 is the default there
		if x == 0 {
			return -1
		}
		return x
	}
	return train.OptimizerConfig{
		AdamW:        train.AdamW{Rate: o.Rate, Beta1: none(o.Beta1), Beta2: none(o.Beta2), Eps: o.Eps, Decay: none(o.Decay)},
		Schedule:     train.Schedule{Kind: Schedules[string(o.Schedule)], WarmUp: o.WarmUp, Total: o.Total, Floor: o.Floor},
		Clip:         o.Clip,
		LossScale:    train.LossScale{Dynamic: c.Precision() == colt5.F16},
		MicroBatches: c.Run.MicroBatches, DropoutSeed: c.Seed, Recompute: c.Run.Recompute,
	}
}

// ParseTask reads the name of a task.
func ParseTask(name string) (Task, error) {
	var names []string
	for _, t := range Tasks {
		if string(t) == name {
			return t, nil
		}
		names = append(names, string(t))
	}
	return "", fmt.Errorf("%q is no task, want %s", name, strings.Join(names, " or "))
}

// ScheduleNames are the names of schedules, in order.
func ScheduleNames() []string { return slices.Sorted(maps.Keys(Schedules)) }
