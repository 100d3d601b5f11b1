package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/spirv"
)

// compiler is the interface to glslc and spirv-val. Tests replace it by a fake.
type compiler interface {
	compiler(suite string) (version string, err error)
	compile(t tree, v variant) ([]byte, error)
	validate(v variant, file string) error
}

// buildTree compiles the variants that changed (or all), removes .spv files without a variant, and writes the manifest,
// spv.pack and constants.go. A variant that does not compile keeps its file and manifest line, and the others are compiled
// nevertheless. The returned report is printed.
func buildTree(t tree, c compiler, all bool) (report string, err error) {
	vs, err := t.variants()
	if err != nil {
		return "", err
	}
	old, err := t.manifest()
	if err != nil {
		return "", err
	}
	if err := t.writeConstants(vs); err != nil {
		return "", err
	}
	if err := os.MkdirAll(t.spvDir(), 0o755); err != nil {
		return "", err
	}
	next := manifest{}
	var pending []variant
	for _, v := range vs {
		reason, err := t.stale(v, old)
		if err != nil {
			return "", err
		}
		if e, ok := old[v.name]; ok {
			next[v.name] = e
		}
		if reason != "" || all {
			pending = append(pending, v)
		}
	}
	entries := make([]entry, len(pending))
	failures := inParallel(pending, func(i int, v variant) (err error) {
		entries[i], err = buildOne(t, c, v)
		return err
	})
	for _, e := range entries {
		if e.name != "" {
			next[e.name] = e
		}
	}
	removed, err := removeOrphans(t, vs)
	if err := errors.Join(err, next.write(t), failures, t.writePack()); err != nil {
		return "", err
	}
	return fmt.Sprintf("shaders: %d compiled, %d up to date, %d removed\n", len(pending), len(vs)-len(pending), removed), nil
}

func buildOne(t tree, c compiler, v variant) (entry, error) {
	version, err := c.compiler(v.suite)
	if err != nil {
		return entry{}, err
	}
	// Hash before compiling, so that a source edited in between counts as stale.
	source, err := t.sourceHash(v.source)
	if err != nil {
		return entry{}, err
	}
	code, err := c.compile(t, v)
	if err != nil {
		return entry{}, err
	}
	if err := checkOptimiser(v, code); err != nil {
		return entry{}, err
	}
	if err := atomicfile.Write(t.spv(v.name), code); err != nil {
		return entry{}, err
	}
	if err := c.validate(v, t.spv(v.name)); err != nil {
		return entry{}, err
	}
	return entry{v.name, source, hashBytes(code), v.suite, version, strings.Join(v.flags, " ")}, nil
}

// checkOptimiser rejects optimised cooperative-matrix code, because the SPIR-V optimiser is known to miscompile it.
func checkOptimiser(v variant, code []byte) error {
	m, err := spirv.Reflect(code, nil)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Capabilities, func(c string) bool { return strings.HasPrefix(c, "CooperativeMatrix") })
	if i >= 0 && v.optimised() {
		return fmt.Errorf("uses %s: add -O0 to its line in shaders/src/variants.txt, the optimiser miscompiles cooperative matrices", m.Capabilities[i])
	}
	return nil
}

func removeOrphans(t tree, vs []variant) (int, error) {
	built, err := t.built()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range built {
		if slices.ContainsFunc(vs, func(v variant) bool { return v.name == name }) {
			continue
		}
		if err := os.Remove(t.spv(name)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// checkTree returns an error unless the committed files match the sources and the compiler, and the SPIR-V passes
// spirv-val.
func checkTree(t tree, c compiler) (report string, err error) {
	vs, err := t.variants()
	if err != nil {
		return "", err
	}
	m, err := t.manifest()
	if err != nil {
		return "", err
	}
	differences, err := compareTree(t, vs, m)
	if err != nil {
		return "", err
	}
	if len(differences) > 0 {
		return "", fmt.Errorf("run make shaders:\n  %s", strings.Join(differences, "\n  "))
	}
	compared := make([]bool, len(vs))
	err = inParallel(vs, func(i int, v variant) (err error) {
		compared[i], err = checkOne(t, c, v, m[v.name])
		return err
	})
	if err != nil {
		return "", err
	}
	same := 0
	for i, v := range vs {
		if compared[i] {
			same++
			continue
		}
		version, err := c.compiler(v.suite)
		if err != nil {
			return "", err
		}
		report += fmt.Sprintf("%s: only the source's hash was compared: compiled by %s, this machine has %s\n", v.name, m[v.name].compiler, version)
	}
	return report + fmt.Sprintf("check-shaders: %d files pass spirv-val; %d are identical when recompiled, %d were compiled by another version\n",
		len(vs), same, len(vs)-same), nil
}

// checkOne recompiles a variant and reports whether the bytes could be compared. Only the same compiler version gives
// the same bytes.
func checkOne(t tree, c compiler, v variant, e entry) (compared bool, err error) {
	version, err := c.compiler(v.suite)
	if err != nil {
		return false, err
	}
	code, err := c.compile(t, v)
	if err != nil {
		return false, err
	}
	if err := checkOptimiser(v, code); err != nil {
		return false, err
	}
	if err := c.validate(v, t.spv(v.name)); err != nil {
		return false, err
	}
	if version != e.compiler {
		return false, nil
	}
	if hashBytes(code) != e.spv {
		return true, errors.New("the same compiler gives different bytes for the same source: run make shaders")
	}
	return true, nil
}

// inParallel calls f for every variant, one per CPU core at a time, and joins the errors in the order of the variants.
func inParallel(vs []variant, f func(i int, v variant) error) error {
	errs := make([]error, len(vs))
	running := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, v := range vs {
		wg.Add(1)
		running <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-running }()
			if err := f(i, v); err != nil {
				errs[i] = fmt.Errorf("%s: %w", v.name, err)
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
