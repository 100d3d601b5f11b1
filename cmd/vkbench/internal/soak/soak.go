// Package soak holds the command that repeats everything for a long time, and compares.
package soak

import (
	"context"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

const description = `A cycle opens the device, runs 12 cases, and closes the device. Cases are the forward pass of every module, its
forward and backward pass in a graph, training steps, a generator, and a model that is trained, saved and loaded.
Each has three sizes. All cases and sizes run once in a random order, then in another order, and so on. A failure
ends the run after its cycle:

- a result whose bits differ from those of the first run of the same case and size, or from those of the same
  call a moment ago;
- a buffer, kernel or command list that a case leaves open, and every error;
- a message of the validation layer, if COLT5_VALIDATE=1 enables it;
- growth of memory: of the process, of the C heap, of the device as the library counts it and as the driver
  does (VK_EXT_memory_budget), and of the numbers of threads, goroutines and open files.

Growth is the Theil-Sen slope over the second half of the cycles; the first half warms up the caches of driver and
C library. It is a failure if the lower end of its 99 % confidence interval, times the number of these cycles,
exceeds the tolerance: 8 MiB for the process, 1 MiB for the C heap and the budget, and nothing for all else.
With fewer than 16 cycles it is not examined.`

// Command runs cases in cycles.
func Command(env *command.Env) *cli.Command {
	return &cli.Command{
		Name: "soak", Usage: "repeat modules, training and devices for a long time; fail on changed bits, growing memory and validation messages",
		Description:   description,
		ShellComplete: command.Complete(map[string]command.Values{"only": func() []string { return names(allJobs()) }}),
		Flags: []cli.Flag{
			command.DeviceFlag(), command.OutputFlag(), command.PrecisionFlag("f32"),
			&cli.DurationFlag{Name: "for", Value: 10 * time.Minute, Usage: "start no cycle after `TIME`; with -cycles alone there is no such limit"},
			&cli.IntFlag{Name: "cycles", HideDefault: true, Usage: "end after `N` cycles"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`SEED` of the order of the cases; results do not depend on it"},
			&cli.StringSliceFlag{Name: "only", Usage: "only these `NAMES`: modules and NAME_backward as in bench, train_step, generate, save_load"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			s, err := newSoak(c)
			if err != nil {
				return err
			}
			return s.run(ctx, env, c)
		},
	}
}

// newSoak reads the flags.
func newSoak(c *cli.Command) (*soak, error) {
	if err := command.NoArgs(c); err != nil {
		return nil, err
	}
	s := &soak{
		cycles: c.Int("cycles"), limit: c.Duration("for"), first: map[string]digest{}, drain: (*vk.Device).DrainMessages,
		open: func() (*vk.Device, error) { return vk.Open(vk.Options{Device: c.String("device")}) },
	}
	s.seed(c.Uint64("seed"))
	switch {
	case s.limit <= 0:
		return nil, command.Usagef("-for is %v, want more than 0", s.limit)
	case c.IsSet("cycles") && s.cycles < 1:
		return nil, command.Usagef("-cycles is %d, want at least 1", s.cycles)
	case c.IsSet("cycles") && !c.IsSet("for"):
		s.limit = 0
	}
	var err error
	if s.precisions, err = command.ParsePrecisions(c.String("precision")); err != nil {
		return nil, err
	}
	s.jobs, err = selectJobs(allJobs(), cases.SelectedNames(c))
	return s, err
}
