package vk

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// List returns descriptions of the Vulkan devices of this machine, in the order of the loader. Without a Vulkan loader
// or driver the error is ErrNoDevice.
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

// selectDevice returns the index of a device. want is an index, a UUID or a part of the name; if it is empty, the
// environment variable COLT5_DEVICE is used, and without that the best usable device: discrete before integrated,
// virtual, other and cpu.
func selectDevice(infos []Info, want string) (int, error) {
	source := "Options.Device"
	if want == "" {
		want, source = os.Getenv("COLT5_DEVICE"), "COLT5_DEVICE"
	}
	if len(infos) == 0 {
		return 0, fmt.Errorf("vk: %w: the Vulkan loader found no driver; %s", ErrNoDevice, driverAdvice())
	}
	if want == "" {
		return bestDevice(infos)
	}
	found := slices.IndexFunc(infos, func(i Info) bool { return strconv.Itoa(i.Index) == want || uuidEqual(i.UUID, want) })
	if _, err := strconv.ParseUint(want, 10, 64); found < 0 && err != nil { // a number is an index only: "5" must not match "LLVM 15"
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

func bestDevice(infos []Info) (int, error) {
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
