// Package route holds the command that shows which passages of a text a router selects.
package route

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/input"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/scope"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/table"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `The text's bytes are the tokens. A token's vector is a quarter of its byte's embedding (normally distributed,
from the seed), plus 8 times the difference between the mean embedding of the 65 bytes around it and that of
the whole text: passages that differ from the rest stand out. Without -weights the routing token comes from
the seed as well: which passages it selects is then arbitrary, but reproducible.

The text is split into segments of -length bytes, -batch of them per call. Of each segment -heavy tokens are
routed to the heavy branch, of a shorter last segment proportionally fewer. Two segments of 32,768 bytes,
vectors of 512 elements and 1,024 heavy tokens are the reference use. Several files are read as one text, with
a line break between them; - is the standard input.

Soft scores sum to 100 % of their target where coordinate descent has converged. After the usual 20
iterations, down to a small eps, the sum may be far above. The selection does not depend on that.`

// Command shows the routing of a text.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "route", Usage: "show which passages of a text are routed to the heavy branch",
		ArgsUsage: "FILE...", Description: description,
		Flags: []cli.Flag{
			command.DeviceFlag(),
			&cli.StringFlag{Name: "o", Value: "text", Usage: "output `FORMAT`: text, or a table of passages as md, csv, json or jsonl"},
			&cli.StringFlag{Name: "html", Usage: "also write a page with the whole text to `FILE`"},
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the feedforward's configuration, JSON"},
			&cli.StringFlag{Name: "weights", Usage: "`FILE` with the feedforward's weights, safetensors (default: initial values of the seed)"},
			&cli.Uint64Flag{Name: "seed", Usage: "`S` of the embedding, and of the weights"},
			&cli.IntFlag{Name: "dim", HideDefault: true, Usage: "`C`, elements of a token's vector (default: the configuration's, 512 without one)"},
			&cli.IntFlag{Name: "heavy", HideDefault: true, Usage: "`N` heavy tokens of a whole segment (default: the configuration's, length / 32 without one)"},
			&cli.IntFlag{Name: "length", Value: 32768, Usage: "`BYTES` of a segment"},
			&cli.IntFlag{Name: "batch", Value: 2, Usage: "segments per call, `B`"},
			&cli.IntFlag{Name: "passages", Value: 8, Usage: "show the `N` passages with the most heavy tokens; the table has all"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseOptions(c)
			if err != nil {
				return err
			}
			text, err := readText(c.Args().Slice())
			if err != nil {
				return command.AsUsage(err)
			}
			if o.html != "" {
				if err := command.CheckOutFile("html", o.html, append(c.Args().Slice(), c.String("config"), o.weights)); err != nil {
					return err
				}
			}
			t := &routedText{text: text, seed: o.seed, untrained: o.weights == "", heavy: make([]bool, len(text)), logits: make([]float32, len(text))}
			err = env.WithDevice(c, func(dev *vk.Device) error {
				bar := env.Progress(o.calls(len(text)))
				defer bar.Finish()
				bar.Describe("routing")
				t.device = dev.Info().Name
				err := scope.Run(ctx, dev, func(s *scope.Scope) error { return t.route(ctx, s, o, bar.Step) })
				return command.InterruptedBy(ctx, err)
			})
			if err == nil && o.html != "" {
				var page bytes.Buffer
				if err = writePage(&page, t, c.Args().Slice()); err == nil {
					err = atomicfile.Write(o.html, page.Bytes())
				}
			}
			if err != nil {
				return err
			}
			return show(env, c, t, o.passages)
		},
	}
}

// options holds the flags.
type options struct {
	html, weights           string
	seed                    uint64
	length, batch, passages int
	module                  colt5.ConditionalRoutedFeedForwardConfig
}

func parseOptions(c *cli.Command) (options, error) {
	o := options{
		html: c.String("html"), weights: c.String("weights"), seed: c.Uint64("seed"),
		length: c.Int("length"), batch: c.Int("batch"), passages: c.Int("passages"),
		module: colt5.Default[colt5.ConditionalRoutedFeedForwardConfig](),
	}
	if !c.Args().Present() {
		return o, command.Usagef("route needs a text file")
	}
	for _, name := range []string{"length", "batch", "passages", "dim", "heavy"} {
		if n := c.Int(name); (c.IsSet(name) || n != 0) && (n < 1 || n > math.MaxInt32) {
			return o, command.Usagef("-%s is %d, want 1 to %d", name, n, math.MaxInt32)
		}
	}
	if !strings.Contains(" text md csv json jsonl ", " "+c.String("o")+" ") {
		return o, command.Usagef("-o is %q, want text, md, csv, json or jsonl", c.String("o"))
	}
	if path := c.String("config"); path != "" {
		data, err := input.ReadFile(path, input.ConfigLimit)
		if err == nil {
			err = json.Unmarshal(data, &o.module)
		}
		if err != nil {
			return o, command.Usagef("-config %s: %w", path, err)
		}
	}
	if c.Int("dim") > 0 {
		o.module.Dim = c.Int("dim")
	} else if o.module.Dim == 0 {
		o.module.Dim = 512
	}
	if c.Int("heavy") > 0 {
		o.module.NumHeavyTokens = c.Int("heavy")
	} else if o.module.NumHeavyTokens == 0 {
		o.module.NumHeavyTokens = max(o.length/32, 1)
	}
	return o, nil
}

// calls returns the number of calls for a text: those of whole segments, and one for a shorter last segment.
func (o options) calls(bytes int) int {
	whole, rest := bytes/o.length, min(bytes%o.length, 1)
	return (whole+o.batch-1)/o.batch + rest
}

// textLimit is the maximum length of a text, in bytes. The whole text is in memory, with a logit for each byte.
const textLimit = 256 << 20

// readText concatenates files, with a line break between them.
func readText(paths []string) ([]byte, error) {
	var text []byte
	for i, path := range paths {
		data, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if i > 0 && len(data) > 0 && len(text) > 0 {
			text = append(text, '\n')
		}
		if text = append(text, data...); len(text) > textLimit {
			return nil, fmt.Errorf("the files have more than %v, want at most that", table.Size(textLimit))
		}
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%s is empty, want at least one byte", strings.Join(paths, ", "))
	}
	return text, nil
}

// readFile reads a file, or the standard input if path is "-".
func readFile(path string) ([]byte, error) {
	if path == "-" {
		return input.ReadAll(os.Stdin, "the standard input", textLimit)
	}
	return input.ReadFile(path, textLimit)
}
