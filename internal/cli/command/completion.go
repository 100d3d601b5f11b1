package command

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/urfave/cli/v3"
)

// Values lists the completions of a flag or an argument. Each may be followed by a colon and a description.
type Values func() []string

// Complete returns the completion of a command: the names of its flags, and the values of flags by name. The values of
// the key "" are those of the first argument. Flags that DeviceFlag, OutputFlag and PrecisionFlag make need no values.
// Where there are none, shells complete the names of files.
func Complete(values map[string]Values) cli.ShellCompleteFunc {
	return func(_ context.Context, c *cli.Command) {
		last := ""
		if args := c.Args().Slice(); len(args) > 0 {
			last = args[len(args)-1]
		}
		dashes := last[:len(last)-len(strings.TrimLeft(last, "-"))]
		name := strings.TrimPrefix(last, dashes)
		var list []string
		switch {
		case dashes != "" && name != "" && slices.Contains(flagNames(c), "-"+name): // its value follows
			list = valuesOf(name, values)
		case dashes != "":
			list = flagCompletions(c, dashes, name)
		case c.Args().Len() == 0:
			list = valuesOf("", values)
		}
		for _, line := range list {
			fmt.Fprintln(c.Root().Writer, line)
		}
	}
}

// configureCompletion makes the library's command completion visible, and its errors like those of other commands.
func configureCompletion(c *cli.Command) {
	c.Hidden, c.Usage = false, "print a script that completes commands, flags and names in bash, zsh, fish or PowerShell"
	c.OnUsageError, c.HideHelpCommand = usageErrorOf, true
	var shells []string
	for _, shell := range c.Commands {
		shells = append(shells, shell.Name)
		shell.OnUsageError, shell.HideHelpCommand = usageErrorOf, true
		shell.Before = func(ctx context.Context, c *cli.Command) (context.Context, error) { return ctx, NoArgs(c) }
	}
	c.Action = func(_ context.Context, c *cli.Command) error {
		if shell := c.Args().First(); shell != "" {
			return Usagef("completion knows no shell %q%s; want one of %s", shell, suggest.Phrase(shell, shells), strings.Join(shells, ", "))
		}
		return cli.ShowSubcommandHelp(c)
	}
}

// commandNames lists the commands of a program, with what they do.
func commandNames(root *cli.Command) (list []string) {
	for _, c := range root.VisibleCommands() {
		list = append(list, c.Name+":"+c.Usage)
	}
	return list
}

func valuesOf(flag string, values map[string]Values) []string {
	for _, list := range []map[string]Values{values, {"device": deviceNames, "o": formats, "precision": precisions}} {
		if f := list[flag]; f != nil {
			return f()
		}
	}
	return nil
}

// flagCompletions returns the flags that start with a prefix, with as many dashes as were typed.
func flagCompletions(c *cli.Command, dashes, prefix string) []string {
	var list []string
	for _, f := range c.Flags { // with -help, which the library adds
		line := dashes + f.Names()[0]
		if d, ok := f.(cli.DocGenerationFlag); ok {
			line += ":" + strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		list = append(list, line)
	}
	return slices.DeleteFunc(list, func(line string) bool { return !strings.HasPrefix(line, dashes+prefix) })
}

// deviceNames lists the devices. Without a loader or driver there are none.
func deviceNames() []string {
	devices, err := vk.List()
	if err != nil {
		return nil
	}
	var list []string
	for _, i := range devices {
		list = append(list, strconv.Itoa(i.Index)+":"+i.Name)
	}
	return list
}

func formats() []string { return table.Formats }

func precisions() []string { return []string{"f32", "f16", "bf16"} }
