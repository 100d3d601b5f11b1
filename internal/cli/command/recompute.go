package command

import "github.com/urfave/cli/v3"

// RecomputeFlag is -recompute: activation checkpointing in backward passes.
func RecomputeFlag() cli.Flag {
	return &cli.IntFlag{Name: "recompute", HideDefault: true,
		Usage: "activation checkpointing of backward passes: `N` layers, from the first one on, compute their activations again; -1: all (default: none)"}
}

// Recompute is the value of RecomputeFlag.
func Recompute(c *cli.Command) (int, error) {
	n := c.Int("recompute")
	if n < -1 {
		return 0, Usagef("-recompute is %d, want a number of layers, or -1 for all", n)
	}
	return n, nil
}
