// Package training holds the command that trains a model.
package training

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `colt5 train lm FILE|FOLDER... trains a language model over bytes: an AutoregressiveTransformer. In folders, files
and folders whose names start with a dot are left out.
colt5 train classifier FILE.jsonl trains a classifier of documents: an Encoder over bytes, the mean over the bytes,
and a Linear. A line is an object with a text and a label, a string or a number.

-out gets checkpoints (step-000000000100, ..), losses.csv, evaluations.jsonl, loss.png and index.html, a page with the
losses, the routers and samples. A run with a checkpoint there resumes from it, and computes the bits of a run that
was not interrupted. Its configuration must be the same; only -micro-batches, -save-every, -keep, -evaluate-every,
-held-out-bytes, -sample and, unless the schedule is cosine, -steps may differ. After SIGINT or SIGTERM the step in
progress ends, and a checkpoint is written.

-config reads what -print-config prints, or a part of it: keys that have no flag are there too.`

// Command trains a model.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "train", Usage: "train a language model over bytes, or a classifier of documents",
		ArgsUsage: "lm FILE|FOLDER... | classifier FILE", Description: description,
		ShellComplete: command.Complete(map[string]command.Values{
			"":            func() []string { return []string{string(settings.LM), string(settings.Classifier)} },
			"schedule":    func() []string { return settings.ScheduleNames() },
			"routing":     func() []string { return settings.Routings },
			"held-out-by": func() []string { return []string{"file", "folder"} },
		}),
		Flags: append([]cli.Flag{
			command.DeviceFlag(),
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` of checkpoints, losses and the page"},
			&cli.StringFlag{Name: "init", Usage: "safetensors `FILE` with the initial weights (default: drawn from the seed)"},
			&cli.StringFlag{Name: "replay", Usage: "safetensors `FILE` with what the routers select in each step, of another program: see docs/training.md (lm)"},
			&cli.BoolFlag{Name: "print-config", Usage: "print the configuration, and do nothing else"},
		}, settings.Flags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := parse(env, c)
			if err != nil {
				return err
			}
			if c.Bool("print-config") {
				return r.printConfig()
			}
			return env.WithDevice(c, func(dev *vk.Device) error { return r.run(ctx, dev) })
		},
	}
}

// parse reads flags and arguments, and opens the data.
func parse(env *command.Env, c *cli.Command) (*runner, error) {
	if !c.Args().Present() {
		return nil, command.Usagef("train what? want lm or classifier; see colt5 train -help")
	}
	task, err := settings.ParseTask(c.Args().First())
	if err != nil {
		return nil, command.AsUsage(err)
	}
	r := &runner{env: env, out: c.String("out"), init: c.String("init")}
	if c.IsSet("replay") && task != settings.LM {
		return nil, command.Usagef("-replay is a flag of the task lm, not of %s", task)
	}
	if r.config, err = settings.Parse(task, c); err != nil || c.Bool("print-config") {
		return r, err
	}
	names := c.Args().Tail()
	switch {
	case len(names) == 0:
		return nil, command.Usagef("train %s needs files; see colt5 train -help", task)
	case task == settings.Classifier && len(names) > 1:
		return nil, command.Usagef("train %s takes one file, but got %q too", task, names[1])
	}
	if err := command.CheckOutDir(r.out); err != nil {
		return nil, err
	}
	if task == settings.LM {
		r.data, err = openText(&r.config, names, r.out)
	} else {
		r.data, err = openDocuments(&r.config, names[0])
	}
	if name := c.String("replay"); name != "" && err == nil {
		if r.replay, err = openReplay(name, r.config); err != nil {
			err = fmt.Errorf("-replay %s: %w", name, err)
		}
	}
	if err != nil {
		return nil, command.AsUsage(err)
	}
	return r, nil
}
