package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// toolbox runs the compilers that scripts/vulkan-tools installs.
type toolbox struct {
	script string

	mu       sync.Mutex
	versions map[string]string // of the installed suites
}

func newToolbox(root string) *toolbox {
	return &toolbox{script: filepath.Join(root, "scripts", "vulkan-tools"), versions: map[string]string{}}
}

// run runs a command of the script. If it fails, the error contains its output.
func (b *toolbox) run(suite string, args ...string) (string, error) {
	cmd := exec.Command(b.script, args...)
	cmd.Env = append(os.Environ(), "SUITE="+suite)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s failed, %v\n%s%s", args[0], exit, out.Bytes(), diag.Bytes())
	}
	return out.String(), err
}

// compiler installs a suite if necessary and returns the version of its compiler as one word.
func (b *toolbox) compiler(suite string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.versions[suite]; ok {
		return v, nil
	}
	if _, err := b.run(suite, "setup"); err != nil {
		return "", err
	}
	out, err := b.run(suite, "glslc", "--version")
	if err != nil {
		return "", err
	}
	v, err := parseVersion(out)
	if err != nil {
		return "", err
	}
	b.versions[suite] = v
	return v, nil
}

// parseVersion joins the lines "shaderc V", "spirv-tools V" and "glslang V" of glslc --version. The bytes depend on all
// three.
func parseVersion(out string) (string, error) {
	var parts []string
	for _, line := range strings.Split(out, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			break
		}
		switch f[0] {
		case "shaderc", "spirv-tools", "glslang":
			parts = append(parts, strings.Join(f, "-"))
		}
	}
	if len(parts) != 3 {
		return "", fmt.Errorf("glslc --version says %q, want lines for shaderc, spirv-tools and glslang", out)
	}
	return strings.Join(parts, ","), nil
}

// compile returns the SPIR-V of v. Warnings are errors.
func (b *toolbox) compile(t tree, v variant) ([]byte, error) {
	dir, err := os.MkdirTemp("", "shaderbuild-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, v.name+".spv")
	args := append([]string{"glslc", "-Werror", "-I", t.shaders()}, v.flags...)
	if _, err := b.run(v.suite, append(args, "-o", out, t.source(v))...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// validate runs spirv-val on a file.
func (b *toolbox) validate(v variant, file string) error {
	_, err := b.run(v.suite, "spirv-val", "--target-env", v.target(), file)
	return err
}
