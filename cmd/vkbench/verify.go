package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// verify runs golden cases.
func (a *app) verify() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "run golden cases, and compare with what they say", ArgsUsage: "DIR|FILE...",
		Description: "Each case runs twice on the same objects, and once more to see what the routers decide, which has to give the same bits. The\n" +
			"bounds are those of the cases' README.",
		Flags: []cli.Flag{
			deviceFlag(), outputFlag(), &cli.StringSliceFlag{Name: "module", Usage: "only cases of these `MODULES`"},
			&cli.StringFlag{Name: "precision", Value: "f32", Usage: "`PRECISION` of matrix products: f32, or f16 or bf16 for the modules that have products"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if !c.Args().Present() {
				return usage("verify needs a folder of golden cases, or files, such as testdata/golden")
			}
			if slices.Contains(c.StringSlice("module"), "") {
				return usage("-module names nothing, want a module of the golden cases")
			}
			precision, err := onePrecision(c.String("precision"))
			if err != nil {
				return err
			}
			paths, err := golden.Cases(c.Args().Slice()...)
			if err != nil {
				return usageError{err}
			}
			width := 0
			for _, p := range paths {
				width = max(width, len(caseName(p)))
			}
			t, err := a.table(c, words("case", "case", width),
				words("module", "module", len("ConditionalRoutedAutoregressiveAttention")),
				words("result", "result", 6), words("worst", "worst", 32),
				numbers("error", "error", 8), numbers("bound", "bound", 6), words("remark", "remark", 0))
			if err != nil {
				return err
			}
			bar := a.progress(len(paths))
			defer bar.end()
			t.before = bar.clear
			return a.withDevice(c, func(dev *vk.Device) error {
				if err := precision.Supported(dev.Caps()); err != nil {
					return err
				}
				v := verification{dev: dev, table: t, only: c.StringSlice("module"), precision: precision, verifiers: verifiers(), unknown: map[string]int{}}
				for _, path := range paths {
					if err := interrupted(ctx); err != nil {
						return err
					}
					bar.at(caseName(path))
					v.run(path)
					bar.next()
				}
				return v.end()
			})
		},
	}
}

// caseName is a file's name without folder and extension.
func caseName(path string) string {
	name := path[strings.LastIndexAny(path, `/\`)+1:]
	return strings.TrimSuffix(name, ".safetensors")
}

// verification runs cases and counts.
type verification struct {
	dev       *vk.Device
	table     *table
	only      []string // modules; none: all
	precision colt5.DType
	verifiers map[string]verifier
	passed    int
	failed    int
	unknown   map[string]int // cases by module
}

// run runs the case at path and writes its line.
func (v *verification) run(path string) {
	c, err := golden.Load(path)
	if err != nil {
		v.failed++
		v.table.row(caseName(path), nil, "FAILED", nil, nil, nil, err.Error())
		return
	}
	if len(v.only) > 0 && !slices.Contains(v.only, c.Module) {
		return
	}
	make, known := v.verifiers[c.Module]
	if !known {
		v.unknown[c.Module]++
		v.table.row(c.Name, c.Module, "unknown", nil, nil, nil, "there is no such module")
		return
	}
	if v.precision != colt5.F32 {
		if !hasProducts(c.Module) {
			return
		}
		if err := c.SetPrecision(v.precision.String()); err != nil {
			v.failed++
			v.table.row(c.Name, c.Module, "FAILED", nil, nil, nil, err.Error())
			return
		}
	}
	found := &comparison{}
	if err := onStage(v.dev, func(s *stage) error { return check(s, c, make, found) }); err != nil {
		found.problem("%v", err)
	}
	w := found.worst
	if found.problems != nil {
		v.failed++
		v.table.row(c.Name, c.Module, "FAILED", w.name, w.err, w.bound, strings.Join(found.problems, "; "))
		return
	}
	v.passed++
	v.table.row(c.Name, c.Module, "passed", w.name, w.err, w.bound, nil)
}

// hasProducts says whether a module multiplies matrices: those do that have layers and not routers alone.
func hasProducts(module string) bool {
	return strings.HasPrefix(module, "Conditional")
}

// end writes the sums.
func (v *verification) end() error {
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
	err := errors.Join(v.table.close(), unknown)
	v.table.remark("%s on %s", sum, v.dev.Info().Name)
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

// verifier puts a golden case of a module on a stage. What goes wrong it may leave to the stage.
type verifier func(*stage, *golden.Case) (*subject, error)

// subject is a golden case on the device.
type subject struct {
	forward func() error
	outputs map[string]*colt5.Tensor        // what forward writes
	routers inspected                       // nil: nothing to inspect
	compare func(values, *comparison) error // with what the case says
}

// check runs a case twice, and once more with the module's routers under inspection, and compares.
func check(s *stage, c *golden.Case, make verifier, found *comparison) error {
	x, err := make(s, c)
	if err = errors.Join(err, s.err); err != nil {
		return err
	}
	first, err := x.result(0)
	if err != nil {
		return err
	}
	again, err := x.result(1)
	if err != nil {
		return err
	}
	found.sameBits(first, again, "the second run gave other bits")
	if x.routers != nil {
		x.routers.Inspect(true)
		seen, err := x.result(2)
		if err != nil {
			return err
		}
		found.sameBits(first, seen, "a run with Inspect gave other bits")
		if first.decisions, err = x.routers.LastRouting(); err != nil {
			return err
		}
	}
	return x.compare(first, found)
}

// result runs forward, and reads what it wrote.
func (x *subject) result(run int) (values, error) {
	if err := x.spoil(run); err != nil {
		return values{}, err
	}
	if err := x.forward(); err != nil {
		return values{}, err
	}
	return x.read()
}

func (c *comparison) sameBits(a, b values, problem string) {
	for _, name := range slices.Sorted(maps.Keys(a.bits)) {
		if !bytes.Equal(a.bits[name], b.bits[name]) {
			c.problem("%s: %s", name, problem)
		}
	}
}

// values are results on the host, by name.
type values struct {
	floats    map[string][]float32
	ints      map[string][]int32
	bits      map[string][]byte
	decisions []colt5.RoutingRecord // of the module's routers
}

// spoil fills the outputs with what no result is, and each time with something else, so that places that are not written stand out.
func (x *subject) spoil(run int) error {
	for _, t := range x.outputs {
		junk := bytes.Repeat([]byte{0xff, 0xff, 0xff - byte(run), 0xff}, t.Len()) // of floats a NaN
		var err error
		if t.DType() == colt5.I32 {
			data := make([]int32, t.Len())
			copy(vk.Bytes(data), junk)
			err = t.Write(context.TODO(), data)
		} else {
			data := make([]float32, t.Len())
			copy(vk.Bytes(data), junk)
			err = t.Write(context.TODO(), data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *subject) read() (values, error) {
	v := values{floats: map[string][]float32{}, ints: map[string][]int32{}, bits: map[string][]byte{}}
	for name, t := range x.outputs {
		var err error
		if t.DType() == colt5.I32 {
			v.ints[name], err = t.Int32(context.TODO())
			v.bits[name] = vk.Bytes(v.ints[name])
		} else {
			v.floats[name], err = t.Float32(context.TODO())
			v.bits[name] = vk.Bytes(v.floats[name])
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}
