package cases

import (
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/dims"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/suggest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Select returns the cases named in only, or all if it is empty. sizes, such as "linear=1,2x3x4" or "1x2x3" for all
// selected cases, replace their default sizes. Errors are usage errors.
func Select(list []Case, only, sizes []string) ([]Case, error) {
	for _, name := range only {
		if !slices.Contains(Names(list), name) {
			return nil, unknownName("-only", name, list)
		}
	}
	if len(only) > 0 {
		list = slices.DeleteFunc(list, func(c Case) bool { return !slices.Contains(only, c.Name) })
	}
	given := map[string][][]int{}
	for _, text := range sizes {
		name, numbers, named := strings.Cut(text, "=")
		if !named {
			name, numbers = "", text
		}
		more, err := dims.ParseList(numbers)
		if err != nil {
			return nil, command.Usagef("-size is %q, %w", text, err)
		}
		if named && !slices.Contains(Names(list), name) {
			if slices.Contains(Names(All()), name) {
				return nil, command.Usagef("-size is %q, but %s is not among the cases of this run", text, name)
			}
			return nil, unknownName("-size", name, list)
		}
		for _, c := range list {
			if named && c.Name != name {
				continue
			}
			if len(more[0]) != len(c.Dims) {
				hint := ""
				switch {
				case strings.Contains(numbers, ","):
					hint = "; commas list values of one number, for another size repeat -size"
				case !named && len(list) > 1:
					hint = "; without NAME= it is a size of every case of this run"
				}
				return nil, command.Usagef("-size is %q, but a size of %s has %s: %s%s", text, c.Name,
					command.Count(len(c.Dims), "number"), strings.Join(c.Dims, " x "), hint)
			}
			for _, size := range more {
				if err := c.checkSize(size); err != nil {
					return nil, command.Usagef("-size is %q: of %s, %w", text, c.Name, err)
				}
			}
			given[c.Name] = append(given[c.Name], more...)
		}
	}
	for i := range list {
		if g := given[list[i].Name]; g != nil {
			list[i].Sizes, list[i].SmallSizes = g, g
		}
	}
	return list, nil
}

// unknownName is the error of a flag that names no case.
func unknownName(flag, name string, list []Case) error {
	return command.Usagef("%s names %q, which is no case%s; vkbench bench -list has them all", flag, name, suggest.Phrase(name, Names(list)))
}

// Expand returns cases at their sizes, each in the given precisions that the device supports, or in F32 if it has no
// 16-bit variants. The remarks name what is left out or differs from the request.
func Expand(list []Case, small bool, caps vk.Caps, requested []pipelines.DType) (sized []SizedCase, remarks []string) {
	supported, remarks := command.SupportedPrecisions(caps, requested)
	var f32Only []string
	for _, c := range list {
		precisions := supported
		if !c.Has16Bit() {
			precisions = []pipelines.DType{pipelines.F32}
			f32Only = append(f32Only, c.Name)
		}
		sized = append(sized, c.expand(small, precisions)...)
	}
	if len(f32Only) > 0 && !slices.Equal(requested, []pipelines.DType{pipelines.F32}) {
		remarks = append(remarks, "In f32 only, without 16-bit variants: "+strings.Join(f32Only, ", ")+".")
	}
	return sized, remarks
}

// CheckNotEmpty returns an error if Expand left nothing to run.
func CheckNotEmpty(sized []SizedCase, remarks []string) error {
	if len(sized) > 0 {
		return nil
	}
	return fmt.Errorf("nothing of what was requested can run here. %s", strings.Join(remarks, " "))
}
