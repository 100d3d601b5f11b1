// Package tune holds the command that measures the tiles of matrix products.
package tune

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/measure"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/tune"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `Matrix products have kernels with several tile sizes, which all give the same bits. The default tiles were
measured on one GPU; this command measures yours, and stores the fastest beside the pipeline cache, for this
device, driver and kernels. Products use them from then on. -forget returns to the defaults.`

// products are the rows x inputs x outputs of the modules at the default sizes of bench.
var products = [][]int{
	{65536, 512, 1536}, {65536, 512, 512}, {65536, 512, 256}, {65536, 256, 512}, {32768, 512, 1536}, {32768, 512, 512},
	{16384, 512, 1024}, {2048, 512, 2048}, {2048, 2048, 512}, {2048, 512, 512}, {2048, 512, 1024},
	{64, 1024, 1536}, {64, 512, 1024}, {64, 1024, 4096}, {64, 4096, 1024}, {32, 1024, 4096}, {32, 4096, 1024},
}

// Command measures tiles.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "tune", Usage: "measure which tiles of matrix products are the fastest on this device, and store them", Description: description,
		DisableSliceFlagSeparator: true, // sizes have commas
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(), command.PrecisionFlag("f32,f16,bf16"),
			&cli.StringSliceFlag{Name: "size", Usage: "`ROWSxINxOUT` instead of the products of the modules: sizes of linear, as in bench; numbers may be lists; again for more"},
			&cli.DurationFlag{Name: "each", Value: 150 * time.Millisecond, Usage: "measure each tile for `TIME`, after a warm-up of the same length"},
			&cli.BoolFlag{Name: "forget", Usage: "instead: delete what is stored for these products"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArgs(c); err != nil {
				return err
			}
			precisions, err := command.ParsePrecisions(c.String("precision"))
			if err != nil {
				return err
			}
			sizes := products
			if c.IsSet("size") {
				linear, err := cases.Select(cases.All(), []string{"linear"}, c.StringSlice("size"))
				if err != nil {
					return err
				}
				sizes = linear[0].Sizes
			}
			if c.Duration("each") <= 0 {
				return command.Usagef("-each is %v, want more than 0", c.Duration("each"))
			}
			return env.WithDevice(c, func(dev *vk.Device) error {
				if dev.Caps().CPU && !c.IsSet("size") {
					sizes = [][]int{{64, 64, 64}}
				}
				supported, remarks := command.SupportedPrecisions(dev.Caps(), precisions)
				if len(supported) == 0 {
					return errors.New(strings.Join(remarks, " "))
				}
				if c.Bool("forget") {
					return forget(env, dev, supported, sizes)
				}
				return measureTiles(ctx, env, c, dev, supported, sizes, remarks)
			})
		},
	}
}

// tunedLinear returns the product that is tuned for a size of rows x inputs x outputs.
func tunedLinear(size []int, p pipelines.DType) pipelines.LinearConfig {
	half := p != pipelines.F32 && size[1]%2 == 0 && size[2]%2 == 0
	return pipelines.LinearConfig{In: size[1], Out: size[2], Precision: p, X16: half, Y16: half}
}

// forget returns to the default tiles.
func forget(env *command.Env, dev *vk.Device, precisions []pipelines.DType, sizes [][]int) error {
	tiles := map[string]string{}
	for _, p := range precisions {
		for _, size := range sizes {
			key, err := tune.LinearKey(dev, tunedLinear(size, p), size[0])
			if err != nil {
				return err
			}
			tiles[key] = ""
		}
	}
	if err := dev.StoreTuning(tiles); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "%s: the default tiles are used again.\n", command.Count(len(sizes)*len(precisions), "product"))
	return err
}

// measureTiles measures the products and stores their fastest tiles.
func measureTiles(ctx context.Context, env *command.Env, c *cli.Command, dev *vk.Device, precisions []pipelines.DType, sizes [][]int, remarks []string) error {
	t, err := env.Table(c, table.Text("product", "product", 16), table.Text("precision", "precision", 4),
		table.Text("tile", "tile", 12), table.Number("gpu_ms", "GPU ms", 8),
		table.Text("default_tile", "default tile", 12), table.Number("default_ms", "GPU ms", 8))
	if err != nil {
		return err
	}
	if dev.Caps().CPU {
		t.Remark("%s There is one tile only.", measure.CPUDriverRemark)
	}
	for _, r := range remarks {
		t.Remark("%s", r)
	}
	bar := env.Progress(len(sizes) * len(precisions))
	defer bar.Finish()
	t.BeforeWrite = bar.Clear
	tiles := map[string]string{}
	var failed error
	for _, p := range precisions {
		for _, size := range sizes {
			if command.Interrupted(ctx) != nil {
				break
			}
			name := dims.Format(size)
			bar.Describe(name)
			found, err := tune.Linear(ctx, dev, tunedLinear(size, p), size[0], c.Duration("each"))
			bar.Step()
			if err != nil {
				if command.InterruptedBy(ctx, err) != command.ErrInterrupted {
					failed = errors.Join(failed, fmt.Errorf("%s %s: %w", name, p, err))
				}
				continue
			}
			best, standard := found.Tiles[found.Best], found.Tiles[found.Default]
			if tiles[found.Key] = best.Tile; float64(best.Time) > 0.98*float64(standard.Time) {
				tiles[found.Key] = "" // the default is as fast
			}
			t.Row(name, p.String(), best.Tile, table.Millis(table.InMillis(best.Time)), standard.Tile, table.Millis(table.InMillis(standard.Time)))
		}
	}
	return errors.Join(failed, command.Interrupted(ctx), t.Close(), dev.StoreTuning(tiles)) // results so far are stored
}
