package cases

import (
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/urfave/cli/v3"
)

// NamesFlag is -only: it selects cases by name.
func NamesFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "only", Usage: "only these `NAMES`; bench -list has all"}
}

// SelectedNames returns the names of NamesFlag, which may be given several times.
func SelectedNames(c *cli.Command) []string {
	return command.SplitList(strings.Join(c.StringSlice("only"), ","))
}

// Completions returns completions of NamesFlag and SizeFlag: names, and default sizes on a GPU.
func Completions() map[string]command.Values {
	return map[string]command.Values{
		"only": func() []string { return Names(All()) },
		"size": func() (list []string) {
			for _, c := range All() {
				for _, size := range c.Sizes {
					list = append(list, c.Name+"="+dims.Format(size)+":"+strings.Join(c.Dims, " x "))
				}
			}
			return list
		},
	}
}

// SizeFlag overrides sizes; see Select.
func SizeFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "size", Usage: "`[NAME=]AxB` instead of the sizes of a case, see bench -list; numbers may be lists, 2x8192,16384x512; again for more sizes"}
}
