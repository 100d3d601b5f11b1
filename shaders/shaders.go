// Package shaders holds the compute kernels: GLSL sources, the SPIR-V that glslc makes of them, embedded, and Go names for the ids of
// their specialisation constants (constants.go, generated from the GLSL).
package shaders

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed spv/*.spv
var files embed.FS

// SPV is the SPIR-V of a line of variants.txt.
func SPV(name string) ([]byte, error) {
	code, err := files.ReadFile("spv/" + name + ".spv")
	if err != nil {
		return nil, fmt.Errorf("shaders: there is no %q: %w", name, err)
	}
	return code, nil
}

// Names lists what SPV knows: the lines of variants.txt.
func Names() ([]string, error) {
	list, err := fs.Glob(files, "spv/*.spv")
	for i, file := range list {
		list[i] = strings.TrimSuffix(path.Base(file), ".spv")
	}
	return list, err
}
