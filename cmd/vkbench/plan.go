package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const planDescription = `Nothing is computed, and no device is needed: the limits are those of an NVIDIA H200, or, with -device, of a device of this machine.
Without -config the module is that of the bench case, with it that of the file alone. Masks are not counted: a byte a token. Token ids
count 4 bytes each, as int32 has them; bytes, which modules take too, are a quarter of that. Shapes, B items each:
%s`

// plan tells what a call needs.
func (a *app) plan() *cli.Command {
	var shapes strings.Builder
	for _, p := range planners() {
		for _, d := range p.dims {
			fmt.Fprintf(&shapes, "\n   %-27s %s", p.name, d)
		}
	}
	return &cli.Command{
		Name: "plan", Usage: "tell what device memory a module's call needs", ArgsUsage: "MODULE SHAPE",
		Description: fmt.Sprintf(planDescription, shapes.String()),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "device", Usage: "plan for this device: `INDEX`, UUID or part of the name"}, outputFlag(),
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the module's configuration, JSON"},
			&cli.StringFlag{Name: "precision", Usage: "compute in this `PRECISION`, f32, f16 or bf16 (default: the configuration's)"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			p, err := newPlanning(c)
			if err != nil {
				return err
			}
			t, err := a.table(c, words("part", "part", len("workspace")), numbers("bytes", "bytes", 12), numbers("mib", "size", 10))
			if err != nil {
				return err
			}
			if !c.IsSet("device") {
				return p.write(t, h200(), "an NVIDIA H200")
			}
			return a.withDevice(c, func(dev *vk.Device) error { return p.write(t, dev.Caps(), dev.Info().Name) })
		},
	}
}

// planning is what plan was asked.
type planning struct {
	planner
	given
	size []int
}

// given is what a module's configuration is to be.
type given struct {
	config    []byte       // nil: the example's
	precision *colt5.DType // nil: the configuration's
}

func newPlanning(c *cli.Command) (planning, error) {
	var p planning
	list := planners()
	var names []string
	for _, x := range list {
		names = append(names, x.name)
	}
	if c.Args().Len() != 2 {
		return p, usage("plan got %d arguments, want a module and a shape, such as block 2x32768x512", c.Args().Len())
	}
	name, shape := c.Args().Get(0), c.Args().Get(1)
	for _, x := range list {
		if x.name == name {
			p.planner = x
		}
	}
	if p.name == "" {
		return p, usage("the module is %q, want one of %s", name, strings.Join(names, ", "))
	}
	size, err := parseSize(shape)
	if err != nil {
		return p, usage("the shape is %q, %w", shape, err)
	}
	fits := false
	for _, d := range p.dims {
		fits = fits || len(size) == strings.Count(d, " x ")+1
	}
	if !fits {
		return p, usage("the shape is %q, but %s wants %s", shape, name, strings.Join(p.dims, " or "))
	}
	p.size = size
	elements := 1.0
	for _, n := range size {
		elements *= float64(n)
	}
	if elements > 1<<48 {
		return p, usage("the shape is %q, want at most 2^48 elements", shape)
	}
	if path := c.String("config"); path != "" {
		if p.config, err = os.ReadFile(path); err == nil {
			err = json.Unmarshal(p.config, &json.RawMessage{}) // errors of its form; what it says is the module's matter
		}
		if err != nil {
			return p, usage("-config %s: %w", path, err)
		}
	}
	if text := c.String("precision"); text != "" {
		precision, err := onePrecision(text)
		if err != nil {
			return p, err
		}
		p.precision = &precision
	}
	return p, nil
}

// mebibytes are shown to people as a size, and to programs as a number.
type mebibytes float64

// write works the plan out for a device, and writes it.
func (p planning) write(t *table, caps vk.Caps, device string) error {
	m, err := p.memory(p.size, p.given, caps)
	if err != nil {
		return usageError{err}
	}
	t.remark("%s %s on %s", p.name, sized{size: p.size}.shape(), device)
	for _, row := range []struct {
		part  string
		bytes uint64
	}{{"weights", m.Weights}, {"inputs", m.Inputs}, {"outputs", m.Outputs}, {"workspace", m.Workspace}, {"total", m.Total()}} {
		t.row(row.part, row.bytes, mebibytes(float64(row.bytes)/(1<<20)))
	}
	if m.Total() > caps.MemoryBytes {
		t.remark("That is more than the device has: %v.", size(caps.MemoryBytes))
	}
	return t.close()
}

// planner tells the memory of a module's calls.
type planner struct {
	name   string
	dims   []string // what shapes may be
	memory func(size []int, g given, caps vk.Caps) (colt5.Memory, error)
}

func planners() []planner {
	sequence, ids := []string{"B x tokens x dim"}, []string{"B x tokens", "B x tokens x dim"}
	return []planner{
		{"feedforward", sequence, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(feedForwardExample(size[2]), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"attention", sequence, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(attentionExample(size[2]), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"block", sequence, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(blockExample(size[2]), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"cross", []string{"B x tokens x memories x dim"}, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(crossExample(size[3]), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, size[3], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1], size[2]) })
		}},
		{"autoregressive", sequence, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(autoregressiveExample(size[2]), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"image", []string{"B x dim x height x width", "B x height x width x dim (without channel_first)"}, imageMemory},
		{"vit", []string{"B"}, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(vitExample(), g)
			return g.memoryOf(err, nil, &c.Precision, 0, func() (colt5.Memory, error) { return c.Memory(caps, size[0]) })
		}},
		{"encoder", ids, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			dim := modelDim(size)
			c, err := configured(encoderExample(exampleDim(dim)), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"autoregressive_transformer", ids, func(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
			dim := modelDim(size)
			c, err := configured(autoregressiveTransformerExample(exampleDim(dim)), g)
			return g.memoryOf(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
	}
}

func imageMemory(size []int, g given, caps vk.Caps) (colt5.Memory, error) {
	c, err := configured(imageExample(size[1]), g)
	dim, height, width := size[1], size[2], size[3]
	if !c.ChannelFirst {
		height, width, dim = size[1], size[2], size[3]
	}
	return g.memoryOf(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], height, width) })
}

// modelDim is the size of a token in the shape of a model's call, 0 where the shape leaves it to the config.
func modelDim(size []int) int {
	if len(size) > 2 {
		return size[2]
	}
	return 0
}

func exampleDim(dim int) int {
	if dim == 0 {
		return 512
	}
	return dim
}

// configured is the example, or the config of a file.
func configured[C any](example C, g given) (C, error) {
	if g.config == nil {
		return example, nil
	}
	var c C
	if err := json.Unmarshal(g.config, &c); err != nil {
		return c, fmt.Errorf("-config: %w", err)
	}
	return c, nil
}

// memoryOf asks for the memory of a config whose dim is that of the shape, if that tells one. A config without a dim gets it.
func (g given) memoryOf(err error, dim *int, precision *colt5.DType, wanted int, memory func() (colt5.Memory, error)) (colt5.Memory, error) {
	switch {
	case err != nil:
		return colt5.Memory{}, err
	case wanted > 0 && *dim == 0:
		*dim = wanted
	case wanted > 0 && *dim != wanted:
		return colt5.Memory{}, fmt.Errorf("the dim is %d in the configuration and %d in the shape, want the same", *dim, wanted)
	}
	if g.precision != nil {
		*precision = *g.precision
	}
	return memory()
}

// h200 are the limits of an NVIDIA H200 as its driver 580 tells them, as far as they decide about memory.
func h200() vk.Caps {
	return vk.Caps{
		MemoryBytes: 143771 << 20, MaxAllocation: 1<<32 - 1, SharedBytes: 48 << 10, PushBytes: 256,
		MaxWorkgroupCount: [3]uint32{1<<31 - 1, 1<<16 - 1, 1<<16 - 1}, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, MaxWorkgroupInvocations: 1024,
		SubgroupSize: 32, SubgroupMin: 32, SubgroupMax: 32, SubgroupSizeControl: true, FullSubgroups: true, TimestampNanoseconds: 1,
		Float16: true, Float64: true, Int8: true, Int16: true, Int64: true, Storage8: true, Storage16: true, BFloat16: true,
		MemoryModel: true, SubgroupExtendedTypes: true, CooperativeMatrix: true, CooperativeMatrix2: true,
	}
}
