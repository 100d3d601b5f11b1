package train

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/colt5-vulkan/colt5/internal/errtext"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/safetensors"
	"github.com/colt5-vulkan/colt5/vk"
)

// State is what an optimiser keeps from step to step beside parameters and moments.
type State struct {
	Steps     int     // steps so far
	Updates   int     // of them, those that were not skipped: t of AdamW and of the schedule
	LossScale float64 // of the next step
	GoodSteps int     // steps without overflow since the loss scale changed
}

// Record is what happened in one step.
type Record struct {
	Step      int     // from 0
	Updates   int     // of the parameters, after the step
	Skipped   bool    // the gradients overflowed, and the step changed nothing but the loss scale
	Loss      float64 // mean over the labels; 0 without labels
	Norm      float64 // of the gradients of that mean, before clipping
	Rate      float64 // learning rate
	LossScale float64
	Labels    float64
}

// State waits for the steps that were submitted, and returns the state after them.
func (o *Optimizer) State(ctx context.Context) (State, error) {
	s, err := o.readState(ctx)
	if err != nil {
		return State{}, fmt.Errorf("train: Optimizer.State: %w", err)
	}
	return s, nil
}

func (o *Optimizer) readState(ctx context.Context) (State, error) {
	w, err := o.stateWords(ctx)
	return State{int(w.Steps), int(w.Updates), float64(w.Scale), int(w.Good)}, err
}

func (o *Optimizer) stateWords(ctx context.Context) (w pipelines.OptimizerStateWords, err error) {
	data := make([]byte, pipelines.OptimizerStateBytes)
	if err := o.dev.Download(ctx, vk.Transfer{Range: o.state.Range(), Data: data}); err != nil {
		return w, err
	}
	_, err = binary.Decode(data, binary.LittleEndian, &w)
	return w, err
}

// setState sets the state for the next step.
func (o *Optimizer) setState(ctx context.Context, s State) error {
	w := pipelines.OptimizerStateWords{
		Steps: uint32(s.Steps), Updates: uint32(s.Updates), Scale: float32(s.LossScale), Good: uint32(s.GoodSteps),
	}
	return o.dev.Upload(ctx, vk.Transfer{Range: o.state.Range(), Data: vk.Scalars(&w)})
}

// Records waits for the steps that were submitted, and returns the records of those from step first on. The device
// keeps those of the last OptimizerConfig.Records steps; if first is an earlier one, the records start with the oldest
// that is kept. There are none of steps before the optimiser was made or loaded.
func (o *Optimizer) Records(ctx context.Context, first int) ([]Record, error) {
	const op = "train: Optimizer.Records"
	if first < 0 {
		return nil, fmt.Errorf("%s: first is %d, want at least 0", op, first)
	}
	w, err := o.stateWords(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	steps := int(w.Steps)
	first = max(first, o.firstRecord, steps-o.config.Records)
	if first >= steps {
		return nil, nil
	}
	data := make([]byte, o.records.Size())
	if err := o.dev.Download(ctx, vk.Transfer{Range: o.records.Range(), Data: data}); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	rows := make([]pipelines.OptimizerRecord, o.config.Records)
	if _, err := binary.Decode(data, binary.LittleEndian, rows); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	var list []Record
	for step := first; step < steps; step++ {
		r := rows[step%len(rows)]
		list = append(list, Record{
			Step: int(r.Step), Updates: int(r.Updates), Skipped: r.Skip != 0,
			Loss: float64(r.Loss), Norm: float64(r.Norm), Rate: float64(r.Rate), LossScale: float64(r.Scale), Labels: float64(r.Labels),
		})
	}
	return list, nil
}

// Names of the moments in a file: those of PyTorch's AdamW, before the name of the parameter.
const (
	firstMoment  = "exp_avg."
	secondMoment = "exp_avg_sq."
)

// Save waits for the steps that were submitted, and writes moments and state to a safetensors file, atomically. The
// moments of a parameter are exp_avg.NAME and exp_avg_sq.NAME; the state is in the metadata.
func (o *Optimizer) Save(ctx context.Context, path string) error {
	if err := o.save(ctx, path); err != nil {
		return fmt.Errorf("train: Optimizer.Save: %w", err)
	}
	return nil
}

func (o *Optimizer) save(ctx context.Context, path string) error {
	s, err := o.readState(ctx)
	if err != nil {
		return err
	}
	var list []safetensors.Tensor
	for i, p := range o.parameters {
		var shape []int64
		for _, d := range p.Shape {
			shape = append(shape, int64(d))
		}
		for prefix, r := range o.moments(i) {
			write := func(w io.Writer) error {
				data := make([]byte, r.Size())
				if err := o.dev.Download(ctx, vk.Transfer{Range: r, Data: data}); err != nil {
					return err
				}
				_, err := w.Write(data)
				return err
			}
			list = append(list, safetensors.Tensor{Name: prefix + p.Name, DType: safetensors.F32, Shape: shape, Data: write})
		}
	}
	return safetensors.Write(path, s.metadata(), list)
}

// moments returns the memory of the moments of parameter i, by the start of their names.
func (o *Optimizer) moments(i int) map[string]vk.Range {
	at, size := 4*uint64(o.offsets[i]), o.parameters[i].Data.Size()
	return map[string]vk.Range{firstMoment: o.m.Range().Slice(at, size), secondMoment: o.v.Range().Slice(at, size)}
}

func (s State) metadata() map[string]string {
	return map[string]string{
		"steps": strconv.Itoa(s.Steps), "updates": strconv.Itoa(s.Updates), "good_steps": strconv.Itoa(s.GoodSteps),
		"loss_scale": strconv.FormatFloat(s.LossScale, 'g', -1, 64),
	}
}

// stateOf reads the metadata of a file.
func stateOf(metadata map[string]string) (s State, err error) {
	count := func(key string) int {
		n, e := strconv.ParseUint(metadata[key], 10, 32)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("metadata %s is %s, want a number of steps", key, errtext.Quote(metadata[key])))
		}
		return int(n)
	}
	s = State{Steps: count("steps"), Updates: count("updates"), GoodSteps: count("good_steps")}
	scale, e := strconv.ParseFloat(metadata["loss_scale"], 64)
	if e != nil || !(scale >= smallestScale && scale <= largestScale) {
		err = errors.Join(err, fmt.Errorf("metadata loss_scale is %s, want %v to %v",
			errtext.Quote(metadata["loss_scale"]), smallestScale, largestScale))
	}
	s.LossScale = scale
	return s, err
}

// Load reads what Save wrote. The file must have exactly the moments of the optimiser's parameters. Names, shapes and
// state are checked before anything changes; if reading fails after that, moments and state are undefined until another
// Load succeeds.
func (o *Optimizer) Load(ctx context.Context, path string) error {
	if err := o.load(ctx, path); err != nil {
		return fmt.Errorf("train: Optimizer.Load: %w", err)
	}
	return nil
}

func (o *Optimizer) load(ctx context.Context, path string) error {
	file, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := stateOf(file.Metadata())
	if err == nil {
		err = o.checkTensors(file)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", errtext.Name(path), err)
	}
	for i, p := range o.parameters {
		for prefix, r := range o.moments(i) {
			data, err := file.ReadFloat32(prefix + p.Name)
			if err != nil {
				return err
			}
			if err := o.dev.Upload(ctx, vk.Transfer{Range: r, Data: vk.Bytes(data)}); err != nil {
				return err
			}
		}
	}
	if err := o.setState(ctx, s); err != nil {
		return err
	}
	o.firstRecord = s.Steps
	return nil
}

// checkTensors compares the tensors of a file with the moments of the parameters.
func (o *Optimizer) checkTensors(file *safetensors.File) error {
	want := map[string][]int{}
	for _, p := range o.parameters {
		want[firstMoment+p.Name], want[secondMoment+p.Name] = p.Shape, p.Shape
	}
	for _, name := range file.Names() {
		shape, ok := want[name]
		info, _ := file.Info(name)
		if !ok {
			return fmt.Errorf("%s is no moment of a parameter", errtext.Name(name))
		}
		same := slices.EqualFunc(info.Shape, shape, func(a int64, b int) bool { return a == int64(b) })
		if !same || info.DType != safetensors.F32 {
			return fmt.Errorf("%s is %s%s, want F32%v", errtext.Name(name), errtext.Name(string(info.DType)), errtext.Shape(info.Shape), shape)
		}
		delete(want, name)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		return fmt.Errorf("%s is missing, want F32%v", errtext.Name(name), want[name])
	}
	return nil
}
