// Package verify holds the command that compares the modules with golden cases.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/scope"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/table"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `Each case runs twice on the same objects, and once more for its routing records, which must give the same
bits. The bounds are those of the README of the golden cases. -digests writes a line "CASE OUTPUT SHA256" for
each output tensor: the hash of its raw little-endian bytes in the first run, in the order of the cases. Equal
files mean equal bits, of two commits or of two drivers.`

// Command runs golden cases.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "run golden cases, and compare with their results", ArgsUsage: "DIR|FILE...", Description: description,
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(), &cli.StringSliceFlag{Name: "module", Usage: "only cases of these `MODULES`"},
			&cli.StringFlag{Name: "precision", Value: "f32", Usage: "`PRECISION` of matrix products: f32, or f16 or bf16 for the modules that have products"},
			&cli.StringFlag{Name: "digests", Usage: "also write the SHA-256 hash of every output tensor to `FILE`"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseOptions(c)
			if err != nil {
				return err
			}
			t, err := env.Table(c, table.Text("case", "case", nameWidth(o.paths)),
				table.Text("module", "module", len("ConditionalRoutedAutoregressiveAttention")),
				table.Text("result", "result", 6), table.Text("worst", "worst", 32),
				table.Number("error", "error", 8), table.Number("bound", "bound", 6), table.Text("remark", "remark", 0))
			if err != nil {
				return err
			}
			bar := env.Progress(len(o.paths))
			defer bar.Finish()
			t.BeforeWrite = bar.Clear
			return env.WithDevice(c, func(dev *vk.Device) error {
				if err := o.precision.Supported(dev.Caps()); err != nil {
					return err
				}
				v := verification{dev: dev, table: t, only: o.modules, precision: o.precision, modules: modules(), unknown: map[string]int{}}
				for _, path := range o.paths {
					bar.Describe(caseName(path))
					if err := v.run(ctx, path); err != nil {
						return err
					}
					bar.Step()
				}
				return errors.Join(v.finish(), v.writeDigests(o.digests))
			})
		},
	}
}

// options holds the arguments and flags.
type options struct {
	paths     []string // of cases
	modules   []string // none: all
	precision colt5.DType
	digests   string // path; "": none
}

func parseOptions(c *cli.Command) (options, error) {
	o := options{modules: c.StringSlice("module"), digests: c.String("digests")}
	if !c.Args().Present() {
		return o, command.Usagef("verify needs a folder of golden cases, or files, such as testdata/golden")
	}
	var err error
	if o.precision, err = command.ParsePrecision(c.String("precision")); err != nil {
		return o, err
	}
	if o.paths, err = golden.Cases(c.Args().Slice()...); err != nil {
		return o, command.AsUsage(err)
	}
	if o.digests == "" {
		return o, nil
	}
	return o, command.CheckOutFile("digests", o.digests, o.paths)
}

// nameWidth is the length of the longest case name.
func nameWidth(paths []string) int {
	width := 0
	for _, p := range paths {
		width = max(width, len(caseName(p)))
	}
	return width
}

// caseName is a file's name without directory and extension.
func caseName(path string) string {
	name := path[strings.LastIndexAny(path, `/\`)+1:]
	return strings.TrimSuffix(name, ".safetensors")
}

// verification runs cases and counts the results.
type verification struct {
	dev       *vk.Device
	table     *table.Table
	only      []string // modules; none: all
	precision colt5.DType
	modules   map[string]setupFunc
	passed    int
	failed    int
	unknown   map[string]int // cases by module
	digests   strings.Builder
}

// run runs the case at path and writes its row. Only interruption is an error.
func (v *verification) run(ctx context.Context, path string) error {
	if err := command.Interrupted(ctx); err != nil {
		return err
	}
	c, err := golden.Load(path)
	if err != nil {
		v.reject(caseName(path), nil, err)
		return nil
	}
	if len(v.only) > 0 && !slices.Contains(v.only, c.Module) {
		return nil
	}
	setup, known := v.modules[c.Module]
	if !known {
		v.unknown[c.Module]++
		v.table.Row(c.Name, c.Module, "unknown", nil, nil, nil, "there is no such module")
		return nil
	}
	if v.precision != colt5.F32 {
		if !hasProducts(c.Module) {
			return nil
		}
		if err := c.SetPrecision(v.precision.String()); err != nil {
			v.reject(c.Name, c.Module, err)
			return nil
		}
	}
	found := &comparison{}
	var first values
	err = scope.Run(ctx, v.dev, func(s *scope.Scope) (err error) {
		first, err = check(s, c, setup, found)
		return err
	})
	if err := command.InterruptedBy(ctx, err); errors.Is(err, command.ErrInterrupted) {
		return err
	}
	if err != nil {
		found.problem("%v", err)
	}
	first.writeDigests(&v.digests, c.Name)
	w := found.worst
	if found.problems != nil {
		v.failed++
		v.table.Row(c.Name, c.Module, "FAILED", w.name, w.err, w.bound, strings.Join(found.problems, "; "))
		return nil
	}
	v.passed++
	v.table.Row(c.Name, c.Module, "passed", w.name, w.err, w.bound, nil)
	return nil
}

// reject writes the row of a case that cannot run. module is nil if it is not known.
func (v *verification) reject(name string, module any, err error) {
	v.failed++
	v.table.Row(name, module, "FAILED", nil, nil, nil, err.Error())
}

// hasProducts reports whether a module multiplies matrices: modules with layers do, routers alone do not.
func hasProducts(module string) bool {
	return strings.HasPrefix(module, "Conditional")
}

// finish writes the totals.
func (v *verification) finish() error {
	sum := fmt.Sprintf("%d passed, %d failed", v.passed, v.failed)
	var unknown error
	if len(v.unknown) > 0 {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v.unknown)) {
			parts = append(parts, fmt.Sprintf("%s %d", name, v.unknown[name]))
		}
		list := strings.Join(parts, ", ")
		sum += ", of unknown modules: " + list
		unknown = fmt.Errorf("there are cases of unknown modules, which did not run: %s", list)
	}
	err := errors.Join(v.table.Close(), unknown)
	v.table.Remark("%s on %s", sum, v.dev.Info().Name)
	switch {
	case v.failed > 0:
		return errors.Join(err, fmt.Errorf("%d of %d cases failed", v.failed, v.passed+v.failed))
	case v.passed == 0 && unknown == nil && len(v.only) > 0:
		return errors.Join(err, fmt.Errorf("no case of %s ran", strings.Join(v.only, ", ")))
	case v.passed == 0 && unknown == nil:
		return errors.Join(err, errors.New("no case ran"))
	}
	return err
}

// writeDigests writes the digests of all cases that ran, unless path is "".
func (v *verification) writeDigests(path string) error {
	if path == "" {
		return nil
	}
	return atomicfile.Write(path, []byte(v.digests.String()))
}
