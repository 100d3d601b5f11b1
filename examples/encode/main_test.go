package main

import (
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

const root = "../.."

func TestMain(m *testing.M) { gputest.Main(m) }

// The program runs and prints what the README says it prints.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels, takes 7 s")
	}
	gputest.Device(t) // skips the test where there is no device
	gputest.CountCase()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = w
	printed := make(chan string)
	go func() {
		text, _ := io.ReadAll(r)
		printed <- string(text)
	}()
	func() {
		defer func() { os.Stdout = stdout; w.Close() }()
		err = encode(t.Context())
	}()
	got := <-printed
	require.NoError(t, err)
	assert.Equal(t, readmeBlock(t, "text"), got)
}

// The README contains exactly this program.
func TestReadme(t *testing.T) {
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	assert.Equal(t, string(program), readmeBlock(t, "go"), "README.md and examples/encode/main.go differ")
}

// The program can be copied into another module: it imports nothing but the standard library and the public packages.
func TestImports(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		first, _, _ := strings.Cut(path, "/")
		public := path == "github.com/colt5-vulkan/colt5/colt5" || path == "github.com/colt5-vulkan/colt5/vk"
		assert.True(t, public || !strings.Contains(first, "."), path)
	}
}

// The README's program compiles in a module that has nothing else. The module uses the versions of this module's go.mod, so that the test
// needs no network.
func TestOtherModule(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program, takes 2 s")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		return string(text)
	}
	path, err := filepath.Abs(root)
	require.NoError(t, err)
	_, requirements, found := strings.Cut(read("go.mod"), "\n")
	require.True(t, found)
	write("go.mod", "module example\n"+requirements+
		"\nrequire github.com/colt5-vulkan/colt5 v0.0.0\n\nreplace github.com/colt5-vulkan/colt5 => "+strconv.Quote(path)+"\n")
	write("go.sum", read("go.sum"))
	write("main.go", readmeBlock(t, "go"))
	command := exec.Command("go", "build", "-o", filepath.Join(dir, "encode"), ".")
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
}

// readmeBlock returns the README's only code block in a language.
func readmeBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```\n").FindAllStringSubmatch(string(text), -1)
	require.Len(t, blocks, 1, "code blocks in %s", language)
	return blocks[0][1]
}
