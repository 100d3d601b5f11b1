// Command vkbench lists the Vulkan devices of a machine, verifies the library on one of them against golden cases,
// times its kernels and modules, compares them with the device's measured peak rates, writes reports, computes the
// memory of a module's call, shows which passages of a text a router sends to the heavy branch, and repeats everything for
// hours to find changed bits and leaks. `vkbench help` says more.
//
// Each command is a package in internal; what commands share is in the packages below them: cases (what can be timed),
// measure (timing), results and others. What programs share, such as flags, errors, exit codes and tables, is in the
// packages of internal/cli of the module.
package main

import (
	"context"
	"os"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/bench"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/devices"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/plan"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/report"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/route"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/soak"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/tune"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/verify"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
)

// vkbench has its commands in the order of the help text.
var vkbench = command.Program{
	Name: "vkbench", Usage: "inspect Vulkan devices, verify and time conditionally routed layers on them",
	Commands: []command.Constructor{
		devices.ListCommand, devices.InfoCommand, verify.Command, bench.Command, bench.PeakCommand, tune.Command, report.Command,
		report.PlotCommand, plan.Command, route.Command, soak.Command,
	},
}

func main() {
	ctx, stop := command.WithSignals(context.Background())
	code := vkbench.Run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
