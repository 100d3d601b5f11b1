// Package plan holds the command that computes the device memory of a module's call.
package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/input"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/table"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `Nothing is run, and no device is needed: the limits are those of an NVIDIA H200, or, with -device, of a device
of this machine. Without -config the module is that of the bench case, with it that of the file alone. Masks,
of a byte per token, are not counted. Token ids count 4 bytes each, as int32; as bytes, which modules accept
too, they are a quarter of that. Shapes, B items each:
%s`

// Command prints the memory that a call needs.
func Command(env *command.Env) *cli.Command {
	var shapes strings.Builder
	for _, p := range planners() {
		for _, d := range p.dims {
			fmt.Fprintf(&shapes, "\n   %-27s %s", p.name, d)
		}
	}
	return &cli.Command{
		Name: "plan", Usage: "compute the device memory that a module's call needs", ArgsUsage: "MODULE SHAPE",
		Description: fmt.Sprintf(description, shapes.String()),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "device", Usage: "plan for this device: `INDEX`, UUID or part of the name"}, command.OutputFlag(),
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the module's configuration, JSON"},
			&cli.StringFlag{Name: "precision", Usage: "compute in this `PRECISION`, f32, f16 or bf16 (default: the configuration's)"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			p, err := parseRequest(c)
			if err != nil {
				return err
			}
			t, err := env.Table(c, table.Text("part", "part", len("workspace")), table.Number("bytes", "bytes", 12), table.Number("mib", "size", 10))
			if err != nil {
				return err
			}
			if !c.IsSet("device") {
				return p.write(t, h200(), "an NVIDIA H200")
			}
			return env.WithDevice(c, func(dev *vk.Device) error { return p.write(t, dev.Caps(), dev.Info().Name) })
		},
	}
}

// request holds the arguments and flags.
type request struct {
	planner
	overrides
	size []int
}

func parseRequest(c *cli.Command) (request, error) {
	var p request
	list := planners()
	var names []string
	for _, x := range list {
		names = append(names, x.name)
	}
	if c.Args().Len() != 2 {
		return p, command.Usagef("plan got %s, want a module and a shape, such as block 2x32768x512", command.Count(c.Args().Len(), "argument"))
	}
	name, shape := c.Args().Get(0), c.Args().Get(1)
	for _, x := range list {
		if x.name == name {
			p.planner = x
		}
	}
	if p.name == "" {
		return p, command.Usagef("the module is %q, want one of %s", name, strings.Join(names, ", "))
	}
	size, err := dims.Parse(shape)
	if err != nil {
		return p, command.Usagef("the shape is %q, %w", shape, err)
	}
	valid := false
	for _, d := range p.dims {
		valid = valid || len(size) == strings.Count(d, " x ")+1
	}
	if !valid {
		return p, command.Usagef("the shape is %q, but %s wants %s", shape, name, strings.Join(p.dims, " or "))
	}
	p.size = size
	elements := 1.0
	for _, n := range size {
		elements *= float64(n)
	}
	if elements > 1<<48 {
		return p, command.Usagef("the shape is %q, want at most 2^48 elements", shape)
	}
	if path := c.String("config"); path != "" {
		if p.config, err = input.ReadFile(path, input.ConfigLimit); err == nil {
			err = json.Unmarshal(p.config, &json.RawMessage{}) // syntax only; the module checks the contents
		}
		if err != nil {
			return p, command.Usagef("-config %s: %w", path, err)
		}
	}
	if text := c.String("precision"); text != "" {
		precision, err := command.ParsePrecision(text)
		if err != nil {
			return p, err
		}
		p.precision = &precision
	}
	return p, nil
}

// write computes the memory on a device and writes it.
func (p request) write(t *table.Table, caps vk.Caps, device string) error {
	m, err := p.memory(p.size, p.overrides, caps)
	if err != nil {
		return command.AsUsage(err)
	}
	t.Remark("%s %s on %s", p.name, dims.Format(p.size), device)
	for _, row := range []struct {
		part  string
		bytes uint64
	}{{"weights", m.Weights}, {"inputs", m.Inputs}, {"outputs", m.Outputs}, {"workspace", m.Workspace}, {"total", m.Total()}} {
		t.Row(row.part, row.bytes, table.MiB(float64(row.bytes)/(1<<20)))
	}
	if m.Total() > caps.MemoryBytes {
		t.Remark("That is more than the device has: %v.", table.Size(caps.MemoryBytes))
	}
	return t.Close()
}
