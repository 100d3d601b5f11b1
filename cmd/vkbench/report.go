package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const reportDescription = `Measures the roofs (as peak does), the modules (as bench does) and how time grows with the length of a sequence: a transformer block of
1,024 to 1,048,576 tokens, and the attention of all tokens to all, up to the length where a run would take seconds. Writes report.html,
one page that needs no other file, its plots as SVG and PNG, and bench.jsonl, the rows: a -baseline of later runs. Precisions that the
device lacks are left out, and the report says so. On a driver that runs on the processor sizes are small, unless -full. With -only other
modules, or kernels, are measured; the lengths are as -lengths says. If it is interrupted, the rows so far are in interrupted.jsonl.`

//go:embed report.html
var reportTemplate string

// report measures a device and writes a page.
func (a *app) report() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "measure roofs, modules and growing lengths, and write a page with tables and plots", Description: reportDescription,
		DisableSliceFlagSeparator: true, // sizes have commas
		Flags: []cli.Flag{
			deviceFlag(), outFlag(), onlyFlag(), sizeFlag(), precisionFlag("f32,f16,bf16"), repsFlag(), warmupFlag(), fullFlag(),
			&cli.StringFlag{Name: "lengths", Usage: "these `LENGTHS`, rising, such as 1024,4096, or none (default: all powers of 2 from 1,024 to 1,048,576, on a CPU driver from 128 to 2,048)"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := errors.Join(noArgs(c), checkOnly(c), checkPace(c)); err != nil {
				return err
			}
			cases := moduleCases()
			if len(onlyOf(c)) > 0 {
				cases = benchCases()
			}
			cases, err := chooseCases(cases, onlyOf(c), c.StringSlice("size"))
			if err != nil {
				return err
			}
			precisions, err := parsePrecisions(c.String("precision"))
			if err != nil {
				return err
			}
			lengths, err := parseLengths(c.String("lengths"))
			if err != nil {
				return err
			}
			if err := outFolder(c.String("out")); err != nil {
				return err
			}
			return a.withDevice(c, func(dev *vk.Device) error {
				b := newBenchmark(ctx, dev, newPace(dev.Caps().CPU, c.Int("reps"), c.Int("warmup")))
				small := b.info.Caps.CPU && !c.Bool("full")
				s := newSweep(small)
				if lengths != nil {
					s.lengths = lengths
				}
				r := reporting{b: b, sweep: s, command: commandLine(c)}
				r.todo, r.remarks = work(cases, small, dev.Caps(), precisions)
				if err := nothing(r.todo, r.remarks); err != nil {
					return err
				}
				failed := r.measure(a, precisions)
				if interrupted(ctx) != nil {
					return errors.Join(failed, r.keep(a, c.String("out")))
				}
				return errors.Join(failed, r.write(a, c.String("out"), failed))
			})
		},
	}
}

// parseLengths reads rising numbers of tokens; nil is the default.
func parseLengths(text string) ([]int, error) {
	if text == "none" {
		return []int{}, nil
	}
	var lengths []int
	for _, part := range list(text) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > 1<<30 || len(lengths) > 0 && n <= lengths[len(lengths)-1] {
			return nil, usage("-lengths is %q, want rising numbers from 1 to %d, such as 1024,4096, or none", text, 1<<30)
		}
		lengths = append(lengths, n)
	}
	return lengths, nil
}

// commandLine is how the program was called, without where the results went.
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

// quoted is a word for a shell.
func quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,=._:/-") == "" && word != "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// reporting is a report in the making.
type reporting struct {
	b       *benchmark
	todo    []sized // before the sweep
	sweep   sweep
	command string
	rows    bytes.Buffer // JSON, an object a line
	remarks []string
}

// measure runs everything, and goes on after failures.
func (r *reporting) measure(a *app, asked []pipelines.DType) error {
	caps := r.b.info.Caps
	roofs, remarks := allRoofs(caps)
	precisions, _ := supported(caps, asked)
	r.remarks = slices.Concat(r.b.remarks(), remarks, r.remarks)
	for _, remark := range r.remarks {
		fmt.Fprintln(a.stderr, remark)
	}
	bar := a.progress(len(roofs) + len(r.todo) + r.sweep.steps(precisions))
	defer bar.end()
	remark := func(text string) {
		bar.clear()
		r.remarks = append(r.remarks, text)
		fmt.Fprintln(a.stderr, text)
	}
	r.b.table = &table{out: &r.rows, remarks: a.stderr, format: "jsonl", columns: r.b.columns(nil), before: bar.clear}
	failed := r.b.all(bar, append(roofs, r.todo...))
	if interrupted(r.b.ctx) == nil {
		failed = errors.Join(failed, r.sweep.run(r.b, bar, precisions, remark))
	}
	return errors.Join(failed, r.b.table.close())
}

// keep writes the rows that there were when the user stopped, and leaves an earlier report as it is.
func (r *reporting) keep(a *app, dir string) error {
	if r.rows.Len() == 0 {
		return nil
	}
	return a.writeNamed(dir, "interrupted.jsonl", r.rows.Bytes())
}

// write writes all files of a report.
func (r *reporting) write(a *app, dir string, failed error) error {
	rows, err := parseRows(r.rows.Bytes())
	if err != nil {
		return fmt.Errorf("line %w", err)
	}
	if err := a.writeNamed(dir, "bench.jsonl", r.rows.Bytes()); err != nil {
		_, printed := a.stdout.Write(r.rows.Bytes()) // they took long
		return errors.Join(err, printed)
	}
	plots, err := a.writeFigures(dir, figures(latest(rows), r.b.info.Name))
	if err != nil {
		return err
	}
	if old := stale(dir, plots); len(old) > 0 {
		fmt.Fprintf(a.stderr, "Of an earlier report, which this one does not replace: %s.\n", strings.Join(old, ", "))
	}
	page := newReportPage(r.b.info, r.command, time.Now(), r.remarks, rows, plots)
	if failed != nil {
		page.Failed = strings.Split(failed.Error(), "\n")
	}
	var out bytes.Buffer
	if err := page.write(&out); err != nil {
		return err
	}
	return a.writeNamed(dir, "report.html", out.Bytes())
}

// reportPage is what report.html shows.
type reportPage struct {
	Device, Date, Command string
	CPU                   bool
	Remarks, Failed       []string
	Properties            [][2]string
	Tables                []reportTable
	Plots                 []drawn
}

// reportTable is a table of rows.
type reportTable struct {
	ID, Title, Note string
	Columns         []string
	Words           int // columns of text, which come first
	Rows            [][]string
}

func newReportPage(i vk.Info, command string, now time.Time, remarks []string, rows []benchRow, plots []drawn) reportPage {
	p := reportPage{
		Device: i.Name, Date: now.Format("2006-01-02"), Command: command, CPU: i.Caps.CPU, Plots: plots,
		Remarks: slices.DeleteFunc(slices.Clone(remarks), func(s string) bool { return s == noGPUFigures }),
	}
	for _, x := range properties(i) {
		p.Properties = append(p.Properties, [2]string{x.name, markdown(x.value)})
	}
	p.Tables = reportTables(rows)
	return p
}

func (p reportPage) write(w *bytes.Buffer) error {
	page, err := template.New("report").Parse(reportTemplate)
	if err != nil {
		return err
	}
	return page.Execute(w, p)
}
