package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "`INDEX`, UUID or part of the name; default: COLT5_DEVICE, else the best device"}
}

// withDevice runs f on the device that the flags name. What is left open at the end, or what the validation layer said, is an error.
func (a *app) withDevice(c *cli.Command, f func(*vk.Device) error) error {
	dev, err := vk.Open(vk.Options{Device: c.String("device")})
	if err != nil {
		return deviceError{err}
	}
	err = f(dev)
	if n, text := dev.DrainMessages(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d validation messages:\n%s", n, text))
	}
	return errors.Join(err, dev.Close())
}

// devices lists what there is.
func (a *app) devices() *cli.Command {
	return &cli.Command{
		Name: "devices", Usage: "list the Vulkan devices, what they lack if they are unusable, and which one would be chosen",
		Flags: []cli.Flag{deviceFlag(), outputFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArgs(c); err != nil {
				return err
			}
			list, err := vk.List()
			if err != nil {
				return deviceError{err}
			}
			chosen := -1
			failed := a.withDevice(c, func(dev *vk.Device) error {
				chosen = dev.Info().Index
				return nil
			})
			t, err := a.table(c, numbers("index", "index", 0), numbers("chosen", "chosen", 0), words("name", "name", 0),
				words("type", "type", 0), words("driver", "driver", 0), numbers("api", "Vulkan", 0),
				numbers("memory_bytes", "memory", 0), words("uuid", "UUID", 0), words("unusable", "lacks", 0))
			if err != nil {
				return err
			}
			for _, i := range list {
				t.row(i.Index, i.Index == chosen, i.Name, i.Type, i.Driver+" "+i.DriverInfo, i.API, size(i.Caps.MemoryBytes), i.UUID, i.Unusable)
			}
			return errors.Join(t.close(), failed)
		},
	}
}

// info describes one device.
func (a *app) info() *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show what a device can do",
		Flags: []cli.Flag{deviceFlag(), outputFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return a.withDevice(c, func(dev *vk.Device) error {
				t, err := a.table(c, words("property", "property", 34), words("value", "value", 0))
				if err != nil {
					return err
				}
				for _, p := range properties(dev.Info()) {
					t.row(p.name, p.value)
				}
				return t.close()
			})
		},
	}
}

type property struct {
	name  string
	value any
}

func properties(i vk.Info) []property {
	c := i.Caps
	list := []property{
		{"name", i.Name}, {"type", i.Type}, {"driver", i.Driver + " " + i.DriverInfo}, {"Vulkan", i.API}, {"UUID", i.UUID},
		{"vendor and device id", fmt.Sprintf("%04x:%04x", i.VendorID, i.DeviceID)}, {"CPU driver", c.CPU},
		{"device memory", size(c.MemoryBytes)}, {"largest buffer", size(c.MaxAllocation)},
		{"shared memory of a workgroup", size(c.SharedBytes)}, {"push constants", size(c.PushBytes)},
		{"invocations of a workgroup", c.MaxWorkgroupInvocations}, {"size of a workgroup", product(c.MaxWorkgroupSize)},
		{"workgroups of a dispatch", product(c.MaxWorkgroupCount)},
		{"subgroup size", c.SubgroupSize}, {"smallest subgroup", c.SubgroupMin}, {"largest subgroup", c.SubgroupMax},
		{"subgroup size control", c.SubgroupSizeControl}, {"full subgroups", c.FullSubgroups},
		{"subgroups of 8, 16 and 64 bit", c.SubgroupExtendedTypes}, {"time stamp tick in ns", c.TimestampNanoseconds},
		{"float16", c.Float16}, {"float64", c.Float64}, {"bfloat16", c.BFloat16}, {"int8", c.Int8}, {"int16", c.Int16}, {"int64", c.Int64},
		{"8-bit storage", c.Storage8}, {"16-bit storage", c.Storage16}, {"Vulkan memory model", c.MemoryModel},
		{"compiler statistics", c.PipelineStatistics},
		{"cooperative matrices", c.CooperativeMatrix}, {"of whole workgroups (NV)", c.CooperativeMatrix2},
	}
	for _, s := range c.MatrixShapes {
		list = append(list, property{"cooperative matrix", shapeName(s)})
	}
	return list
}

func product(n [3]uint32) string { return fmt.Sprintf("%d x %d x %d", n[0], n[1], n[2]) }

// shapeName describes a cooperative matrix product.
func shapeName(s vk.MatrixShape) string {
	text := fmt.Sprintf("M %d N %d K %d: %s x %s + %s -> %s", s.M, s.N, s.K,
		component(s.A), component(s.B), component(s.C), component(s.Result))
	if s.Saturating != 0 {
		text += ", saturating"
	}
	switch s.Scope { // VkScopeKHR
	case 2:
		text += ", of a workgroup"
	case 3:
		text += ", of a subgroup"
	default:
		text += fmt.Sprintf(", scope %d", s.Scope)
	}
	return text
}

// component names a VkComponentTypeKHR.
func component(t uint32) string {
	names := [...]string{"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
	const bfloat16 = 1000141000
	switch {
	case t < uint32(len(names)):
		return names[t]
	case t == bfloat16:
		return "bfloat16"
	}
	return fmt.Sprintf("type %d", t)
}
