// Package shaders holds the compute kernels: the SPIR-V that glslc makes of the GLSL sources beside it, embedded, and Go names
// for the ids of their specialisation constants (constants.go, generated from the GLSL).
package shaders

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/colt5-vulkan/colt5/internal/spirvpack"
)

// pack has the files of spv, which are not part of the module that go get downloads, in a twenty-fifth of their size.
//
//go:embed spv.pack
var pack []byte

// modules unpacks all modules, 5.5 MB in some 50 ms, when the first one is needed.
var modules = sync.OnceValues(func() (map[string][]byte, error) { return spirvpack.Unpack(pack) })

// SPV returns a copy of the SPIR-V of a module: name is the first word of a line of variants.txt.
func SPV(name string) ([]byte, error) {
	list, err := modules()
	if err != nil {
		return nil, fmt.Errorf("shaders: %w", err)
	}
	code, ok := list[name]
	if !ok {
		return nil, fmt.Errorf("shaders: no module %q", name)
	}
	return slices.Clone(code), nil
}

// Names lists the modules of variants.txt, sorted.
func Names() ([]string, error) {
	list, err := modules()
	if err != nil {
		return nil, fmt.Errorf("shaders: %w", err)
	}
	return slices.Sorted(maps.Keys(list)), nil
}
