package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// variant is a line of variants.txt: one SPIR-V file to build.
type variant struct {
	name   string   // shaders/src/spv/NAME.spv
	source string   // shaders/SOURCE
	suite  string   // Debian suite whose glslc compiles it
	flags  []string // glslc flags, defaults included
}

const (
	defaultSuite  = "trixie" // stable: the version of glslc does not change
	defaultTarget = "--target-env=vulkan1.2"
	optimise      = "-O"
)

var (
	nameRule   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	sourceRule = regexp.MustCompile(`^[a-z][a-z0-9_]*\.comp$`)
	flagRule   = regexp.MustCompile(`^(-D[A-Za-z_][A-Za-z0-9_]*(=\S*)?|-O[0s]?|--target-env=vulkan1\.[2-4])$`)
)

// parseVariants reads the text of variants.txt. A line is
//
//	NAME SOURCE.comp [@SUITE] [FLAGS]
//
// and # starts a comment. NAME is the stem of the source, or the stem, an underscore and a suffix. FLAGS are
// -DNAME[=VALUE], --target-env=vulkan1.N (default 1.2), and -O (default), -Os or -O0. @forky selects the compiler of
// that suite.
func parseVariants(text string) ([]variant, error) {
	var vs []variant
	lines := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		v, err := parseVariant(fields)
		if err != nil {
			return nil, fmt.Errorf("shaders/src/variants.txt:%d: %w", i+1, err)
		}
		if first, duplicate := lines[v.name]; duplicate {
			return nil, fmt.Errorf("shaders/src/variants.txt:%d: %s is already on line %d", i+1, v.name, first)
		}
		lines[v.name] = i + 1
		vs = append(vs, v)
	}
	return vs, nil
}

func parseVariant(fields []string) (variant, error) {
	if len(fields) < 2 {
		return variant{}, fmt.Errorf("%q, want NAME SOURCE.comp [@SUITE] [FLAGS]", strings.Join(fields, " "))
	}
	v := variant{name: fields[0], source: fields[1], suite: defaultSuite}
	if !nameRule.MatchString(v.name) {
		return v, fmt.Errorf("name %q, want lower-case letters, digits and underscores", v.name)
	}
	if !sourceRule.MatchString(v.source) {
		return v, fmt.Errorf("source %q, want a file STEM.comp in shaders", v.source)
	}
	stem := strings.TrimSuffix(v.source, path.Ext(v.source))
	if v.name != stem && !strings.HasPrefix(v.name, stem+"_") {
		return v, fmt.Errorf("name %s, want %s or %s_...: the stem of its source", v.name, stem, stem)
	}
	target, level := defaultTarget, optimise
	var defines []string
	for _, f := range fields[2:] {
		suite, isSuite := strings.CutPrefix(f, "@")
		switch {
		case isSuite && nameRule.MatchString(suite):
			v.suite = suite
		case !flagRule.MatchString(f):
			return v, fmt.Errorf("flag %q, want @SUITE, -DNAME[=VALUE], -O, -Os, -O0 or --target-env=vulkan1.N", f)
		case strings.HasPrefix(f, "-D"):
			defines = append(defines, f)
		case strings.HasPrefix(f, "-O"):
			level = f
		default:
			target = f
		}
	}
	v.flags = append([]string{target, level}, defines...)
	return v, nil
}

// target is the value of --target-env, for glslc and spirv-val.
func (v variant) target() string {
	return strings.TrimPrefix(v.flags[0], "--target-env=")
}

func (v variant) optimised() bool { return v.flags[1] != "-O0" }
