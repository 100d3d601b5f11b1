// Package verify holds the command that compares the modules with golden cases.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `Without arguments the cases are those in the program, which are of all modules: no checkout is needed.

Each case runs twice on the same objects, and once more for its routing records, which must give the same
bits. Outputs are compared with the bounds in testdata/golden/README.md of the repository. -digests writes a
line "CASE OUTPUT SHA256" for each output tensor: the hash of its raw little-endian bytes in the first run, in
the order of the cases. Equal files mean equal bits, of two commits or of two drivers.

With -grad each case also runs backward, once with all activations kept and once with activation
checkpointing, which must give the same bits, and the gradients of all inputs and weights are compared. The
cases in the program have no gradients. With 16-bit operands a router behind a product may select other tokens
than the case, by rounding: the run with gradients then replays those of the case. A soft score that rounds to
1 passes no gradient; where the case has one a little below 1, gradients are not compared, which the remark
says.`

// Command runs golden cases.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "run golden cases, and compare with their results", ArgsUsage: "[DIR|FILE...]", Description: description,
		ShellComplete: command.Complete(map[string]command.Values{"only": names}),
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(),
			&cli.StringSliceFlag{Name: "only", Aliases: []string{"module"}, Usage: "only cases of these `MODULES`, of " + strings.Join(names(), ", ")},
			&cli.StringFlag{Name: "precision", Value: "f32", Usage: "`PRECISION` of matrix products: f32, or f16 or bf16 for the modules that have products"},
			&cli.BoolFlag{Name: "grad", Usage: "also run backward, and compare the gradients of inputs and weights"},
			&cli.StringFlag{Name: "digests", Usage: "also write the SHA-256 hash of every output tensor to `FILE`"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseOptions(c)
			if err != nil {
				return err
			}
			t, err := env.Table(c, table.Text("case", "case", nameWidth(o.cases)),
				table.Text("module", "module", len("coordinate_descent")), table.Hidden("class"),
				table.Text("result", "result", 6), table.Text("worst", "worst", 32),
				table.Number("error", "error", 8), table.Number("bound", "bound", 6), table.Number("output_difference", "output diff", 11), table.Text("remark", "remark", 0))
			if err != nil {
				return err
			}
			bar := env.Progress(len(o.cases))
			defer bar.Finish()
			t.BeforeWrite = bar.Clear
			return env.WithDevice(c, func(dev *vk.Device) error {
				if err := o.precision.Supported(dev.Caps()); err != nil {
					return err
				}
				v := verification{dev: dev, table: t, only: o.modules, precision: o.precision, gradients: o.gradients, moduleOf: moduleOf, unknown: map[string]int{}}
				if o.embedded {
					t.Remark("%s of the program; vkbench verify testdata/golden runs all of a checkout.", command.Count(len(o.cases), "golden case"))
				}
				for _, f := range o.cases {
					bar.Describe(f.name())
					if err := v.run(ctx, f); err != nil {
						return errors.Join(t.Close(), err)
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
	cases     []caseFile
	embedded  bool     // they are those of the program
	modules   []string // names; none: all
	precision colt5.DType
	gradients bool
	digests   string // path; "": none
}

func parseOptions(c *cli.Command) (options, error) {
	o := options{embedded: !c.Args().Present(), gradients: c.Bool("grad"), digests: c.String("digests")}
	for _, name := range c.StringSlice("only") {
		m, ok := moduleOf(name)
		if !ok {
			return o, command.Usagef("verify knows no module %q%s; want some of %s", name, suggest.Phrase(name, names()), strings.Join(names(), ", "))
		}
		o.modules = append(o.modules, m.name)
	}
	var err error
	if o.precision, err = command.ParsePrecision(c.String("precision")); err != nil {
		return o, err
	}
	paths := c.Args().Slice()
	if o.embedded {
		o.cases, err = embeddedCases()
	} else if paths, err = golden.Cases(paths...); err != nil {
		err = command.AsUsage(err)
	}
	if err != nil {
		return o, err
	}
	for _, path := range paths {
		o.cases = append(o.cases, caseFile{path: path})
	}
	if o.digests == "" {
		return o, nil
	}
	return o, command.CheckOutFile("digests", o.digests, paths)
}

// names returns the names of all modules.
func names() []string {
	var list []string
	for _, m := range modules() {
		list = append(list, m.name)
	}
	return list
}

// caseFile is the file of a golden case.
type caseFile struct {
	fsys fs.FS // nil: the path is one of the operating system
	path string
}

// embeddedCases returns the golden cases in the program.
func embeddedCases() ([]caseFile, error) {
	fsys, err := golden.Embedded()
	if err != nil {
		return nil, err
	}
	paths, err := fs.Glob(fsys, "*")
	var list []caseFile
	for _, path := range paths {
		list = append(list, caseFile{fsys, path})
	}
	return list, err
}

func (f caseFile) load() (*golden.Case, error) {
	if f.fsys != nil {
		return golden.LoadFS(f.fsys, f.path)
	}
	return golden.Load(f.path)
}

// name is the file's name without directory and extension.
func (f caseFile) name() string {
	name := f.path[strings.LastIndexAny(f.path, `/\`)+1:]
	return strings.TrimSuffix(name, ".safetensors")
}

// nameWidth is the length of the longest case name.
func nameWidth(cases []caseFile) int {
	width := 0
	for _, f := range cases {
		width = max(width, len(f.name()))
	}
	return width
}

// verification runs cases and counts the results.
type verification struct {
	dev       *vk.Device
	table     *table.Table
	only      []string // names of modules; none: all
	precision colt5.DType
	gradients bool
	moduleOf  func(class string) (module, bool)
	passed    int
	failed    int
	unknown   map[string]int // cases by class
	digests   strings.Builder
}

// run runs a case and writes its row. Only interruption is an error.
func (v *verification) run(ctx context.Context, f caseFile) error {
	if err := command.Interrupted(ctx); err != nil {
		return err
	}
	c, err := f.load()
	if err != nil {
		v.reject(f.name(), nil, nil, err)
		return nil
	}
	m, known := v.moduleOf(c.Module)
	if len(v.only) > 0 && !slices.Contains(v.only, m.name) {
		return nil
	}
	if !known {
		v.unknown[c.Module]++
		v.table.Row(c.Name, c.Module, c.Module, "unknown", nil, nil, nil, nil, "there is no such module")
		return nil
	}
	if v.precision != colt5.F32 {
		if !hasProducts(c.Module) {
			return nil
		}
		if err := c.SetPrecision(v.precision.String()); err != nil {
			v.reject(c.Name, m.name, c.Module, err)
			return nil
		}
	}
	found := &comparison{}
	var first values
	err = scope.Run(ctx, v.dev, func(s *scope.Scope) (err error) {
		first, err = check(s, c, m.setup, v.gradients, found)
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
		v.table.Row(c.Name, m.name, c.Module, "FAILED", w.name, w.err, w.bound, found.output, strings.Join(found.problems, "; "))
		return nil
	}
	v.passed++
	v.table.Row(c.Name, m.name, c.Module, "passed", w.name, w.err, w.bound, found.output, found.remark())
	return nil
}

// reject writes the row of a case that cannot run. module and class are nil if they are not known.
func (v *verification) reject(name string, module, class any, err error) {
	v.failed++
	v.table.Row(name, module, class, "FAILED", nil, nil, nil, nil, err.Error())
}

// hasProducts reports whether a module multiplies matrices: modules with layers do, routers alone do not.
func hasProducts(module string) bool {
	return strings.HasPrefix(module, "Conditional") || slices.Contains([]string{"Encoder", "LocalMHA", "FeedForward"}, module)
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
