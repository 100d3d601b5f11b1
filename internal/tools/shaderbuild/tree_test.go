package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCommittedShaders is make check-shaders without a compiler. It fails after an edit without `make shaders`.
func TestCommittedShaders(t *testing.T) {
	repository := tree{root: filepath.Join("..", "..", "..")}
	vs, err := repository.variants()
	require.NoError(t, err)
	require.NotEmpty(t, vs)
	m, err := repository.manifest()
	require.NoError(t, err)
	found, err := compareTree(repository, vs, m)
	require.NoError(t, err)
	assert.Empty(t, found, "run make shaders")
}

func TestParseVariants(t *testing.T) {
	vs, err := parseVariants(`
# a comment
norm        norm.comp
norm_f16    norm.comp  -DF16 -DTILE=8 -O0   # another comment
norm_bf16   norm.comp  --target-env=vulkan1.3 -DX=a_b @forky -Os
`)
	require.NoError(t, err)
	assert.Equal(t, []variant{
		{"norm", "norm.comp", "trixie", []string{"--target-env=vulkan1.2", "-O"}},
		{"norm_f16", "norm.comp", "trixie", []string{"--target-env=vulkan1.2", "-O0", "-DF16", "-DTILE=8"}},
		{"norm_bf16", "norm.comp", "forky", []string{"--target-env=vulkan1.3", "-Os", "-DX=a_b"}},
	}, vs)
	assert.True(t, vs[0].optimised())
	assert.False(t, vs[1].optimised())
	assert.Equal(t, "vulkan1.3", vs[2].target())
}

func TestParseVariantsErrors(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"no source", "norm", "want NAME SOURCE.comp"},
		{"bad name", "Norm norm.comp", `name "Norm"`},
		{"a path as name", "../norm norm.comp", `name "../norm"`},
		{"a path as source", "norm a/norm.comp", `source "a/norm.comp"`},
		{"not a shader", "norm norm.glsl", `source "norm.glsl"`},
		{"name without the stem", "normal norm.comp", "name normal, want norm or norm_..."},
		{"debug flag", "norm norm.comp -g", `flag "-g"`},
		{"output flag", "norm norm.comp -o x", `flag "-o"`},
		{"old target", "norm norm.comp --target-env=vulkan1.0", `flag "--target-env=vulkan1.0"`},
		{"empty suite", "norm norm.comp @", `flag "@"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseVariants("\n" + c.line + "\n")
			require.ErrorContains(t, err, "shaders/src/variants.txt:2: ")
			assert.ErrorContains(t, err, c.want)
		})
	}
	_, err := parseVariants("norm norm.comp\nnorm norm.comp -DX")
	assert.ErrorContains(t, err, "variants.txt:2: norm is already on line 1")
}

func TestEverySourceHasAVariant(t *testing.T) {
	tr := newTree(t, map[string]string{"variants.txt": "a a.comp\n", "a.comp": "", "b.comp": ""})
	_, err := tr.variants()
	assert.ErrorContains(t, err, "shaders/src/b.comp has no line")
}

func TestSourceHash(t *testing.T) {
	files := map[string]string{
		"a.comp":         "#include \"one.glsl\"\n  #  include <lib/two.glsl>\n// #include \"absent.glsl\"\n",
		"one.glsl":       "#include \"lib/two.glsl\"\n",
		"lib/two.glsl":   "#include \"three.glsl\"\n#include \"one.glsl\"\n", // one.glsl: not beside, but in shaders; a cycle
		"lib/three.glsl": "x",
		"unrelated.glsl": "x",
	}
	tr := newTree(t, files)
	first, err := tr.sourceHash("a.comp")
	require.NoError(t, err)
	assert.Len(t, first, 64)
	for name := range files {
		write(t, tr, name, files[name]+"\n")
		changed, err := tr.sourceHash("a.comp")
		require.NoError(t, err)
		if name == "unrelated.glsl" {
			assert.Equal(t, first, changed, name)
		} else {
			assert.NotEqual(t, first, changed, name)
		}
		write(t, tr, name, files[name])
	}
	again, err := tr.sourceHash("a.comp")
	require.NoError(t, err)
	assert.Equal(t, first, again)

	write(t, tr, "lib/three.glsl", "#include \"absent.glsl\"\n")
	_, err = tr.sourceHash("a.comp")
	assert.ErrorContains(t, err, `shaders/src/lib/three.glsl: include "absent.glsl" not found`)
}

func TestParseVersion(t *testing.T) {
	v, err := parseVersion("shaderc 2025.2-1\nspirv-tools \nglslang 15.1.0+1.4-1\n\nTarget: SPIR-V 1.0\n")
	require.NoError(t, err)
	assert.Equal(t, "shaderc-2025.2-1,spirv-tools,glslang-15.1.0+1.4-1", v)
	_, err = parseVersion("shaderc 2025.2-1\n")
	assert.Error(t, err)
}

func newTree(t *testing.T, files map[string]string) tree {
	t.Helper()
	tr := tree{root: t.TempDir()}
	for name, text := range files {
		write(t, tr, name, text)
	}
	return tr
}

func write(t *testing.T, tr tree, name, text string) {
	t.Helper()
	name = filepath.Join(tr.shaders(), name)
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
}
