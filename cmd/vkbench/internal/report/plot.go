package report

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/figures"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/chart"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/urfave/cli/v3"
)

const plotDescription = `Reads rows that bench -o jsonl (or json) or report wrote, all of one device (of several with the same name,
shape and precision the last), and draws the figures that they suffice for, as SVG and PNG: roofline (needs
the peaks, which rows of a CPU driver do not have), and, from rows of block_length and dense_attention, length
and length_dense, time against sequence length, and token, the time per token. For example

   vkbench bench -only block_length,dense_attention -size block_length=1x1024,8192,65536x512x1024 \
      -size dense_attention=1x1024,4096x8x64 -o jsonl >rows.jsonl
   vkbench plot -out plots rows.jsonl`

// outFlag is the directory of the results.
func outFlag() cli.Flag {
	return &cli.StringFlag{Name: "out", Usage: "write files to `DIR`, which is created if it is missing"}
}

// PlotCommand draws rows of earlier runs.
func PlotCommand(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "plot", Usage: "draw rows of earlier runs", ArgsUsage: "FILE...", Description: plotDescription,
		Flags: []cli.Flag{outFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if !c.Args().Present() {
				return command.Usagef("plot needs a file of rows")
			}
			var rows []results.Row
			for _, path := range c.Args().Slice() {
				more, err := results.ReadFile(path)
				if err != nil {
					return command.AsUsage(err)
				}
				rows = append(rows, more...)
			}
			rows = results.Latest(rows)
			for _, r := range rows {
				if r.Device != rows[0].Device {
					return command.Usagef("the rows are of %q and %q, want those of one device", rows[0].Device, r.Device)
				}
			}
			list := figures.All(rows)
			if len(list) == 0 {
				return command.Usagef("there is nothing to draw: no rows of %s, and no peaks with rows of kernels or modules", results.BlockLength)
			}
			if err := command.CheckOutDir(c.String("out")); err != nil {
				return err
			}
			_, err := writeFigures(env, c.String("out"), deviceTitle(rows[0].Device), list)
			return err
		},
	}
}

func deviceTitle(name string) string {
	if name == "" {
		return "device not named"
	}
	return name
}

// drawing is a figure of a page.
type drawing struct {
	File, Title, Caption string
	Inline               chart.Inline
}

// writeFigures draws figures into files, which name the device, and prints their paths.
func writeFigures(env *command.Env, dir, device string, figures []chart.Figure) ([]drawing, error) {
	var list []drawing
	for _, f := range figures {
		named := f
		named.Title += ", " + device
		svg, png, err := named.Draw()
		if err != nil {
			return nil, err
		}
		for _, file := range []struct {
			name string
			data []byte
		}{{f.File + ".svg", svg}, {f.File + ".png", png}} {
			if err := env.WriteFile(dir, file.name, file.data); err != nil {
				return nil, err
			}
		}
		inline, err := f.Inline()
		if err != nil {
			return nil, err
		}
		list = append(list, drawing{f.File, f.Title, f.Caption, inline})
	}
	return list, nil
}

// staleFiles returns the files of figures in a directory that are not among those drawn now.
func staleFiles(dir string, now []drawing) (old []string) {
	for _, file := range figures.FileStems {
		if slices.ContainsFunc(now, func(d drawing) bool { return d.File == file }) {
			continue
		}
		for _, name := range []string{file + ".svg", file + ".png"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				old = append(old, name)
			}
		}
	}
	return old
}
