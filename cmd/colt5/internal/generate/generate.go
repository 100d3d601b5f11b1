// Package generate holds the command that generates text with a language model.
package generate

import (
	"context"
	"errors"
	"math"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/sampling"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/input"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `The model is a checkpoint, the newest one of a folder of colt5 train, or a file of weights that colt5 train has
saved. Without a PROMPT it is read from the standard input; the prompt is not printed. The bytes are written as they
are chosen; on a terminal, control characters are replaced by ·.

The rows, keys and values of earlier windows are kept on the device. A seed gives the same text on every run; with
-temperature 0, the text is that of the largest logits.`

// Command generates text.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "generate", Usage: "generate text with a language model",
		ArgsUsage: "FOLDER|FILE [PROMPT]", Description: description,
		Flags: []cli.Flag{
			command.DeviceFlag(),
			&cli.IntFlag{Name: "length", Value: 500, Usage: "`BYTES` to generate"},
			&cli.FloatFlag{Name: "temperature", Value: 0.8, Usage: "`T` that divides the logits; 0: always the most likely byte"},
			&cli.IntFlag{Name: "top-k", Usage: "choose among the `K` most likely bytes; 0: all"},
			&cli.FloatFlag{Name: "top-p", Usage: "choose among the most likely bytes whose probabilities sum to `P`; 0: all"},
			&cli.Uint64Flag{Name: "seed", Usage: "`S` of the choices"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parse(c)
			if err != nil {
				return err
			}
			return env.WithDevice(c, func(dev *vk.Device) error { return o.run(ctx, env, dev) })
		},
	}
}

// options hold flags and arguments.
type options struct {
	source   model.Source
	prompt   []byte
	length   int
	sampling sampling.Options
}

const promptLimit = 1 << 24

func parse(c *cli.Command) (o options, err error) {
	o.length = c.Int("length")
	o.sampling = sampling.Options{Temperature: c.Float("temperature"), TopK: c.Int("top-k"), TopP: c.Float("top-p"), Seed: c.Uint64("seed")}
	if o.length < 1 || o.length > math.MaxInt32 {
		return o, command.Usagef("-length is %d, want 1 to %d", o.length, math.MaxInt32)
	}
	if err := o.sampling.Check(); err != nil {
		return o, command.Usagef("-%w", err)
	}
	switch args := c.Args().Slice(); len(args) {
	case 0:
		return o, command.Usagef("generate needs a folder of checkpoints or a file of weights")
	case 1, 2:
		if o.source, err = model.Find(args[0]); err != nil {
			return o, err
		}
		if len(args) == 2 {
			o.prompt = []byte(args[1])
		} else if o.prompt, err = input.ReadAll(os.Stdin, "the standard input", promptLimit); err != nil {
			return o, command.AsUsage(err)
		}
	default:
		return o, command.Usagef("generate takes one prompt, but got %q too: quote it", args[2])
	}
	switch t := o.source.Config.Transformer; {
	case o.source.Config.Task != settings.LM:
		return o, command.Usagef("the model is a %s, want a language model", o.source.Config.Task)
	case o.source.Config.Routing != "learned":
		return o, command.Usagef("the model was trained with -routing=%s, want learned: a generator selects with the routers", o.source.Config.Routing)
	case !t.CausalQueryRouting && len(o.prompt)+o.length > window(t):
		return o, command.Usagef("the model was trained with -causal=false, so a byte depends on later ones: prompt and -length are %d bytes, "+
			"want at most a window, %d", len(o.prompt)+o.length, window(t))
	case len(o.prompt) == 0:
		return o, command.Usagef("the prompt is empty, want at least one byte")
	}
	return o, nil
}

func window(t *colt5.AutoregressiveTransformerConfig) int {
	if t.HeavyWindowSize > 0 {
		return t.HeavyWindowSize
	}
	return t.LightWindowSize
}

func (o options) run(ctx context.Context, env *command.Env, dev *vk.Device) (err error) {
	work := context.WithoutCancel(ctx)
	m, err := o.source.Open(work, dev)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	g, err := colt5.NewGenerator(work, m.Transformer, len(o.prompt)+o.length)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	out, flush := env.Stdout, func() error { return nil }
	if progress.IsTerminal(env.Stdout) {
		t := &terminal{out: env.Stdout}
		out, flush = t, t.flush
	}
	err = sampling.Generate(ctx, g, o.prompt, o.length, o.sampling, func(token int) error {
		_, err := out.Write([]byte{byte(token)})
		return err
	})
	return errors.Join(command.InterruptedBy(ctx, err), flush())
}
