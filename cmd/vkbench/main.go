// Command vkbench lists the Vulkan devices of a machine, verifies the library on one of them against golden cases,
// times its kernels and modules, compares them with the device's measured peak rates, writes reports, computes the
// memory of a module's call, and shows which passages of a text a router sends to the heavy branch. `vkbench help` says
// more.
//
// Each command is a package in internal; what commands share is in the packages below them: command (flags, errors,
// exit codes), cases (what can be timed), measure (timing), table, results and others.
package main

import (
	"context"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/bench"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/devices"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/plan"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/report"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/route"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/tune"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/verify"
)

// commands are all commands, in the order of the help text.
var commands = []command.Constructor{
	devices.ListCommand, devices.InfoCommand, verify.Command, bench.Command, bench.PeakCommand, tune.Command, report.Command,
	report.PlotCommand, plan.Command, route.Command,
}

func main() {
	ctx, stop := command.WithSignals(context.Background())
	code := command.Run(ctx, os.Args, os.Stdout, os.Stderr, commands...)
	stop()
	os.Exit(code)
}
