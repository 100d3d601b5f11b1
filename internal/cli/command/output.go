package command

import (
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/urfave/cli/v3"
)

// OutputFlag selects the format of Table.
func OutputFlag() cli.Flag {
	return &cli.StringFlag{Name: "o", Value: "md", Usage: "output `FORMAT`: md (Markdown), csv, json or jsonl"}
}

// Table starts a table on stdout in the format that the flags name.
func (env *Env) Table(c *cli.Command, columns ...table.Column) (*table.Table, error) {
	format := c.String("o")
	if !slices.Contains(table.Formats, format) {
		return nil, Usagef("-o is %q, want md, csv, json or jsonl", format)
	}
	return table.New(env.Stdout, env.Stderr, format, columns...), nil
}

// Progress starts a progress bar of so many steps on stderr.
func (env *Env) Progress(steps int) *progress.Bar { return progress.New(env.Stderr, steps) }

// SplitList splits "a,b" at its commas. An empty text is an empty list.
func SplitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}
