package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
)

// entry is a line of the manifest: source, flags and compiler of a .spv file.
type entry struct {
	name     string
	source   string // SHA-256 of the source with its includes
	spv      string // SHA-256 of the .spv file
	suite    string
	compiler string // versions of glslc and its libraries
	flags    string
}

const manifestHead = `# Written by "make shaders", checked by "make check-shaders": do not edit.
# NAME  SHA-256 of the source with its includes  SHA-256 of NAME.spv  SUITE  COMPILER  FLAGS
`

type manifest map[string]entry

func (t tree) manifest() (manifest, error) {
	text, err := os.ReadFile(t.manifestFile())
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	m := manifest{}
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.SplitN(line, " ", 6)
		if len(f) != 6 {
			return nil, fmt.Errorf("shaders/src/spv/MANIFEST:%d: %d fields, want 6: delete the file and run make shaders", i+1, len(f))
		}
		if _, duplicate := m[f[0]]; duplicate {
			return nil, fmt.Errorf("shaders/src/spv/MANIFEST:%d: %s is a duplicate: delete the file and run make shaders", i+1, f[0])
		}
		m[f[0]] = entry{f[0], f[1], f[2], f[3], f[4], f[5]}
	}
	return m, nil
}

// write writes the manifest, sorted by name, unless it is unchanged.
func (m manifest) write(t tree) error {
	var lines []string
	for _, e := range m {
		lines = append(lines, strings.Join([]string{e.name, e.source, e.spv, e.suite, e.compiler, e.flags}, " ")+"\n")
	}
	slices.Sort(lines)
	text := []byte(manifestHead + strings.Join(lines, ""))
	if old, err := os.ReadFile(t.manifestFile()); err == nil && string(old) == string(text) {
		return nil
	}
	return atomicfile.Write(t.manifestFile(), text)
}

// stale returns the reason why the .spv file of v does not match v and its source, or "". It needs no compiler and
// ignores the compiler version, so that an update of a suite alone makes nothing stale.
func (t tree) stale(v variant, m manifest) (string, error) {
	e, ok := m[v.name]
	if !ok {
		return "not in the manifest", nil
	}
	source, err := t.sourceHash(v.source)
	if err != nil {
		return "", err
	}
	switch {
	case e.source != source:
		return "source changed", nil
	case e.suite != v.suite:
		return fmt.Sprintf("compiled with %s, want %s", e.suite, v.suite), nil
	case e.flags != strings.Join(v.flags, " "):
		return fmt.Sprintf("compiled with flags %s, want %s", e.flags, strings.Join(v.flags, " ")), nil
	}
	spv, err := hashFile(t.spv(v.name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no .spv file", nil
	case err != nil:
		return "", err
	case e.spv != spv:
		return "the .spv file differs from the manifest", nil
	}
	return "", nil
}

// compareTree lists the differences between variants.txt, the sources, constants.go, the manifest, the .spv files and
// spv.pack.
func compareTree(t tree, vs []variant, m manifest) ([]string, error) {
	var found []string
	constants, err := t.goConstants(vs)
	if err != nil {
		return nil, err
	}
	switch stale, err := t.constantsStale(constants); {
	case err != nil:
		return nil, err
	case stale:
		found = append(found, "shaders/constants.go: differs from the declarations in the sources")
	}
	named := map[string]bool{}
	for _, v := range vs {
		named[v.name] = true
		reason, err := t.stale(v, m)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			found = append(found, v.name+": "+reason)
		}
	}
	for name := range m {
		if !named[name] {
			found = append(found, name+": is in the manifest, but not in variants.txt")
		}
	}
	built, err := t.built()
	if err != nil {
		return nil, err
	}
	for _, name := range built {
		if !named[name] {
			found = append(found, name+": has a .spv file, but is not in variants.txt")
		}
	}
	packed, err := t.comparePack()
	if err != nil {
		return nil, err
	}
	found = append(found, packed...)
	slices.Sort(found)
	return found, nil
}
