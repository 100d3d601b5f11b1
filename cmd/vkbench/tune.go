package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/colt5-vulkan/colt5/internal/tune"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const tuneDescription = `Matrix products come in tiles of several sizes, which all give the same bits. vkbench knows which are fast on one GPU; this measures yours, and
keeps what it found beside the pipeline cache, for this device, driver and kernels. Products take it from then on. -forget goes back.`

// tunedProducts are rows x inputs x outputs of the modules at the sizes of bench.
var tunedProducts = [][]int{
	{65536, 512, 1536}, {65536, 512, 512}, {65536, 512, 256}, {65536, 256, 512}, {32768, 512, 1536}, {32768, 512, 512},
	{16384, 512, 1024}, {2048, 512, 2048}, {2048, 2048, 512}, {2048, 512, 512}, {2048, 512, 1024},
	{64, 1024, 1536}, {64, 512, 1024}, {64, 1024, 4096}, {64, 4096, 1024}, {32, 1024, 4096}, {32, 4096, 1024},
}

// tune measures the tiles of products.
func (a *app) tune() *cli.Command {
	return &cli.Command{
		Name: "tune", Usage: "measure which kernels are the fastest on this device, and keep it", Description: tuneDescription,
		Flags: []cli.Flag{
			deviceFlag(), outputFlag(), precisionFlag("f32,f16,bf16"),
			&cli.StringFlag{Name: "size", Usage: "`ROWSxINxOUT` instead of the products of the modules"},
			&cli.DurationFlag{Name: "each", Value: 150 * time.Millisecond, Usage: "measure a tile for `TIME`, after as long a warm-up"},
			&cli.BoolFlag{Name: "forget", Usage: "instead: forget what was measured for these products"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArgs(c); err != nil {
				return err
			}
			precisions, err := parsePrecisions(c.String("precision"))
			if err != nil {
				return err
			}
			sizes := tunedProducts
			if text := c.String("size"); text != "" {
				size, err := parseSize(text)
				if err != nil || len(size) != 3 || min(size[0], size[1], size[2]) < 1 {
					return usage("-size is %q, want ROWSxINxOUT, such as 65536x512x1536", text)
				}
				sizes = [][]int{size}
			}
			if c.Duration("each") <= 0 {
				return usage("-each is %v, want more than 0", c.Duration("each"))
			}
			return a.withDevice(c, func(dev *vk.Device) error {
				if dev.Caps().CPU && !c.IsSet("size") {
					sizes = [][]int{{64, 64, 64}}
				}
				have, remarks := supported(dev.Caps(), precisions)
				if len(have) == 0 {
					return errors.New(strings.Join(remarks, " "))
				}
				if c.Bool("forget") {
					return a.forget(dev, have, sizes)
				}
				return a.tuneOn(ctx, c, dev, have, sizes, remarks)
			})
		},
	}
}

// tunedLinear is what is tuned for a size, rows x inputs x outputs.
func tunedLinear(size []int, p pipelines.DType) pipelines.LinearConfig {
	half := p != pipelines.F32 && size[1]%2 == 0 && size[2]%2 == 0
	return pipelines.LinearConfig{In: size[1], Out: size[2], Precision: p, X16: half, Y16: half}
}

// forget goes back to the usual tiles.
func (a *app) forget(dev *vk.Device, precisions []pipelines.DType, sizes [][]int) error {
	choices := map[string]string{}
	for _, p := range precisions {
		for _, size := range sizes {
			purpose, err := tune.LinearKey(dev, tunedLinear(size, p), size[0])
			if err != nil {
				return err
			}
			choices[purpose] = ""
		}
	}
	if err := dev.Tune(choices); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%d products have the usual tiles again.\n", len(sizes)*len(precisions))
	return err
}

func (a *app) tuneOn(ctx context.Context, c *cli.Command, dev *vk.Device, precisions []pipelines.DType, sizes [][]int, remarks []string) error {
	t, err := a.table(c, words("product", "product", 16), words("precision", "precision", 4), words("tile", "tile", 12), numbers("gpu_ms", "GPU ms", 8),
		words("usual_tile", "usual tile", 12), numbers("usual_ms", "GPU ms", 8))
	if err != nil {
		return err
	}
	if dev.Caps().CPU {
		t.remark("This is a driver that runs on the processor: the times are no GPU figures, and there is one tile alone.")
	}
	for _, r := range remarks {
		t.remark("%s", r)
	}
	bar := a.progress(len(sizes) * len(precisions))
	defer bar.end()
	t.before = bar.clear
	choices := map[string]string{}
	var failed error
	for _, p := range precisions {
		for _, size := range sizes {
			if interrupted(ctx) != nil {
				break
			}
			name := fmt.Sprintf("%dx%dx%d", size[0], size[1], size[2])
			bar.at(name)
			found, err := tune.Linear(ctx, dev, tunedLinear(size, p), size[0], c.Duration("each"))
			bar.next()
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s %s: %w", name, precisionName(p), err))
				continue
			}
			best, usual := found.Tiles[found.Best], found.Tiles[found.Default]
			if choices[found.Key] = best.Tile; float64(best.Time) > 0.98*float64(usual.Time) {
				choices[found.Key] = "" // the usual one does as well
			}
			t.row(name, p.String(), best.Tile, millis(inMillis(best.Time)), usual.Tile, millis(inMillis(usual.Time)))
		}
	}
	return errors.Join(failed, interrupted(ctx), t.close(), dev.Tune(choices)) // what was measured is kept
}
