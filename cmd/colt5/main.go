// Command colt5 trains models of the library on a Vulkan device, generates text with them, and evaluates them. `colt5
// help` says more.
//
// Each command is a package in internal; what commands share is in the packages below them: settings (the configuration
// of a run), model (modules, losses, weights), history (losses and evaluations), dashboard (the page), sampling.
package main

import (
	"context"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/evaluate"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/generate"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/training"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
)

// program has its commands in the order of the help text.
var program = command.Program{
	Name: "colt5", Usage: "train conditionally routed transformers on any Vulkan GPU, and generate text with them",
	Commands: []command.Constructor{training.Command, generate.Command, evaluate.Command},
}

func main() {
	ctx, stop := command.WithSignals(context.Background())
	code := program.Run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
