// Package route holds the command that shows which passages of a text a router selects.
package route

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `With -config and -weights, the JSON configuration and the safetensors weights of an Encoder, or checkpoint.json and
model.safetensors of a classifier that colt5 train has trained: the bytes of the text are its token ids, and -router
names the router to show, such as layers.0.conditional_ff.router or a part of that. The page of -html has all routers:
a menu and keys select one, and keys step through the passages. The bytes that a router selects are called heavy,
because they go to the heavy branch.

Without -config: a demonstration with an untrained router. The bytes are the tokens. A token's vector is a
quarter of its byte's embedding (normally distributed, from the seed), plus 8 times the difference between the
mean embedding of the 65 bytes around it and that of the whole text: passages that differ from the rest stand
out. The routing token comes from the seed as well: which passages it selects is arbitrary, but reproducible.
Of each segment -heavy tokens are routed to the heavy branch, of a shorter last segment proportionally fewer.

The text is split into segments of -length bytes, -batch of them per call. An Encoder selects as many bytes of
each as its configuration says, also of a shorter last one. Several files are read as one text, with a line
break between them; - is the standard input.

Soft scores sum to 100 % of their target where coordinate descent has converged. After the usual 20
iterations, down to a small eps, the sum may be far above. The selection does not depend on that.`

// Command shows the routing of a text.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "route", Usage: "show which passages of a text are routed to the heavy branch",
		ArgsUsage: "FILE...", Description: description,
		ShellComplete: command.Complete(map[string]command.Values{"o": func() []string { return append([]string{"text"}, table.Formats...) }}),
		Flags: []cli.Flag{
			command.DeviceFlag(),
			&cli.StringFlag{Name: "o", Value: "text", Usage: "output `FORMAT`: text, or a table of passages as md, csv, json or jsonl"},
			&cli.StringFlag{Name: "html", Usage: "also write a page with the whole text, and all routers, to `FILE`"},
			&cli.StringFlag{Name: "config", Usage: "`FILE` with an Encoder's configuration, JSON (default: the demonstration)"},
			&cli.StringFlag{Name: "weights", Usage: "`FILE` with the Encoder's weights, safetensors (default: initial values of the seed)"},
			&cli.StringFlag{Name: "router", Usage: "show the router with this `NAME`, or with this part of its name (default: the last one)"},
			&cli.Uint64Flag{Name: "seed", Usage: "`S` of initial weights, and of the demonstration"},
			&cli.IntFlag{Name: "dim", HideDefault: true, Usage: "`C`, elements of a token's vector in the demonstration (default: 512)"},
			&cli.IntFlag{Name: "heavy", HideDefault: true, Usage: "`N` heavy tokens of a whole segment in the demonstration (default: length / 32)"},
			&cli.IntFlag{Name: "length", Value: 32768, Usage: "`BYTES` of a segment"},
			&cli.IntFlag{Name: "batch", Value: 2, Usage: "segments per call, `B`"},
			&cli.IntFlag{Name: "passages", Value: 8, Usage: "show the `N` passages with the largest share of heavy bytes, in the order of the text; the table has all"},
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
				if err := command.CheckOutFile("html", o.html, append(c.Args().Slice(), o.config, o.weights)); err != nil {
					return err
				}
			}
			t := &routedText{text: text}
			err = env.WithDevice(c, func(dev *vk.Device) error {
				bar := env.Progress(o.calls(len(text)))
				defer bar.Finish()
				bar.Describe("routing")
				t.device, t.cpu = dev.Info().Name, dev.Caps().CPU
				err := scope.Run(ctx, dev, func(s *scope.Scope) error { return t.run(ctx, s, o, bar.Step) })
				return command.InterruptedBy(ctx, err)
			})
			if err == nil && o.html != "" {
				var page bytes.Buffer
				if err = writePage(&page, t, c.Args().Slice(), o.passages); err == nil {
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

// run makes the model and routes the text.
func (t *routedText) run(ctx context.Context, s *scope.Scope, o options, next func()) (err error) {
	if o.config != "" {
		t.model, err = newEncoder(ctx, s, o, t.text)
	} else {
		t.model, err = newDemo(ctx, s, o, t.text)
	}
	if err == nil {
		t.shown, err = findRouter(t.model.routers, o.router)
	}
	if err != nil {
		return err
	}
	return t.route(ctx, s, o.length, o.batch, o.html != "", next)
}

// findRouter returns the index of the router with a name, or with a part of a name that no other has. Without a name it
// is the last one.
func findRouter(names []string, name string) (int, error) {
	if name == "" {
		return len(names) - 1, nil
	}
	if i := slices.Index(names, name); i >= 0 {
		return i, nil
	}
	var found []int
	for i, x := range names {
		if strings.Contains(x, name) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0:
		return 0, command.Usagef("-router is %q%s; the routers are %s", name, suggest.Phrase(name, names), strings.Join(names, ", "))
	case len(found) > 1:
		return 0, command.Usagef("-router is %q, a part of %s, %s%s; want one", name, names[found[0]], names[found[1]],
			map[bool]string{true: ", .."}[len(found) > 2])
	}
	return found[0], nil
}

// options holds the flags.
type options struct {
	html, config, weights, router string
	seed                          uint64
	length, batch, passages       int
	encoder                       colt5.EncoderConfig // with config
	dim, heavy                    int                 // of the demonstration
}

func parseOptions(c *cli.Command) (options, error) {
	o := options{
		html: c.String("html"), config: c.String("config"), weights: c.String("weights"), router: c.String("router"), seed: c.Uint64("seed"),
		length: c.Int("length"), batch: c.Int("batch"), passages: c.Int("passages"), dim: c.Int("dim"), heavy: c.Int("heavy"),
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
	var err error
	if o.config != "" {
		for _, name := range []string{"dim", "heavy"} {
			if c.IsSet(name) {
				return o, command.Usagef("-%s is of the demonstration; with -config the configuration says it", name)
			}
		}
		o.encoder, err = readConfig(o.config)
		return o, err
	}
	if o.weights != "" {
		return o, command.Usagef("-weights needs -config, the configuration of the Encoder")
	}
	if o.dim == 0 {
		o.dim = 512
	}
	if o.heavy == 0 {
		o.heavy = max(o.length/32, 1)
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
