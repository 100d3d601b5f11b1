// Package command holds what all commands of vkbench share: the root command, output streams, common flags, and the
// errors that determine the exit code.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v3"
)

// Exit codes.
const (
	ExitOK = iota
	ExitFailed
	ExitUsage
	ExitNoDevice
)

const description = `Everything runs on the device that -device names (an index, a UUID, or a part of the name). The default is the
device in COLT5_DEVICE, or else the best device. Data goes to stdout, progress and remarks to stderr. Flags
take one dash or two.

Exit codes:
   0  fine
   1  a check failed, or something could not be done
   2  wrong usage: flags, arguments, files that cannot be read
   3  no usable Vulkan device`

// Env holds the output streams of a command.
type Env struct{ Stdout, Stderr io.Writer }

// Constructor makes a command that writes to the streams of env.
type Constructor func(env *Env) *cli.Command

// Run runs vkbench with the given commands and returns the exit code. args start with the program's name.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer, commands ...Constructor) int {
	env := &Env{Stdout: stdout, Stderr: stderr}
	err := env.root(commands).Run(ctx, args)
	if err != nil {
		fmt.Fprintln(stderr, "vkbench:", err)
	}
	return exitCode(err)
}

func (env *Env) root(commands []Constructor) *cli.Command {
	root := &cli.Command{
		Name:        "vkbench",
		Usage:       "inspect Vulkan devices, verify and time conditionally routed layers on them",
		Description: description,
		Writer:      env.Stdout,
		ErrWriter:   env.Stderr,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return Usagef("there is no command %q; see vkbench help", c.Args().First())
			}
			return Usagef("which command? See vkbench help")
		},
		// Run maps errors to exit codes; the library would call os.Exit.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	onUsageError := func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return Usagef("%w; see %s -help", err, c.FullName())
	}
	root.OnUsageError = onUsageError
	for _, construct := range commands {
		c := construct(env)
		c.OnUsageError, c.HideHelpCommand = onUsageError, true
		root.Commands = append(root.Commands, c)
	}
	return root
}

// NoArgs rejects arguments of a command that takes none.
func NoArgs(c *cli.Command) error {
	if c.Args().Present() {
		return Usagef("%s takes no arguments, but got %q", c.Name, c.Args().First())
	}
	return nil
}

// usageError is wrong usage: exit code ExitUsage.
type usageError struct{ error }

// Usagef makes an error with exit code ExitUsage.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// AsUsage wraps err as an error with exit code ExitUsage.
func AsUsage(err error) error { return usageError{err} }

func (e usageError) Unwrap() error { return e.error }

// deviceError says that no device could be opened: exit code ExitNoDevice.
type deviceError struct{ error }

// NoDevice wraps err, a failure to list or open devices, as an error with exit code ExitNoDevice.
func NoDevice(err error) error { return deviceError{err} }

func (e deviceError) Unwrap() error { return e.error }

func exitCode(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usageError{}):
		return ExitUsage
	case errors.As(err, &deviceError{}):
		return ExitNoDevice
	}
	return ExitFailed
}

// ErrInterrupted says that the user stopped the program.
var ErrInterrupted = errors.New("interrupted")

// Interrupted returns ErrInterrupted if ctx is cancelled, and nil otherwise.
func Interrupted(ctx context.Context) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return nil
}

// InterruptedBy returns ErrInterrupted in place of an err that only says that ctx was cancelled, and other errors
// unchanged.
func InterruptedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ErrInterrupted
	}
	return err
}
