// Package devices holds the commands that list and describe Vulkan devices.
package devices

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/platforms"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// ListCommand lists the devices.
func ListCommand(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "devices", Usage: "list the Vulkan devices, what they lack if they are unusable, which one would be selected, and what is known about their kind",
		Flags: []cli.Flag{command.DeviceFlag(), command.OutputFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := command.NoArgs(c); err != nil {
				return err
			}
			list, err := vk.List()
			if err != nil {
				return command.NoDevice(err)
			}
			selected := -1
			failed := env.WithDevice(c, func(dev *vk.Device) error {
				selected = dev.Info().Index
				return nil
			})
			t, err := env.Table(c, table.Number("index", "index", 0), table.Number("selected", "selected", 0), table.Text("name", "name", 0),
				table.Text("type", "type", 0), table.Text("driver", "driver", 0), table.Number("api", "Vulkan", 0),
				table.Number("memory_bytes", "memory", 0), table.Text("uuid", "UUID", 0), table.Text("unusable", "lacks", 0), table.Hidden("tested"))
			if err != nil {
				return err
			}
			for _, i := range list {
				t.Row(i.Index, i.Index == selected, i.Name, i.Type, i.Driver+" "+i.DriverInfo, i.API, table.Size(i.Caps.MemoryBytes), i.UUID, i.Unusable, platforms.Of(i).String())
			}
			if c.String("o") == "md" {
				for _, i := range list {
					t.Remark("%s: %v", i.Name, platforms.Of(i))
				}
			}
			return errors.Join(t.Close(), failed)
		},
	}
}

// InfoCommand describes one device.
func InfoCommand(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show what a device can do; in JSON as one object",
		Flags: []cli.Flag{command.DeviceFlag(), command.OutputFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := command.NoArgs(c); err != nil {
				return err
			}
			return env.WithDevice(c, func(dev *vk.Device) error {
				if format := c.String("o"); format == "json" || format == "jsonl" {
					return writeObject(env, dev.Info(), format == "json")
				}
				t, err := env.Table(c, table.Text("property", "property", 34), table.Text("value", "value", 0))
				if err != nil {
					return err
				}
				for _, p := range deviceinfo.Properties(dev.Info()) {
					t.Row(p.Name, p.Value)
				}
				return t.Close()
			})
		},
	}
}

// writeObject writes a device as one JSON object, on one line or indented.
func writeObject(env *command.Env, i vk.Info, indent bool) error {
	e := json.NewEncoder(env.Stdout)
	e.SetEscapeHTML(false)
	if indent {
		e.SetIndent("", "  ")
	}
	return e.Encode(i)
}
