// Package shaders holds the compute kernels: GLSL sources, and the SPIR-V that glslc makes of them, embedded.
package shaders

import (
	"embed"
	"fmt"
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
