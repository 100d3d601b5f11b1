package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/internal/atomicfile"
	"github.com/colt5-vulkan/colt5/internal/spirvpack"
)

// tree is a repository with a directory shaders.
type tree struct {
	root string
}

func (t tree) shaders() string         { return filepath.Join(t.root, "shaders", "src") }
func (t tree) variantsFile() string    { return filepath.Join(t.shaders(), "variants.txt") }
func (t tree) spvDir() string          { return filepath.Join(t.shaders(), "spv") }
func (t tree) manifestFile() string    { return filepath.Join(t.spvDir(), "MANIFEST") }
func (t tree) packFile() string        { return filepath.Join(t.root, "shaders", "spv.pack") }
func (t tree) spv(name string) string  { return filepath.Join(t.spvDir(), name+".spv") }
func (t tree) source(v variant) string { return filepath.Join(t.shaders(), v.source) }

// variants reads variants.txt. A .comp file without a line in it is an error.
func (t tree) variants() ([]variant, error) {
	text, err := os.ReadFile(t.variantsFile())
	if err != nil {
		return nil, err
	}
	vs, err := parseVariants(string(text))
	if err != nil {
		return nil, err
	}
	sources, err := filepath.Glob(filepath.Join(t.shaders(), "*.comp"))
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		name := filepath.Base(s)
		if !slices.ContainsFunc(vs, func(v variant) bool { return v.source == name }) {
			return nil, fmt.Errorf("shaders/src/%s has no line in shaders/src/variants.txt", name)
		}
	}
	return vs, nil
}

// built returns the names of the .spv files without the extension.
func (t tree) built() ([]string, error) {
	files, err := filepath.Glob(t.spv("*"))
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".spv")
	}
	return files, nil
}

// writePack writes shaders/spv.pack, which the library embeds, from the .spv files.
func (t tree) writePack() error {
	names, err := t.built()
	if err != nil {
		return err
	}
	modules := map[string][]byte{}
	for _, name := range names {
		if modules[name], err = os.ReadFile(t.spv(name)); err != nil {
			return err
		}
	}
	pack, err := spirvpack.Pack(modules)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(t.packFile()); err == nil && bytes.Equal(old, pack) {
		return nil
	}
	return atomicfile.Write(t.packFile(), pack)
}

// comparePack lists the differences between shaders/spv.pack and the .spv files. Their bytes are compared, so that a pack that
// another version of Go compressed is no difference.
func (t tree) comparePack() ([]string, error) {
	pack, err := os.ReadFile(t.packFile())
	if errors.Is(err, fs.ErrNotExist) {
		return []string{"shaders/spv.pack: missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	modules, err := spirvpack.Unpack(pack)
	if err != nil {
		return []string{"shaders/spv.pack: " + err.Error()}, nil
	}
	names, err := t.built()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		code, err := os.ReadFile(t.spv(name))
		if err != nil {
			return nil, err
		}
		if packed, ok := modules[name]; !ok || !bytes.Equal(packed, code) {
			found = append(found, name+": shaders/spv.pack does not have the bytes of the .spv file")
		}
		delete(modules, name)
	}
	for name := range modules {
		found = append(found, name+": is in shaders/spv.pack, but has no .spv file")
	}
	return found, nil
}

var include = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*include[ \t]+(?:"([^"]*)"|<([^>]*)>)`)

// sourceHash is the SHA-256 over a source and everything it includes, names and contents, each file once, in the order
// of first use. Includes under a false #if are hashed too; at worst a variant is compiled needlessly.
func (t tree) sourceHash(source string) (string, error) {
	h := sha256.New()
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		text, err := os.ReadFile(filepath.Join(t.shaders(), filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(text))
		h.Write(text)
		for _, m := range include.FindAllSubmatch(text, -1) {
			next, err := t.resolve(name, string(m[1])+string(m[2]))
			if err != nil {
				return fmt.Errorf("shaders/src/%s: %w", name, err)
			}
			if err := add(next); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(source); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// resolve finds an include as glslc does: in the directory of the including file, then in shaders. Names are relative
// to shaders.
func (t tree) resolve(from, name string) (string, error) {
	for _, candidate := range []string{path.Join(path.Dir(from), name), path.Clean(name)} {
		_, err := os.Stat(filepath.Join(t.shaders(), filepath.FromSlash(candidate)))
		if err == nil {
			return candidate, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("include %q not found", name)
}

func hashFile(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return hashBytes(data), nil
}

func hashBytes(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
