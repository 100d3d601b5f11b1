package bench

import (
	"slices"
	"strconv"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/urfave/cli/v3"
)

// writeList writes a row for each number of the sizes of cases.
func writeList(env *command.Env, c *cli.Command, list []cases.Case) error {
	var width int
	for _, x := range list {
		width = max(width, len(x.Name))
	}
	t, err := env.Table(c, table.Text("case", "case", width), table.Number("position", "no.", 0), table.Text("number", "number", len("heavy tokens")),
		table.Text("default", "default", 33), table.Text("cpu_default", "on a CPU driver", 20), table.Text("meaning", "meaning", 0))
	if err != nil {
		return err
	}
	for _, x := range list {
		for i, name := range x.Dims {
			t.Row(x.Name, i+1, name, defaults(x.Sizes, i), defaults(x.SmallSizes, i), cases.Meaning(name))
		}
	}
	err = t.Close()
	x := list[0]
	t.Remark("A size is the numbers of a case in this order, with x between them: -size %s=%s. Where a number has several defaults, "+
		"they are those of the sizes of the case, in order.", x.Name, cases.SizedCase{Case: x, Size: x.Sizes[0]}.Shape())
	return err
}

// defaults formats the i-th number of sizes: once if it is always the same.
func defaults(sizes [][]int, i int) string {
	var list []string
	for _, size := range sizes {
		list = append(list, strconv.Itoa(size[i]))
	}
	if len(slices.Compact(slices.Clone(list))) == 1 {
		list = list[:1]
	}
	return strings.Join(list, ", ")
}
