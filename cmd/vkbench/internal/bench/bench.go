// Package bench holds the commands that time cases: bench for kernels and modules, peak for the device's peaks.
package bench

import (
	"context"
	"errors"
	"math"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const benchDescription = `A row is a kernel, under the name of its files, or a module, at one size, in one precision. Times are medians,
and 10th and 90th percentiles. GB/s and TFLOP/s count the minimum that has to be moved and computed. The peaks
are measured in the same run: a large copy, and a large float32 matrix product or, for 16-bit precisions,
products of cooperative matrices in registers; a row's share of the peak is the larger of its shares of the
two (the roofline ceiling). Nothing is timed before its results have been validated.

NAME_backward of a module is its forward and backward pass in a graph, with the gradients of its inputs and
parameters. train_step is a step of train.Trainer: an AutoregressiveTransformer of bytes forward and backward,
cross-entropy, clipping and AdamW; its GPU time is that of the graph and of the optimiser. -recompute is the
activation checkpointing of both.

Cases without 16-bit variants run in f32 whatever -precision says; what the device does not support is left
out, with a remark. With -baseline each row has the GPU time of the same name, shape and precision in an
earlier run (of several the last), and how many times faster this run is. With -fail-above, a row that took
longer by more percent is a failure, and the error lists all such rows; peaks do not count. block_length and
dense_attention are for growing sequence lengths: see report and plot. -list lists all cases and needs no
device.`

// Command times kernels and modules.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "time kernels and modules", Description: benchDescription,
		DisableSliceFlagSeparator: true, // sizes have commas
		ShellComplete:             command.Complete(cases.Completions()),
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(), cases.NamesFlag(), cases.SizeFlag(), command.PrecisionFlag("f32"),
			&cli.FloatFlag{Name: "fail-above", HideDefault: true, Usage: "exit with 1 if the GPU time of a row is more than `PERCENT` above that of -baseline"},
			&cli.StringFlag{Name: "baseline", Usage: "compare with the rows of `FILE`, an earlier output of bench -o jsonl (or json)"},
			measure.RepsFlag(), measure.WarmupFlag(), measure.FullFlag(),
			command.RecomputeFlag(),
			&cli.BoolFlag{Name: "list", Usage: "instead: list the cases, with the meaning and the default of every number of a size"},
			&cli.BoolFlag{Name: "steps", Usage: "instead: the GPU time of every step; steps then run one after the other"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			b, err := newBenchmark(c)
			if err != nil {
				return err
			}
			if c.Bool("list") {
				return writeList(env, c, b.cases)
			}
			return env.WithDevice(c, func(dev *vk.Device) error { return b.run(ctx, env, c, dev) })
		},
	}
}

// benchmark holds the flags of bench.
type benchmark struct {
	cases      []cases.Case
	precisions []pipelines.DType
	baseline   *measure.Baseline
	failAbove  float64 // percent; infinite: slower rows are no failure
	steps      bool
	recompute  int
}

func newBenchmark(c *cli.Command) (b benchmark, err error) {
	if err := command.NoArgs(c); err != nil {
		return b, err
	}
	if b.cases, err = cases.Select(cases.All(), cases.SelectedNames(c), c.StringSlice("size")); err != nil {
		return b, err
	}
	if b.precisions, err = command.ParsePrecisions(c.String("precision")); err != nil {
		return b, err
	}
	if b.recompute, err = command.Recompute(c); err != nil {
		return b, err
	}
	b.steps, b.failAbove = c.Bool("steps"), math.Inf(1)
	if c.IsSet("fail-above") {
		if b.failAbove = c.Float("fail-above"); !(b.failAbove >= 0 && b.failAbove < math.Inf(1)) {
			return b, command.Usagef("-fail-above is %v, want a number of percent, at least 0", b.failAbove)
		}
		if !c.IsSet("baseline") {
			return b, command.Usagef("-fail-above needs a -baseline")
		}
	}
	if path := c.String("baseline"); path != "" {
		if b.steps {
			return b, command.Usagef("-baseline and -steps do not go together")
		}
		if b.baseline, err = measure.ReadBaseline(path); err != nil {
			return b, err
		}
	}
	return b, measure.CheckPaceFlags(c)
}

// run times the cases on a device.
func (b benchmark) run(ctx context.Context, env *command.Env, c *cli.Command, dev *vk.Device) error {
	caps := dev.Caps()
	list, remarks := cases.Expand(b.cases, caps.CPU && !c.Bool("full"), caps, b.precisions)
	if err := cases.CheckNotEmpty(list, remarks); err != nil {
		return err
	}
	r := measure.NewRunner(dev, measure.NewPace(caps.CPU, c.Int("reps"), c.Int("warmup")))
	r.Steps, r.Baseline, r.Recompute = b.steps, b.baseline, b.recompute
	if !r.Steps {
		list = append(cases.Peaks(caps, b.precisions), list...)
	}
	err := runTable(ctx, env, c, r, list, remarks)
	if !math.IsInf(b.failAbove, 0) && command.Interrupted(ctx) == nil {
		err = errors.Join(err, b.baseline.Check(b.failAbove))
	}
	return err
}

// runTable times cases and writes a table to stdout.
func runTable(ctx context.Context, env *command.Env, c *cli.Command, r *measure.Runner, list []cases.SizedCase, remarks []string) (err error) {
	if r.Table, err = env.Table(c, r.Columns(list)...); err != nil {
		return err
	}
	bar := env.Progress(len(list))
	defer bar.Finish()
	r.Table.BeforeWrite = bar.Clear
	for _, text := range append(r.Remarks(), remarks...) {
		r.Table.Remark("%s", text)
	}
	failed := r.RunAll(ctx, bar, list)
	err = r.Table.Close()
	if missing := r.Baseline.Missing(); missing != "" && ctx.Err() == nil {
		r.Table.Remark("%s", missing)
	}
	return errors.Join(failed, err)
}
