package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompletion has command lines up to the word that is completed, which is included only if it starts with a dash.
func TestCompletion(t *testing.T) {
	for _, test := range []struct {
		args   string
		want   []string // among the words
		absent string
	}{
		{"", names, ""},
		{"bench -", []string{"-only", "-size", "-fail-above", "-help", "-list"}, "--only"},
		{"bench --o", nil, "--only"}, // -o exists: its values
		{"bench --on", []string{"--only"}, "--size"},
		{"bench -only", []string{"linear", "topk", "block_length"}, "-only"},
		{"bench -size", []string{"linear=65536x256x512", "rmsnorm=65536x512"}, ""},
		{"bench -o", []string{"md", "csv", "json", "jsonl"}, "text"},
		{"route -o", []string{"text", "md"}, ""},
		{"report -only", []string{"linear"}, ""},
		{"tune -precision", []string{"f32", "f16", "bf16"}, ""},
		{"verify -only", []string{"topk", "vit"}, "rmsnorm"},
		{"verify -only topk -pre", []string{"-precision"}, "-only"},
		{"plan", []string{"block", "encoder"}, "rmsnorm"},
		{"plan block", nil, "block"},
		{"verify", nil, "topk"},
		{"completion", []string{"bash", "zsh", "fish", "pwsh"}, ""},
	} {
		code, out, remarks := program.Run(append(strings.Fields(test.args), "--generate-shell-completion")...)
		assert.Equal(t, command.ExitOK, code, test.args)
		assert.Empty(t, remarks, test.args)
		var words []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			words = append(words, word)
		}
		assert.Subset(t, words, test.want, test.args)
		assert.NotContains(t, words, test.absent, test.args)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		code, out, _ := program.Run("completion", shell)
		assert.Equal(t, command.ExitOK, code)
		assert.Contains(t, out, "--generate-shell-completion", shell)
	}
}

// TestCompletionBash completes in a shell.
func TestCompletionBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "vkbench")))
	const script = `
_get_comp_words_by_ref() { :; } # of the package bash-completion
source <(vkbench completion bash)
COMP_WORDS=(vkbench "$@") COMP_CWORD=$#
__vkbench_bash_autocomplete
echo "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"be": "bench", "verify -only coor": "coordinate_descent", "bench -fail": "-fail-above", "plan autoregressive_": "autoregressive_transformer",
		"bench -size linear=2048x2": "linear=2048x2048x512", "verify test": "",
	} {
		c := exec.Command(bash, append([]string{"-c", script, "bash"}, strings.Fields(line)...)...)
		c.Env = append(os.Environ(), runMain+"=1", "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), line)
	}
}
