package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const benchDescription = `A row is a room (a kernel under the name of its files) or a module at one size, in one precision. Times are medians, and 10th and 90th
percentiles. GB/s and TFLOP/s count what has to be moved and computed at least. The roof is measured in the same run: a large copy, and a
large float32 matrix product or, for precisions of 16 bits, products of cooperative matrices in registers; a row's share of it is the larger of
its shares of the two. Nothing is timed before its results looked sane.

Cases that have no 16-bit variants run in f32 whatever -precision says; what the device lacks is left out, with a remark. With -baseline rows
have the GPU time of the same name, shape and precision in an earlier run (of several the last), and how many times faster this run is.
block_length and dense_attention are for growing lengths: see report and plot.`

// bench times rooms and modules.
func (a *app) bench() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "time kernels and modules", Description: benchDescription,
		DisableSliceFlagSeparator: true, // sizes have commas
		Flags: []cli.Flag{
			deviceFlag(), outputFlag(), onlyFlag(), sizeFlag(), precisionFlag("f32"),
			&cli.StringFlag{Name: "baseline", Usage: "compare with the rows of `FILE`, what bench -o jsonl (or json) wrote earlier"},
			repsFlag(), warmupFlag(), fullFlag(),
			&cli.BoolFlag{Name: "steps", Usage: "instead: the GPU time of every step; steps run one after the other then"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := errors.Join(noArgs(c), checkOnly(c)); err != nil {
				return err
			}
			cases, err := chooseCases(benchCases(), onlyOf(c), c.StringSlice("size"))
			if err != nil {
				return err
			}
			precisions, err := parsePrecisions(c.String("precision"))
			if err != nil {
				return err
			}
			var base *baseline
			if path := c.String("baseline"); path != "" {
				if c.Bool("steps") {
					return usage("-baseline and -steps do not go together")
				}
				if base, err = readBaseline(path); err != nil {
					return err
				}
			}
			if err := checkPace(c); err != nil {
				return err
			}
			return a.withDevice(c, func(dev *vk.Device) error { return a.benchOn(ctx, c, dev, cases, precisions, base) })
		},
	}
}

// benchOn times cases on a device.
func (a *app) benchOn(ctx context.Context, c *cli.Command, dev *vk.Device, cases []benchCase, precisions []pipelines.DType, base *baseline) error {
	cpu := dev.Caps().CPU
	b := newBenchmark(ctx, dev, newPace(cpu, c.Int("reps"), c.Int("warmup")))
	b.steps, b.base = c.Bool("steps"), base
	todo, remarks := work(cases, cpu && !c.Bool("full"), dev.Caps(), precisions)
	if err := nothing(todo, remarks); err != nil {
		return err
	}
	if !b.steps {
		todo = append(roofs(dev.Caps(), precisions), todo...)
	}
	return a.runBench(c, b, todo, remarks)
}

// runBench runs cases, with a table on stdout.
func (a *app) runBench(c *cli.Command, b *benchmark, todo []sized, remarks []string) (err error) {
	if b.table, err = a.table(c, b.columns(todo)...); err != nil {
		return err
	}
	bar := a.progress(len(todo))
	defer bar.end()
	b.table.before = bar.clear
	for _, r := range append(b.remarks(), remarks...) {
		b.table.remark("%s", r)
	}
	failed := b.all(bar, todo)
	err = b.table.close()
	if rest := b.base.rest(); rest != "" && b.ctx.Err() == nil {
		b.table.remark("%s", rest)
	}
	return errors.Join(failed, err)
}

func onlyFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "only", Usage: "only these `NAMES`, of " + strings.Join(caseNames(benchCases()), ", ")}
}

// onlyOf are the names of -only, which may be given several times.
func onlyOf(c *cli.Command) []string { return list(strings.Join(c.StringSlice("only"), ",")) }

// checkOnly rejects names that are none, such as those of an unset variable.
func checkOnly(c *cli.Command) error {
	if c.IsSet("only") && len(onlyOf(c)) == 0 {
		return usage("-only names nothing, want some of %s", strings.Join(caseNames(benchCases()), ", "))
	}
	return nil
}

func sizeFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "size", Usage: "`[NAME=]AxB` instead of the sizes of a case; numbers may be lists, 2x8192,16384x512; again for more sizes"}
}

func precisionFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "precision", Value: value, Usage: "time in these `PRECISIONS`, of f32, f16, bf16"}
}

func fullFlag() cli.Flag {
	return &cli.BoolFlag{Name: "full", Usage: "the sizes of a GPU also on a CPU driver"}
}

func repsFlag() cli.Flag {
	return &cli.IntFlag{Name: "reps", HideDefault: true, Usage: "time `N` runs (default: as many as fit some time)"}
}

func warmupFlag() cli.Flag {
	return &cli.IntFlag{Name: "warmup", Value: -1, HideDefault: true, Usage: "`N` runs before (default: as many as fit some time)"}
}

// checkPace checks these two.
func checkPace(c *cli.Command) error {
	switch {
	case c.IsSet("reps") && c.Int("reps") < 1:
		return usage("-reps is %d, want at least 1", c.Int("reps"))
	case c.IsSet("warmup") && c.Int("warmup") < 0:
		return usage("-warmup is %d, want at least 0", c.Int("warmup"))
	}
	return nil
}

// benchCase is something to time: a room under its stem, or a module.
type benchCase struct {
	name  string
	dims  []string // names of the sizes
	sizes [][]int  // on a GPU
	small [][]int  // on a CPU driver
	setup func(*benchStage, []int) (*workload, error)
}

// sized is a case at one size, in one precision.
type sized struct {
	benchCase
	size      []int
	precision pipelines.DType

	matrix  vk.MatrixShape // of a roof of cooperative matrices
	operand string         // and the type of what they multiply
}

// format is what the column precision says.
func (s sized) format() string {
	if s.operand != "" {
		return s.operand
	}
	return precisionName(s.precision)
}

// title is for people.
func (s sized) title() string {
	return s.name + " " + s.shape() + " " + s.format()
}

func (s sized) shape() string {
	var parts []string
	for _, n := range s.size {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, "x")
}

func caseNames(cases []benchCase) []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// pace says how often something runs.
type pace struct {
	reps, most   int           // of timed runs: at least, at most
	budget       time.Duration // after which the timing ends
	warmup       int           // runs before
	warmupBudget time.Duration // 0: warmup runs exactly
}

// newPace is the pace of a device; reps of 0 and a negative warmup are not given.
func newPace(cpu bool, reps, warmup int) pace {
	p := pace{reps: 10, most: 200, budget: time.Second, warmup: 3, warmupBudget: 500 * time.Millisecond} // clocks need time to rise
	if cpu {
		p = pace{reps: 3, most: 50, budget: time.Second}
	}
	if reps > 0 {
		p.reps, p.most = reps, reps
	}
	if warmup >= 0 {
		p.warmup, p.warmupBudget = warmup, 0
	}
	return p
}
