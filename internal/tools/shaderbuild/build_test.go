package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/spirvpack"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeCompiler returns a fixed module and records the names of the variants it compiles.
type fakeCompiler struct {
	version string
	output  []byte
	fails   map[string]bool // by variant
	invalid map[string]bool

	mu       sync.Mutex
	compiled []string
}

func (c *fakeCompiler) compiler(suite string) (string, error) { return suite + "-" + c.version, nil }

func (c *fakeCompiler) compile(_ tree, v variant) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compiled = append(c.compiled, v.name)
	if c.fails[v.name] {
		return nil, errors.New("syntax error")
	}
	return c.output, nil
}

func (c *fakeCompiler) validate(v variant, file string) error {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	if c.invalid[v.name] {
		return errors.New("invalid module")
	}
	return nil
}

// takeCompiled returns the sorted names of the variants compiled since the last call.
func (c *fakeCompiler) takeCompiled() []string {
	names := c.compiled
	c.compiled = nil
	slices.Sort(names)
	return names
}

func build(tr tree, c compiler, all bool) error {
	_, err := buildTree(tr, c, all)
	return err
}

func check(tr tree, c compiler) error {
	_, err := checkTree(tr, c)
	return err
}

// builtTree returns a tree with two shaders and three variants after a build.
func builtTree(t *testing.T) (tree, *fakeCompiler) {
	t.Helper()
	tr := newTree(t, map[string]string{
		"variants.txt": "a a.comp\na_x a.comp -DX\nb b.comp @forky\n",
		"a.comp":       "#include \"common.glsl\"\n",
		"common.glsl":  "",
		"b.comp":       "",
	})
	c := &fakeCompiler{version: "1", output: module(t, "plain"), fails: map[string]bool{}, invalid: map[string]bool{}}
	require.NoError(t, build(tr, c, false))
	require.Equal(t, []string{"a", "a_x", "b"}, c.takeCompiled())
	require.NoError(t, check(tr, c))
	c.takeCompiled()
	return tr, c
}

func module(t *testing.T, name string) []byte {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("testdata", name+".spv"))
	require.NoError(t, err)
	return code
}

func TestBuildCompilesChangedVariants(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, tr tree)
		want   []string
	}{
		{"nothing", func(*testing.T, tree) {}, nil},
		{"a source", func(t *testing.T, tr tree) { write(t, tr, "b.comp", "x") }, []string{"b"}},
		{"an include", func(t *testing.T, tr tree) { write(t, tr, "common.glsl", "x") }, []string{"a", "a_x"}},
		{"a flag", func(t *testing.T, tr tree) {
			write(t, tr, "variants.txt", "a a.comp\na_x a.comp -DX=2\nb b.comp @forky")
		}, []string{"a_x"}},
		{"a suite", func(t *testing.T, tr tree) { write(t, tr, "variants.txt", "a a.comp\na_x a.comp -DX\nb b.comp") }, []string{"b"}},
		{"a missing file", func(t *testing.T, tr tree) { require.NoError(t, os.Remove(tr.spv("a"))) }, []string{"a"}},
		{"an edited file", func(t *testing.T, tr tree) { write(t, tr, "spv/b.spv", "x") }, []string{"b"}},
		{"a missing manifest", func(t *testing.T, tr tree) { require.NoError(t, os.Remove(tr.manifestFile())) }, []string{"a", "a_x", "b"}},
		{"a new variant", func(t *testing.T, tr tree) {
			write(t, tr, "variants.txt", "a a.comp\na_x a.comp -DX\nb b.comp @forky\nb_y b.comp")
		}, []string{"b_y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, fake := builtTree(t)
			c.change(t, tr)
			if c.want != nil {
				assert.ErrorContains(t, check(tr, fake), "run make shaders")
				assert.Empty(t, fake.takeCompiled(), "staleness is detected without a compiler")
			}
			require.NoError(t, build(tr, fake, false))
			assert.Equal(t, c.want, fake.takeCompiled())
			assert.NoError(t, check(tr, fake))
		})
	}
}

func TestBuildAll(t *testing.T) {
	tr, c := builtTree(t)
	c.version = "2"
	require.NoError(t, build(tr, c, true))
	assert.Equal(t, []string{"a", "a_x", "b"}, c.takeCompiled())
	m, err := tr.manifest()
	require.NoError(t, err)
	assert.Equal(t, "forky-2", m["b"].compiler)
}

func TestBuildRemovesOrphans(t *testing.T) {
	tr, c := builtTree(t)
	write(t, tr, "variants.txt", "a a.comp\nb b.comp @forky\n")
	assert.ErrorContains(t, check(tr, c), "a_x: has a .spv file, but is not in variants.txt")
	assert.ErrorContains(t, check(tr, c), "a_x: is in the manifest, but not in variants.txt")
	require.NoError(t, build(tr, c, false))
	assert.NoFileExists(t, tr.spv("a_x"))
	assert.NoError(t, check(tr, c))
}

// TestPack: shaders/spv.pack has the .spv files, whatever was there before.
func TestPack(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, tr tree)
		want   string
	}{
		"missing": {func(t *testing.T, tr tree) { require.NoError(t, os.Remove(tr.packFile())) }, "shaders/spv.pack: missing"},
		"damaged": {func(t *testing.T, tr tree) { write(t, tr, "../spv.pack", "x") }, "shaders/spv.pack: spirvpack: "},
		"other bytes": {func(t *testing.T, tr tree) {
			writePack(t, tr, map[string][]byte{"a": module(t, "matrix"), "a_x": module(t, "plain"), "b": module(t, "plain")})
		}, "a: shaders/spv.pack does not have the bytes of the .spv file"},
		"one missing": {func(t *testing.T, tr tree) {
			writePack(t, tr, map[string][]byte{"a": module(t, "plain"), "b": module(t, "plain")})
		}, "a_x: shaders/spv.pack does not have the bytes"},
		"one more": {func(t *testing.T, tr tree) {
			code := module(t, "plain")
			writePack(t, tr, map[string][]byte{"a": code, "a_x": code, "b": code, "c": code})
		}, "c: is in shaders/spv.pack, but has no .spv file"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, fake := builtTree(t)
			test.change(t, tr)
			err := check(tr, fake)
			require.ErrorContains(t, err, "run make shaders")
			assert.ErrorContains(t, err, test.want)
			require.NoError(t, build(tr, fake, false))
			assert.Empty(t, fake.takeCompiled())
			assert.NoError(t, check(tr, fake))
		})
	}
}

func writePack(t *testing.T, tr tree, modules map[string][]byte) {
	t.Helper()
	pack, err := spirvpack.Pack(modules)
	require.NoError(t, err)
	write(t, tr, "../spv.pack", string(pack))
}

func TestBuildFailureKeepsOtherVariants(t *testing.T) {
	tr, c := builtTree(t)
	before, err := tr.manifest()
	require.NoError(t, err)
	write(t, tr, "common.glsl", "x")
	c.fails["a"] = true
	require.ErrorContains(t, build(tr, c, false), "a: syntax error")
	after, err := tr.manifest()
	require.NoError(t, err)
	assert.Equal(t, before["a"], after["a"])
	assert.NotEqual(t, before["a_x"], after["a_x"])
	assert.ErrorContains(t, check(tr, c), "a: source changed")
	assert.Equal(t, []string{"a", "a_x", "b"}, slices.Sorted(maps.Keys(after)))
}

func TestInvalidModules(t *testing.T) {
	tr, c := builtTree(t)
	c.invalid["b"] = true
	assert.ErrorContains(t, check(tr, c), "b: invalid module")
	write(t, tr, "b.comp", "x")
	assert.ErrorContains(t, build(tr, c, false), "b: invalid module")
	c.invalid["b"] = false
	assert.ErrorContains(t, check(tr, c), "b: source changed", "an invalid file must not count as built")
}

func TestCheckComparesBytesOfOneVersion(t *testing.T) {
	tr, c := builtTree(t)
	c.output = append(slices.Clone(c.output), 0, 0, 1, 0) // one OpNop more
	assert.ErrorContains(t, check(tr, c), "a: the same compiler gives different bytes")
	c.version = "2"
	report, err := checkTree(tr, c)
	require.NoError(t, err, "another version may give other bytes")
	assert.Contains(t, report, "b: only the source's hash was compared: compiled by forky-1, this machine has forky-2")
	assert.Contains(t, report, "0 are identical when recompiled, 3 were compiled by another version")
}

func TestOptimisedCooperativeMatrix(t *testing.T) {
	tr, c := builtTree(t)
	c.output = module(t, "matrix")
	write(t, tr, "variants.txt", "a a.comp -DY\na_x a.comp -DX -DY -O0\nb b.comp @forky\n")
	err := build(tr, c, false)
	require.ErrorContains(t, err, "a: uses CooperativeMatrixKHR: add -O0")
	assert.NotContains(t, err.Error(), "a_x")
}

func TestMalformedManifest(t *testing.T) {
	tr, _ := builtTree(t)
	write(t, tr, "spv/MANIFEST", "# comment\na b c\n")
	_, err := tr.manifest()
	assert.ErrorContains(t, err, "shaders/src/spv/MANIFEST:2: 3 fields, want 6")
	write(t, tr, "spv/MANIFEST", "a 1 2 trixie v -O\na 1 2 trixie v -O\n")
	_, err = tr.manifest()
	assert.ErrorContains(t, err, "MANIFEST:2: a is a duplicate")
}
