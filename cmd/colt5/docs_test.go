package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocs requires commands and flags in the documentation to exist, and the loop in Go to be that of the example.
func TestDocs(t *testing.T) {
	flags := map[string][]string{"help": nil, "train": {"-help"}}
	for _, construct := range program.Commands {
		c := construct(&command.Env{})
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				flags[c.Name] = append(flags[c.Name], "-"+name)
			}
		}
	}
	found := 0
	for _, path := range []string{"../../README.md", "../../docs/training.md", "../../Makefile"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		whole := strings.ReplaceAll(string(text), "\\\n", " ")
		for _, call := range regexp.MustCompile("(?:^    |\\n    |`|bin/)colt5 ([a-z]+ [^`#\\n>|;)]*|help)").FindAllStringSubmatch(whole, -1) {
			words := strings.Fields(call[1])
			require.Contains(t, flags, words[0], "%s: colt5 %s", path, call[1])
			found++
			for _, word := range words[1:] {
				if flag, _, _ := strings.Cut(word, "="); strings.HasPrefix(flag, "-") {
					assert.Contains(t, flags[words[0]], flag, "%s: colt5 %s", path, call[1])
				}
			}
		}
	}
	assert.Greater(t, found, 10)

	doc, err := os.ReadFile("../../docs/training.md")
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(doc), "```go\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")
	example, err := os.ReadFile("../../train/example_trainer_test.go")
	require.NoError(t, err)
	assert.Contains(t, string(example), block)
	for _, flag := range regexp.MustCompile("`(-[a-z-]+)").FindAllStringSubmatch(string(doc), -1) {
		assert.Contains(t, append(append(flags["train"], flags["eval"]...), flags["generate"]...), flag[1])
	}
}

func TestHelp(t *testing.T) {
	code, out, remarks := colt5.Run("help")
	assert.Equal(t, command.ExitOK, code)
	assert.Empty(t, remarks)
	for _, want := range []string{"colt5 COMMAND", "train ", "generate ", "eval ", "130  interrupted"} {
		assert.Contains(t, out, want)
	}
	code, out, _ = colt5.Run("train", "-help")
	assert.Equal(t, command.ExitOK, code)
	for _, want := range []string{"--dim C", "(default: 128)", "(lm; default: true)", "(classifier; default: 64)", "default: 16, of classifier 32"} {
		assert.Contains(t, out, want)
	}
	for _, name := range []string{"train", "generate", "eval"} {
		colt5.HelpOf(t, name)
	}
	code, out, _ = colt5.Run("train", "--generate-shell-completion")
	assert.Equal(t, command.ExitOK, code)
	assert.Contains(t, out, "lm\n")
}
