// Package report holds the commands that write files for people: report measures a device and writes a page, plot draws
// rows of earlier runs.
package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/figures"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const reportDescription = `Measures the peaks (as peak does), the modules (as bench does) and how time grows with sequence length: a
transformer block of 1,024 to 1,048,576 tokens, and the attention of all tokens to all, up to the length where
a run would take seconds. Writes report.html, one page that needs no other file, its plots as SVG and PNG, and
bench.jsonl, the rows: a -baseline of later runs. Precisions that the device does not support are left out,
and the report says so. On a CPU driver sizes are small, unless -full is given, and there is no roofline,
because its rates are no peaks. With -only other modules, or kernels, are measured; the lengths are as -lengths
says. If it is interrupted, the rows so far are in interrupted.jsonl.`

// Command measures a device and writes a page.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "measure peaks, modules and growing lengths, and write a page with tables and plots", Description: reportDescription,
		DisableSliceFlagSeparator: true, // sizes have commas
		ShellComplete:             command.Complete(cases.Completions()),
		Flags: []cli.Flag{
			command.DeviceFlag(), outFlag(), cases.NamesFlag(), cases.SizeFlag(), command.PrecisionFlag("f32,f16,bf16"), measure.RepsFlag(),
			measure.WarmupFlag(), measure.FullFlag(),
			&cli.StringFlag{Name: "lengths", Usage: "these `LENGTHS`, ascending, such as 1024,4096, or none (default: all powers of 2 from 1,024 to 1,048,576, on a CPU driver from 128 to 2,048)"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseOptions(c)
			if err != nil {
				return err
			}
			return env.WithDevice(c, func(dev *vk.Device) error {
				r, err := newReport(c, o, dev)
				if err != nil {
					return err
				}
				failed := r.measure(ctx, env)
				if command.Interrupted(ctx) != nil {
					return errors.Join(failed, r.writeInterrupted(env, o.dir))
				}
				return errors.Join(failed, r.write(env, o.dir, failed))
			})
		},
	}
}

// options holds the flags.
type options struct {
	cases      []cases.Case
	precisions []pipelines.DType
	lengths    []int // nil: default
	dir        string
}

func parseOptions(c *cli.Command) (options, error) {
	o := options{cases: cases.Modules(), dir: c.String("out")}
	if err := errors.Join(command.NoArgs(c), measure.CheckPaceFlags(c)); err != nil {
		return o, err
	}
	only := cases.SelectedNames(c)
	if len(only) > 0 {
		o.cases = cases.All()
	}
	var err error
	if o.cases, err = cases.Select(o.cases, only, c.StringSlice("size")); err != nil {
		return o, err
	}
	if o.precisions, err = command.ParsePrecisions(c.String("precision")); err != nil {
		return o, err
	}
	if o.lengths, err = parseLengths(c.String("lengths")); err != nil {
		return o, err
	}
	return o, command.CheckOutDir(o.dir)
}

// parseLengths reads ascending numbers of tokens. nil is the default.
func parseLengths(text string) ([]int, error) {
	if text == "none" {
		return []int{}, nil
	}
	var lengths []int
	for _, part := range command.SplitList(text) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > 1<<30 || len(lengths) > 0 && n <= lengths[len(lengths)-1] {
			return nil, command.Usagef("-lengths is %q, want ascending numbers from 1 to %d, such as 1024,4096, or none", text, 1<<30)
		}
		lengths = append(lengths, n)
	}
	return lengths, nil
}

// commandLine returns the command line, without the directory of the results.
func commandLine(c *cli.Command) string {
	words := []string{"vkbench", c.Name}
	for _, name := range []string{"device", "only", "size", "precision", "reps", "warmup", "full", "lengths"} {
		if !c.IsSet(name) {
			continue
		}
		switch v := c.Value(name).(type) {
		case []string:
			for _, x := range v {
				words = append(words, "-"+name, quoted(x))
			}
		case bool:
			words = append(words, fmt.Sprintf("-%s=%t", name, v))
		default:
			words = append(words, "-"+name, quoted(fmt.Sprint(v)))
		}
	}
	return strings.Join(append(words, "-out", "DIR"), " ")
}

// quoted quotes a word for a shell where necessary.
func quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,=._:/-") == "" && word != "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// report is a report that is being measured.
type report struct {
	runner     *measure.Runner
	precisions []pipelines.DType // supported ones
	cases      []cases.SizedCase // without peaks and sweep
	sweep      measure.Sweep
	command    string
	rows       bytes.Buffer // in the format jsonl
	remarks    []string
}

func newReport(c *cli.Command, o options, dev *vk.Device) (*report, error) {
	caps := dev.Caps()
	small := caps.CPU && !c.Bool("full")
	r := &report{
		runner: measure.NewRunner(dev, measure.NewPace(caps.CPU, c.Int("reps"), c.Int("warmup"))), sweep: measure.NewSweep(small), command: commandLine(c),
	}
	if o.lengths != nil {
		r.sweep.Lengths = o.lengths
	}
	r.precisions, _ = command.SupportedPrecisions(caps, o.precisions)
	r.cases, r.remarks = cases.Expand(o.cases, small, caps, o.precisions)
	return r, cases.CheckNotEmpty(r.cases, r.remarks)
}

// measure measures everything, and continues after failures.
func (r *report) measure(ctx context.Context, env *command.Env) error {
	peaks, remarks := cases.AllPeaks(r.runner.Info.Caps)
	r.remarks = slices.Concat(r.runner.Remarks(), remarks, r.remarks)
	for _, remark := range r.remarks {
		fmt.Fprintln(env.Stderr, remark)
	}
	bar := env.Progress(len(peaks) + len(r.cases) + r.sweep.Steps(r.precisions))
	defer bar.Finish()
	remark := func(text string) {
		bar.Clear()
		r.remarks = append(r.remarks, text)
		fmt.Fprintln(env.Stderr, text)
	}
	r.runner.Table = table.New(&r.rows, env.Stderr, "jsonl", r.runner.Columns(nil)...)
	r.runner.Table.BeforeWrite = bar.Clear
	failed := r.runner.RunAll(ctx, bar, append(peaks, r.cases...))
	if command.Interrupted(ctx) == nil {
		failed = errors.Join(failed, r.sweep.Run(ctx, r.runner, bar, r.precisions, remark))
	}
	return errors.Join(failed, r.runner.Table.Close())
}

// writeInterrupted writes the rows so far. An earlier report is left unchanged.
func (r *report) writeInterrupted(env *command.Env, dir string) error {
	if r.rows.Len() == 0 {
		return nil
	}
	return env.WriteFile(dir, "interrupted.jsonl", r.rows.Bytes())
}

// write writes all files of the report. Rows that cannot be written to a file are printed, because they took long.
func (r *report) write(env *command.Env, dir string, failed error) error {
	rows, err := results.Parse(r.rows.Bytes())
	if err != nil {
		return fmt.Errorf("line %w", err)
	}
	if err := env.WriteFile(dir, "bench.jsonl", r.rows.Bytes()); err != nil {
		_, printErr := env.Stdout.Write(r.rows.Bytes())
		return errors.Join(err, printErr)
	}
	plots, err := writeFigures(env, dir, r.runner.Info.Name, figures.All(results.Latest(rows)))
	if err != nil {
		return err
	}
	if old := staleFiles(dir, plots); len(old) > 0 {
		fmt.Fprintf(env.Stderr, "Left from an earlier report: %s.\n", strings.Join(old, ", "))
	}
	p := newPage(r.runner.Info, r.command, time.Now(), r.remarks, rows, plots)
	if failed != nil {
		p.Failed = strings.Split(failed.Error(), "\n")
	}
	var out bytes.Buffer
	if err := p.write(&out); err != nil {
		return err
	}
	return env.WriteFile(dir, "report.html", out.Bytes())
}
