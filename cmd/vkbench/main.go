// Command vkbench shows the Vulkan devices of a machine, verifies the library on one of them against golden cases, times its kernels
// and modules, compares them with what the device can do at best, writes reports, tells what memory a module's call needs, and shows which
// passages of a text a router sends to the heavy branch.
// `vkbench help` says more.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/urfave/cli/v3"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitFine = iota
	exitFailed
	exitUsage
	exitNoDevice
)

const description = `Everything runs on the device that -device names (an index, a UUID, or a part of the name); without it COLT5_DEVICE
decides, and without that the best device. Data goes to stdout, progress and remarks to stderr. Flags take one dash or two.

Exit codes:
   0  fine
   1  a check failed, or something could not be done
   2  wrong usage: flags, arguments, files that cannot be read
   3  no usable Vulkan device`

// errInterrupted ends what the user stopped.
var errInterrupted = errors.New("interrupted")

// interrupted says whether the user did.
func interrupted(ctx context.Context) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return nil
}

// usageError is the caller's mistake.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// deviceError says that no device could be opened.
type deviceError struct{ error }

func (e usageError) Unwrap() error  { return e.error }
func (e deviceError) Unwrap() error { return e.error }

// run is the program; args start with its name.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr}
	err := a.command().Run(ctx, args)
	if err != nil {
		fmt.Fprintln(stderr, "vkbench:", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &usageError{}):
		return exitUsage
	case errors.As(err, &deviceError{}):
		return exitNoDevice
	}
	return exitFailed
}

// app is where the output goes.
type app struct{ stdout, stderr io.Writer }

func (a *app) command() *cli.Command {
	root := &cli.Command{
		Name:        "vkbench",
		Usage:       "look at Vulkan devices, verify and time conditionally routed layers on them",
		Description: description,
		Writer:      a.stdout,
		ErrWriter:   a.stderr,
		Commands:    []*cli.Command{a.devices(), a.info(), a.verify(), a.bench(), a.peak(), a.tune(), a.report(), a.plots(), a.plan(), a.route()},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("there is no command %q; see vkbench help", c.Args().First())
			}
			return usage("which command? See vkbench help")
		},
		// Errors become exit codes in run, not inside of the library.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	wrong := func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return usage("%w; see %s -help", err, c.FullName())
	}
	root.OnUsageError = wrong
	for _, c := range root.Commands {
		c.OnUsageError, c.HideHelpCommand = wrong, true
	}
	return root
}

// noArgs rejects arguments of a command that takes none.
func noArgs(c *cli.Command) error {
	if c.Args().Present() {
		return usage("%s takes no arguments, but got %q", c.Name, c.Args().First())
	}
	return nil
}
