package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/urfave/cli/v3"
)

const plotsDescription = `Reads rows that bench -o jsonl (or json) or report wrote, all of one device, the last of several for the same, and draws what they are enough for, as
SVG and PNG: roofline (needs the roofs), and, of rows of block_length and dense_attention, length and length_dense, time against the
length of a sequence, and token, the time of a token. For example

   vkbench bench -only block_length,dense_attention -size block_length=1x1024,8192,65536x512x1024 -size dense_attention=1x1024,4096x8x64 -o jsonl >rows.jsonl
   vkbench plot -out plots rows.jsonl`

func outFlag() cli.Flag {
	return &cli.StringFlag{Name: "out", Usage: "write files to `DIR`, which is made if it is missing"}
}

// plots draws rows of earlier runs.
func (a *app) plots() *cli.Command {
	return &cli.Command{
		Name: "plot", Usage: "draw rows of earlier runs", ArgsUsage: "FILE...", Description: plotsDescription,
		Flags: []cli.Flag{outFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if !c.Args().Present() {
				return usage("plot needs a file of rows")
			}
			var rows []benchRow
			for _, path := range c.Args().Slice() {
				more, err := readRows(path)
				if err != nil {
					return usageError{err}
				}
				rows = append(rows, more...)
			}
			rows = latest(rows)
			for _, r := range rows {
				if r.Device != rows[0].Device {
					return usage("the rows are of %q and %q, want those of one device", rows[0].Device, r.Device)
				}
			}
			list := figures(rows, deviceTitle(rows[0].Device))
			if len(list) == 0 {
				return usage("there is nothing to draw: no rows of %s, and no roofs with rows of kernels or modules", blockLength)
			}
			if err := outFolder(c.String("out")); err != nil {
				return err
			}
			_, err := a.writeFigures(c.String("out"), list)
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

// drawn is a figure of a page.
type drawn struct {
	File, Title, Caption string
	SVG                  template.HTML
}

// writeFigures draws figures into files, and prints their names.
func (a *app) writeFigures(dir string, list []figure) ([]drawn, error) {
	var pages []drawn
	for _, f := range list {
		svg, png, err := f.draw()
		if err != nil {
			return nil, err
		}
		for _, file := range []struct {
			name string
			data []byte
		}{{f.file + ".svg", svg}, {f.file + ".png", png}} {
			if err := a.writeNamed(dir, file.name, file.data); err != nil {
				return nil, err
			}
		}
		pages = append(pages, drawn{f.file, f.title, f.caption, inline(svg)})
	}
	return pages, nil
}

// stale are files in a folder of figures that there are, but not among those drawn now.
func stale(dir string, now []drawn) (old []string) {
	for _, file := range figureFiles {
		if slices.ContainsFunc(now, func(d drawn) bool { return d.File == file }) {
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

// writeNamed writes a file, and prints its name.
func (a *app) writeNamed(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if err := atomicfile.Write(path, data); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stdout, path)
	return err
}

// inline is an SVG without what comes before its element, for a page. Its text was escaped where it was drawn.
func inline(svg []byte) template.HTML {
	return template.HTML(svg[max(bytes.Index(svg, []byte("<svg")), 0):])
}
