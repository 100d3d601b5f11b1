package vk

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// List describes the Vulkan devices of this machine, in the loader's order. With no Vulkan at all the error is ErrNoDevice.
func List() ([]Info, error) {
	in, err := newInstance(false)
	if err != nil {
		return nil, err
	}
	defer in.close()
	list, err := in.physicals()
	if err != nil {
		return nil, err
	}
	return infosOf(list), nil
}

func infosOf(list []*physical) []Info {
	infos := make([]Info, len(list))
	for i, p := range list {
		infos[i] = p.info
	}
	return infos
}

// choose picks a device. want is an index, a UUID or a part of the name; empty is COLT5_DEVICE, and without that the best
// usable device: discrete before integrated, virtual, other, and the CPU last.
func choose(infos []Info, want string) (int, error) {
	source := "Options.Device"
	if want == "" {
		want, source = os.Getenv("COLT5_DEVICE"), "COLT5_DEVICE"
	}
	if len(infos) == 0 {
		return 0, fmt.Errorf("vk: %w: the Vulkan loader found no driver; %s", ErrNoDevice, advice())
	}
	if want == "" {
		return best(infos)
	}
	found := slices.IndexFunc(infos, func(i Info) bool { return strconv.Itoa(i.Index) == want || uuidEqual(i.UUID, want) })
	if _, err := strconv.ParseUint(want, 10, 64); found < 0 && err != nil { // no number: "5" is not a part of "LLVM 15"
		found = slices.IndexFunc(infos, func(i Info) bool { return strings.Contains(strings.ToLower(i.Name), strings.ToLower(want)) })
	}
	if found < 0 {
		return 0, fmt.Errorf("vk: %w: %s is %q, want an index, UUID or part of the name of one of %s", ErrNoDevice, source, want, names(infos))
	}
	if u := infos[found].Unusable; u != "" {
		return 0, fmt.Errorf("vk: %w: %s is %q, which is %s: %s", ErrUnsupported, source, want, infos[found].Name, u)
	}
	return found, nil
}

func best(infos []Info) (int, error) {
	order := []string{"discrete", "integrated", "virtual", "other", "cpu"}
	usable := slices.DeleteFunc(slices.Clone(infos), func(i Info) bool { return i.Unusable != "" })
	if len(usable) == 0 {
		return 0, fmt.Errorf("vk: %w among %s", ErrNoDevice, names(infos))
	}
	first := slices.MinFunc(usable, func(a, b Info) int {
		return cmp.Compare(slices.Index(order, a.Type), slices.Index(order, b.Type))
	})
	return slices.IndexFunc(infos, func(i Info) bool { return i.Index == first.Index }), nil
}

func uuidEqual(uuid, want string) bool {
	return len(want) >= 32 && strings.EqualFold(strings.ReplaceAll(want, "-", ""), uuid)
}

func names(infos []Info) string {
	var list []string
	for _, i := range infos {
		s := fmt.Sprintf("%d %q", i.Index, i.Name)
		if i.Unusable != "" {
			s += " (" + i.Unusable + ")"
		}
		list = append(list, s)
	}
	return "[" + strings.Join(list, ", ") + "]"
}
