package main

import (
	"context"
	"errors"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/hostinfo"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const runMain = "COLT5_TEST_VKBENCH" // environment variable: the test binary is vkbench

// TestMain runs vkbench in place of the tests in processes that subprocess starts.
func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
	}
	gputest.Main(m)
}

var program = commandtest.Program(vkbench)

const goldenCase = "../../testdata/golden/topk_00.safetensors"

var names = []string{"devices", "info", "verify", "bench", "peak", "tune", "report", "plot", "plan", "route", "soak"}

func TestUsage(t *testing.T) {
	program.RejectsUsage(t, [][2]string{
		{"", "which command"},
		{"nonsense", `there is no command "nonsense"; see vkbench help`},
		{"bnech", `there is no command "bnech", did you mean "bench"?; see vkbench help`},
		{"help bnech", `there is no command "bnech", did you mean "bench"?`},
		{"-version bench", `-version takes no arguments, but got "bench"`},
		{"-nonsense", "there is no flag -nonsense; see vkbench -help"},
		{"-device 0 bench", "-device comes after the command: vkbench COMMAND -device"},
		{"help -x", "there is no flag -x; see vkbench help -help"},
		{"help bench -x", "there is no flag -x; see vkbench help -help"},
		{"-help bnech", `there is no command "bnech", did you mean "bench"?`},
		{"completion -x", "there is no flag -x; see vkbench completion -help"},
		{"completion bash -x", "there is no flag -x; see vkbench completion bash -help"},
		{"completion bash zsh", `bash takes no arguments, but got "zsh"`},
		{"completion fihs", `completion knows no shell "fihs", did you mean "fish"?; want one of bash, `},
		{"bench --onyl x", `there is no flag -onyl, did you mean "-only"?; see vkbench bench -help`},
	})
}

// TestVersion requires what identifies the program, and the default device.
func TestVersion(t *testing.T) {
	host := hostinfo.Read()
	for _, flag := range []string{"-version", "--version", "-v"} {
		code, out, remarks := program.RunOnDevice(t, flag)
		require.Equal(t, command.ExitOK, code, remarks)
		i := gputest.Device(t).Info()
		assert.Equal(t, []string{"vkbench " + host.Version, "commit: " + host.Commit, "Go: " + runtime.Version(), "OS: " + host.OS, "CPU: " + host.CPU,
			"device: " + i.Name, "driver: " + deviceinfo.Driver(i), ""}, strings.Split(out, "\n"))
	}
	t.Setenv("COLT5_DEVICE", "no such device")
	code, out, remarks := program.Run("-version")
	assert.Equal(t, command.ExitOK, code)
	assert.Empty(t, remarks)
	assert.Contains(t, out, `device: no usable Vulkan device: COLT5_DEVICE is "no such device", want an index`)
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-help"}, {"--help"}} {
		code, out, remarks := program.Run(args...)
		assert.Equal(t, command.ExitOK, code)
		assert.Empty(t, remarks)
		for _, want := range append([]string{"Exit codes", "0  fine", "1  a check failed", "2  wrong usage", "3  no usable", "130  interrupted", "143  terminated"}, names...) {
			assert.Contains(t, out, want)
		}
	}
	for _, name := range names {
		code, out, _ := program.Run(name, "-help")
		assert.Equal(t, command.ExitOK, code)
		assert.Equal(t, name != "plot", strings.Contains(out, "--device"))
		program.HelpOf(t, name)
	}
}

// TestInterrupted requires every command that waits to fail, and to say once that it was interrupted.
func TestInterrupted(t *testing.T) {
	gputest.Device(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range []string{
		"bench -only membership_mask", "report -only membership_mask -out " + t.TempDir(), "tune", "verify " + goldenCase,
		"route " + commandtest.File(t, "text", "some text"), "peak", "soak",
	} {
		code, _, remarks := program.RunContext(ctx, strings.Fields(args)...)
		assert.Equal(t, command.ExitInterrupted, code, args)
		assert.True(t, strings.HasSuffix(remarks, "vkbench: interrupted\n"), "%s: %s", args, remarks)
	}
}

func TestNoDevice(t *testing.T) {
	for _, args := range [][]string{
		{"info", "-device", "no such device"}, {"devices", "-device", "no such device"}, {"verify", goldenCase, "-device=no such device"},
		{"bench", "--device", "no such device"}, {"route", goldenCase, "-device", "no such device"},
		{"peak", "-device", "no such device"}, {"report", "-out", t.TempDir(), "-device", "no such device"},
		{"soak", "-device", "no such device"},
	} {
		code, _, remarks := program.Run(args...)
		assert.Equal(t, command.ExitNoDevice, code, args)
		assert.Contains(t, remarks, `no usable Vulkan device: -device is "no such device", want an index, UUID or part of the name`)
		assert.NotContains(t, remarks, "Options")
	}
}

// TestDocs requires commands and flags in the documentation to exist.
func TestDocs(t *testing.T) {
	flags := map[string][]string{"": {"-version", "--version"}, "help": nil, "completion": nil}
	for _, construct := range vkbench.Commands {
		c := construct(&command.Env{})
		flags[c.Name] = []string{"-help"}
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				flags[c.Name] = append(flags[c.Name], "-"+name, "--"+name)
			}
		}
	}
	found := 0
	for _, path := range []string{"../../README.md", "../../docs/vkbench.md", "../../docs/benchmarks.md", "../../CONTRIBUTING.md"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, call := range regexp.MustCompile("(?:^    |\\n    |[`(;&] ?|cmd/)vkbench ([a-z-][^`#\\n>|;)]*)").FindAllStringSubmatch(string(text), -1) {
			words, name := strings.Fields(call[1]), ""
			if !strings.HasPrefix(words[0], "-") {
				name, words = words[0], words[1:]
			}
			require.Contains(t, flags, name, "%s: vkbench %s", path, call[1])
			found++
			for _, word := range words {
				if flag, _, _ := strings.Cut(word, "="); strings.HasPrefix(flag, "-") {
					assert.Contains(t, flags[name], flag, "%s: vkbench %s", path, call[1])
				}
			}
		}
	}
	assert.Greater(t, found, 20)
}

// TestEmptyFlags requires an error for text flags that are set to nothing.
func TestEmptyFlags(t *testing.T) {
	for _, construct := range vkbench.Commands {
		c := construct(&command.Env{})
		for _, f := range c.Flags {
			switch f.Get().(type) {
			case string, []string:
				code, out, remarks := program.Run(c.Name, "-"+f.Names()[0], "", goldenCase)
				assert.Equal(t, command.ExitUsage, code)
				assert.Empty(t, out)
				assert.Equal(t, "vkbench: -"+f.Names()[0]+" is empty, want a value; see vkbench "+c.Name+" -help\n", remarks)
			}
		}
	}
}

// failingWriter fails after some bytes.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n < len(p) {
		return n, errors.New("no space left")
	}
	return n, nil
}

// TestFailedOutput requires a failure where the output cannot be written, also that of help texts.
func TestFailedOutput(t *testing.T) {
	for _, args := range []string{"help", "-version", "bench -help", "help plan", "plan vit 1", "plan vit 1 -o json"} {
		for _, left := range []int{0, 10} {
			var remarks strings.Builder
			code := vkbench.Run(t.Context(), strings.Fields("vkbench "+args), &failingWriter{left}, &remarks)
			assert.Equal(t, command.ExitFailed, code, args)
			assert.Contains(t, remarks.String(), "no space left", args)
		}
	}
}
