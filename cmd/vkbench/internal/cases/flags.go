package cases

import (
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/command"
	"github.com/urfave/cli/v3"
)

// OnlyFlag selects cases by name; see Only.
func OnlyFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "only", Usage: "only these `NAMES`, of " + strings.Join(Names(All()), ", ")}
}

// Only returns the names of OnlyFlag, which may be given several times.
func Only(c *cli.Command) []string {
	return command.SplitList(strings.Join(c.StringSlice("only"), ","))
}

// CheckOnly rejects an OnlyFlag without names, as an unset shell variable makes it.
func CheckOnly(c *cli.Command) error {
	if c.IsSet("only") && len(Only(c)) == 0 {
		return command.Usagef("-only names nothing, want some of %s", strings.Join(Names(All()), ", "))
	}
	return nil
}

// SizeFlag overrides sizes; see Select.
func SizeFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "size", Usage: "`[NAME=]AxB` instead of the sizes of a case; numbers may be lists, 2x8192,16384x512; again for more sizes"}
}
