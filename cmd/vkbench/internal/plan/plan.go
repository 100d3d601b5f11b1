// Package plan holds the command that computes the device memory of a module's call.
package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `Nothing is run, and no device is needed: the limits are those of an NVIDIA H200, or, with -device, of a device
of this machine. If the call needs more memory than the device has, the exit code is 1, and the largest batch
that fits is named. Masks, of a byte per token, are not counted. Token ids count 4 bytes each, as int32; as
bytes, which modules accept too, they are a quarter of that.

With -train it is the memory of a training step: forward and backward pass, the gradients of the parameters,
AdamW, and inputs also of the next batch. Token ids are bytes then. The loss of autoregressive_transformer is
the cross-entropy of its logits, with labels; that of other modules is the caller's, and takes no memory but
that of its gradient. -recompute is activation checkpointing: so many layers compute their activations again
instead of keeping them.

MODULE is the name of a bench case, and SIZE has the numbers of its sizes, which bench -list explains. Numbers
in brackets may be missing: the example of bench is used, or what -config has. With -config the module is that
of the file alone.
%s`

// Command prints the memory that a call needs.
func Command(env *command.Env) *cli.Command {
	var shapes strings.Builder
	var names []string
	for _, p := range planners() {
		names = append(names, p.name+":"+p.shape())
		fmt.Fprintf(&shapes, "\n   %-27s %s", p.name, p.shape())
	}
	return &cli.Command{
		Name: "plan", Usage: "compute the device memory that a module's call, or a training step, needs", ArgsUsage: "MODULE SIZE",
		Description:   fmt.Sprintf(description, shapes.String()),
		ShellComplete: command.Complete(map[string]command.Values{"": func() []string { return names }}),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "device", Usage: "plan for this device: `INDEX`, UUID or part of the name"}, command.OutputFlag(),
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the module's configuration, JSON"},
			&cli.BoolFlag{Name: "train", Usage: "plan a training step: forward, backward and AdamW"}, command.RecomputeFlag(),
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
	size  []int
	train bool // a training step
}

// measure is the memory at a size.
func (p request) measure(size []int, caps vk.Caps) (memory, error) {
	if p.train {
		return p.training(size, p.overrides, caps)
	}
	return p.memory(size, p.overrides, caps)
}

func parseRequest(c *cli.Command) (request, error) {
	var p request
	list := planners()
	var names []string
	for _, x := range list {
		names = append(names, x.name)
	}
	if c.Args().Len() != 2 {
		return p, command.Usagef("plan got %s, want a module and a size, such as block 2x32768x512", command.Count(c.Args().Len(), "argument"))
	}
	name, text := c.Args().Get(0), c.Args().Get(1)
	at := slices.Index(names, name)
	if at < 0 {
		return p, command.Usagef("plan knows no module %q%s; want one of %s", name, suggest.Phrase(name, names), strings.Join(names, ", "))
	}
	p.planner, p.train = list[at], c.Bool("train")
	var err error
	if p.recompute, err = command.Recompute(c); err != nil {
		return p, err
	}
	if p.recompute != 0 && !p.train {
		return p, command.Usagef("-recompute needs -train")
	}
	size, err := dims.Parse(text)
	if err != nil {
		return p, command.Usagef("the size is %q, %w", text, err)
	}
	if len(size) < p.required || len(size) > len(p.numbers) {
		return p, command.Usagef("the size is %q, but a size of %s is %s", text, name, p.shape())
	}
	p.size = size
	elements := 1.0
	for _, n := range size[:min(len(size), p.required+1)] { // those of the call, and mostly dim
		elements *= float64(n)
	}
	if elements > 1<<48 {
		return p, command.Usagef("the size is %q, want at most 2^48 elements", text)
	}
	if path := c.String("config"); path != "" {
		if p.config, err = input.ReadFile(path, input.ConfigLimit); err == nil {
			err = json.Unmarshal(p.config, &json.RawMessage{}) // syntax only; the module checks the contents
		}
		if err != nil {
			return p, command.Usagef("-config %s: %w", path, err)
		}
	}
	if name := c.String("precision"); name != "" {
		precision, err := command.ParsePrecision(name)
		if err != nil {
			return p, err
		}
		p.precision = &precision
	}
	return p, nil
}

// write computes the memory on a device and writes it.
func (p request) write(t *table.Table, caps vk.Caps, device string) error {
	m, err := p.measure(p.size, caps)
	if err != nil {
		return command.AsUsage(err)
	}
	what := p.name
	type part struct {
		part  string
		bytes uint64
	}
	parts := []part{{"weights", m.Weights}, {"inputs", m.Inputs}, {"outputs", m.Outputs}, {"workspace", m.Workspace}}
	if p.train {
		what = "a training step of " + what
		parts = append(parts, part{"gradients", m.Gradients}, part{"optimizer", m.optimizer})
	}
	t.Remark("%s %s on %s", what, dims.Format(p.size), device)
	if p.train && p.recompute == 0 {
		checkpointing := p
		checkpointing.recompute = -1
		least, err := checkpointing.measure(p.size, caps)
		if err != nil {
			return command.AsUsage(err)
		}
		t.Remark("With activation checkpointing of all layers, -recompute -1, the total is %v.", table.Size(least.total()))
	}
	for _, row := range append(parts, part{"total", m.total()}) {
		t.Row(row.part, row.bytes, table.MiB(float64(row.bytes)/(1<<20)))
	}
	err = t.Close()
	if m.total() > caps.MemoryBytes {
		return errors.Join(err, fmt.Errorf("%s needs %v, but the device has %v; %s", what, table.Size(m.total()), table.Size(caps.MemoryBytes), p.fitting(caps)))
	}
	return err
}

// fitting names the largest batch that fits into the memory of a device.
func (p request) fitting(caps vk.Caps) string {
	of := func(batch int) (m memory, fits bool) {
		m, err := p.measure(append([]int{batch}, p.size[1:]...), caps)
		return m, err == nil && m.total() <= caps.MemoryBytes
	}
	one, fits := of(1)
	if !fits {
		return "a batch of 1 does not fit either"
	}
	// Inputs and outputs grow with the batch, which limits the search to sizes that are fast to compute.
	limit := min(uint64(p.size[0]), caps.MemoryBytes/max(one.Inputs+one.Outputs, 1))
	largest := sort.Search(int(limit), func(i int) bool { // the first batch, less 1, that does not fit
		_, fits := of(i + 1)
		return !fits
	})
	return fmt.Sprintf("the largest batch that fits is %d", largest)
}
