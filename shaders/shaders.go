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

// SPV returns the SPIR-V of a module: name is the first word of a line of variants.txt.
func SPV(name string) ([]byte, error) {
	code, err := files.ReadFile("spv/" + name + ".spv")
	if err != nil {
		return nil, fmt.Errorf("shaders: no module %q: %w", name, err)
	}
	return code, nil
}

// Names lists the modules of variants.txt, sorted.
func Names() ([]string, error) {
	list, err := fs.Glob(files, "spv/*.spv")
	for i, file := range list {
		list[i] = strings.TrimSuffix(path.Base(file), ".spv")
	}
	return list, err
}
