// Package command holds what the commands of a program share: the root command, output streams, common flags, and the
// errors that determine the exit code.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/urfave/cli/v3"
)

// Exit codes. The last two are those of a shell for a program that a signal ended.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNoDevice    = 3
	ExitInterrupted = 130
	ExitTerminated  = 143
)

const description = `Everything runs on the device that -device names (an index, a UUID, or a part of the name). The default is the
device in COLT5_DEVICE, or else the best device. Data goes to stdout, progress and remarks to stderr. Flags
come after the command and take one dash or two. %s COMMAND -help describes a command.

Exit codes:
     0  fine
     1  a check failed, or something could not be done
     2  wrong usage: flags, arguments, files that cannot be read
     3  no usable Vulkan device
   130  interrupted (SIGINT); the results so far are written
   143  terminated (SIGTERM); likewise`

// Env holds the output streams of a command.
type Env struct{ Stdout, Stderr io.Writer }

// Constructor makes a command that writes to the streams of env.
type Constructor func(env *Env) *cli.Command

// Program is a program with commands.
type Program struct {
	Name     string
	Usage    string // what it does, in a line
	Commands []Constructor
}

// Run runs the program and returns the exit code. args start with the program's name. ctx should be that of WithSignals.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &checkedWriter{w: stdout}
	env := &Env{Stdout: out, Stderr: stderr}
	err := p.run(ctx, env, args)
	if err == nil && out.err != nil {
		err = fmt.Errorf("writing the output: %w", out.err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
	}
	return exitCode(ctx, err)
}

func (p Program) run(ctx context.Context, env *Env, args []string) error {
	root := p.root(env)
	var unknownTopic error // of help, which does not report it as an error
	root.CommandNotFound = func(_ context.Context, _ *cli.Command, name string) { unknownTopic = noCommand(root, name) }
	return errors.Join(root.Run(ctx, args), unknownTopic)
}

func (p Program) root(env *Env) *cli.Command {
	root := &cli.Command{
		Name:                            p.Name,
		Usage:                           p.Usage,
		UsageText:                       p.Name + " COMMAND [flags] [arguments]",
		Description:                     fmt.Sprintf(description, p.Name),
		Writer:                          env.Stdout,
		ErrWriter:                       env.Stderr,
		Flags:                           []cli.Flag{versionFlag()},
		EnableShellCompletion:           true,
		ConfigureShellCompletionCommand: configureCompletion,
		// Run maps errors to exit codes; the library would call os.Exit.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
	root.Before = func(ctx context.Context, c *cli.Command) (context.Context, error) {
		if c.Bool("version") && c.Args().Present() {
			return ctx, Usagef("-version takes no arguments, but got %q", c.Args().First())
		}
		return ctx, nil
	}
	root.Action = func(_ context.Context, c *cli.Command) error {
		if c.Bool("version") {
			return env.writeVersion(p.Name)
		}
		if c.Args().Present() {
			return noCommand(root, c.Args().First())
		}
		return Usagef("which command? See %s help", p.Name)
	}
	for _, construct := range p.Commands {
		c := construct(env)
		c.OnUsageError, c.Before, c.HideHelpCommand = usageErrorOf, rejectEmptyFlags, true
		// With -help, the library looks for a command of the first argument's name: `colt5 train lm -help`.
		c.CommandNotFound = func(ctx context.Context, c *cli.Command, _ string) { _ = cli.ShowCommandHelp(ctx, root, c.Name) }
		if c.ShellComplete == nil {
			c.ShellComplete = Complete(nil)
		}
		root.Commands = append(root.Commands, c)
	}
	root.Commands = append(root.Commands, helpCommand(root))
	root.OnUsageError = usageErrorOf
	root.ShellComplete = Complete(map[string]Values{"": func() []string { return commandNames(root) }})
	return root
}

// helpCommand replaces the library's, whose errors have another form.
func helpCommand(root *cli.Command) *cli.Command {
	return &cli.Command{
		Name: "help", Aliases: []string{"h"}, Usage: "list the commands, or describe one", ArgsUsage: "[COMMAND]",
		OnUsageError: usageErrorOf, HideHelpCommand: true,
		ShellComplete: Complete(map[string]Values{"": func() []string { return commandNames(root) }}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if name := c.Args().First(); name != "" {
				return cli.ShowCommandHelp(ctx, root, name) // CommandNotFound has the error of an unknown one
			}
			return cli.ShowRootCommandHelp(root)
		},
	}
}

// noCommand is the error of an unknown command.
func noCommand(root *cli.Command, name string) error {
	var names []string
	for _, c := range root.Commands {
		names = append(names, c.Name)
	}
	return Usagef("there is no command %q%s; see %s help", name, suggest.Phrase(name, names), root.Name)
}

// usageErrorOf makes an error of the library's errors about flags.
func usageErrorOf(_ context.Context, c *cli.Command, err error, _ bool) error {
	const unknown = "flag provided but not defined: -" // of the library, as is the text of other errors
	name, ok := strings.CutPrefix(err.Error(), unknown)
	if !ok {
		return Usagef("%w; see %s -help", err, c.FullName())
	}
	name = "-" + name
	if c.Root() == c && slices.ContainsFunc(c.Commands, func(c *cli.Command) bool { return slices.Contains(flagNames(c), name) }) {
		return Usagef("%s comes after the command: %[2]s COMMAND %[1]s; see %[2]s help", name, c.Name)
	}
	return Usagef("there is no flag %s%s; see %s -help", name, suggest.Phrase(name, flagNames(c)), c.FullName())
}

// flagNames returns the names of a command's flags, with a dash.
func flagNames(c *cli.Command) []string {
	names := []string{"-help"}
	for _, f := range c.Flags {
		for _, name := range f.Names() {
			names = append(names, "-"+name)
		}
	}
	return names
}

// rejectEmptyFlags rejects text flags that are set to nothing, which happens with an unset shell variable.
func rejectEmptyFlags(ctx context.Context, c *cli.Command) (context.Context, error) {
	for _, f := range c.Flags {
		empty := false
		switch v := f.Get().(type) {
		case string:
			empty = v == ""
		case []string:
			empty = slices.Contains(v, "") || len(v) == 0
		}
		if name := f.Names()[0]; empty && f.IsSet() {
			return ctx, Usagef("-%s is empty, want a value; see %s -help", name, c.FullName())
		}
	}
	return ctx, nil
}

// NoArgs rejects arguments of a command that takes none.
func NoArgs(c *cli.Command) error {
	if c.Args().Present() {
		return Usagef("%s takes no arguments, but got %q", c.Name, c.Args().First())
	}
	return nil
}

// Count formats a number of things, whose word is in the singular: "1 product", "2 products".
func Count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// usageError is wrong usage: exit code ExitUsage.
type usageError struct{ error }

// Usagef makes an error with exit code ExitUsage.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// AsUsage wraps err as an error with exit code ExitUsage.
func AsUsage(err error) error { return usageError{err} }

func (e usageError) Unwrap() error { return e.error }

func exitCode(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, ErrInterrupted) && errors.Is(context.Cause(ctx), errTerminated):
		return ExitTerminated
	case errors.Is(err, ErrInterrupted):
		return ExitInterrupted
	case errors.As(err, &usageError{}):
		return ExitUsage
	case errors.As(err, &deviceError{}):
		return ExitNoDevice
	}
	return ExitFailed
}
