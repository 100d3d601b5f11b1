package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/charttest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const runMain = "COLT5_TEST_COLT5" // environment variable: the test binary is colt5

// TestMain runs colt5 in place of the tests in processes that subprocess starts.
func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
	}
	gputest.Main(m)
}

var colt5 = commandtest.Program(program)

// subprocess returns colt5 as a process of its own.
func subprocess(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), runMain+"=1", "COLT5_GPU_CASES_FILE=")
	return c
}

// corpus writes a folder of files that are easy to learn, some of which are held out.
func corpus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 8 {
		text := strings.Repeat("the cat sat on the mat; ", 20+i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.txt", i)), []byte(text), 0o644))
	}
	return dir
}

// tiny are the flags of a language model that trains in a second or two.
func tiny(out, data string, more ...string) []string {
	return append(strings.Fields("train lm -dim 16 -depth 1 -heads 2 -dim-head 8 -window 8 -q 2 -kv 8 -routes 1 -length 32 -batch 4 -rate 0.02"+
		" -schedule constant -warm-up 0 -evaluate-every 0 -save-every 0 -held-out 4 -sample 0 -out "+out+" "+data), more...)
}

// train runs a training and returns what it writes to stderr.
func train(t *testing.T, args []string) string {
	t.Helper()
	code, out, remarks := colt5.RunOnDevice(t, args...)
	require.Equal(t, command.ExitOK, code, "%s\n%s", out, remarks)
	return remarks
}

// bits are the contents of the files of a checkpoint.
func bits(t *testing.T, out string, step int) map[string]string {
	t.Helper()
	list := map[string]string{}
	for _, name := range []string{"model.safetensors", "optimizer.safetensors", "losses.csv"} {
		data, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("step-%012d", step), name))
		require.NoError(t, err)
		list[name] = string(data)
	}
	return list
}

// losses reads a column of losses.csv.
func losses(t *testing.T, out string) (list []float64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(out, "losses.csv"))
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		x, err := strconv.ParseFloat(strings.Split(line, ",")[1], 64)
		require.NoError(t, err)
		list = append(list, x)
	}
	return list
}

// trained is a trained model.
type trained struct {
	out, data, remarks string
	steps              int
}

// flags are those of the training, which evaluates twice.
func (m trained) flags(out string, more ...string) []string {
	return tiny(out, m.data, append(more, "-steps", strconv.Itoa(m.steps), "-evaluate-every", strconv.Itoa(m.steps/2))...)
}

// checkpoint is the folder of the last step.
func (m trained) checkpoint() string { return filepath.Join(m.out, fmt.Sprintf("step-%012d", m.steps)) }

// TestLanguageModel trains a model once, for several tests.
func TestLanguageModel(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 30 s on CPU drivers; TestTrainer of package train trains a language model")
	}
	m := trained{out: t.TempDir(), data: corpus(t), steps: 60}
	m.remarks = train(t, m.flags(m.out, "-sample", "40"))
	t.Run("files", m.testFiles)
	t.Run("init", m.testInit)
	t.Run("generate", m.testGenerate)
	t.Run("prompt", m.testPrompt)
	t.Run("eval", m.testEval)
}

// testFiles requires the loss to fall to a half, and the files of the run.
func (m trained) testFiles(t *testing.T) {
	out := m.out
	list := losses(t, out)
	require.Len(t, list, m.steps)
	assert.Greater(t, list[0], 5.0, "of 256 classes")
	assert.Less(t, list[m.steps-1], list[0]/2)
	assert.Regexp(t, `6 files of .* to train with, 2 files of .* held out; a new run; [0-9,]+ parameters on`, m.remarks)
	assert.Regexp(t, fmt.Sprintf(`step %d: training [0-9.]+, held out [0-9.]+ bits per byte`, m.steps/2), m.remarks)

	picture, err := os.ReadFile(filepath.Join(out, "loss.png"))
	require.NoError(t, err)
	charttest.CheckPNG(t, picture)
	page, err := os.ReadFile(filepath.Join(out, "index.html"))
	require.NoError(t, err)
	charttest.CheckPage(t, page, false)
	for _, want := range []string{"layers.0.attn.q_router", "layers.0.attn.kv_router", "<mark>", fmt.Sprint("after step ", m.steps/2), fmt.Sprint("after step ", m.steps), "&#34;dim&#34;: 16"} {
		assert.Contains(t, string(page), want)
	}
	entries, err := os.ReadDir(m.checkpoint())
	require.NoError(t, err)
	assert.Len(t, entries, 5)

	remarks := train(t, m.flags(out, "-sample", "40"))
	assert.Contains(t, remarks, fmt.Sprintf("all %d steps are done", m.steps))
	assert.Equal(t, list, losses(t, out))
}

// TestResume requires the bits of an uninterrupted run, also with other micro-batches, and rejects another configuration.
func TestResume(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s; TestTrainer of package train resumes a run")
	}
	data, whole, parts := corpus(t), t.TempDir(), t.TempDir()
	train(t, tiny(whole, data, "-steps", "8"))
	train(t, tiny(parts, data, "-steps", "3", "-evaluate-every", "2"))
	remarks := train(t, tiny(parts, data, "-steps", "8", "-micro-batches", "4"))
	assert.Contains(t, remarks, "resumed after step 3")
	assert.Equal(t, bits(t, whole, 8), bits(t, parts, 8))
	if !testing.Short() {
		two := t.TempDir()
		train(t, tiny(two, data, "-steps", "8", "-micro-batches", "2"))
		assert.Equal(t, bits(t, whole, 8), bits(t, two, 8))
	}

	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-dim", "32"}, "transformer.dim is 16, want 32"},
		{[]string{"-rate", "1"}, "optimizer.rate"},
		{[]string{"-seed", "1"}, "seed"},
		{[]string{"-exclude", "0.txt", "-exclude", "1.txt"}, "config.data"},
	} {
		code, _, remarks := colt5.Run(tiny(parts, data, append(test.args, "-steps", "9")...)...)
		assert.Equal(t, command.ExitUsage, code, remarks)
		assert.Contains(t, remarks, test.want)
	}
}

// testInit starts from the weights of another run.
func (m trained) testInit(t *testing.T) {
	out, data := m.out, m.data
	weights := filepath.Join(m.checkpoint(), "model.safetensors")
	next := t.TempDir()
	train(t, tiny(next, data, "-steps", "2", "-init", weights))
	assert.Less(t, losses(t, next)[0], losses(t, out)[0]/2)
	code, _, remarks := colt5.Run(tiny(t.TempDir(), data, "-steps", "2", "-dim", "32", "-init", weights)...)
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "-init "+weights+": ")
}

// testGenerate requires the same text for a seed, and a text that the training had for the largest logits.
func (m trained) testGenerate(t *testing.T) {
	out := m.out
	generate := func(args ...string) string {
		return colt5.OK(t, append([]string{"generate", out, "the cat sat", "-length", "30"}, args...)...)
	}
	first := generate("-temperature", "2", "-seed", "3")
	assert.Len(t, first, 30)
	assert.Equal(t, first, generate("-temperature", "2", "-seed", "3"))
	assert.NotEqual(t, first, generate("-temperature", "2", "-seed", "4"))
	greedy := generate("-temperature", "0")
	assert.Equal(t, greedy, generate("-temperature", "2", "-top-k", "1"))
	assert.Regexp(t, `^[a-z; ]{30}$`, greedy, "bytes of the training")
	weights := filepath.Join(m.checkpoint(), "model.safetensors")
	assert.Equal(t, greedy, colt5.OK(t, "generate", weights, "the cat sat", "-length", "30", "-temperature", "0"))
}

// testPrompt requires that a prompt from standard input gives the text of a prompt that is an argument.
func (m trained) testPrompt(t *testing.T) {
	out := m.out
	c := subprocess("generate", out, "-length", "9", "-seed", "3")
	c.Stdin = strings.NewReader("the cat")
	text, err := c.Output()
	require.NoError(t, err)
	assert.Len(t, text, 9)
	assert.Equal(t, colt5.OK(t, "generate", out, "the cat", "-length", "9", "-seed", "3"), string(text))
	c = subprocess("generate", out)
	message, err := c.CombinedOutput() // no standard input
	assert.Error(t, err)
	assert.Equal(t, command.ExitUsage, c.ProcessState.ExitCode())
	assert.Contains(t, string(message), "the prompt is empty, want at least one byte")
}

// testEval requires the loss of the evaluation during training, and less on text that the model has seen.
func (m trained) testEval(t *testing.T) {
	out, data := m.out, m.data
	rows := commandtest.Objects(t, colt5.OK(t, "eval", out, data, "-held-out", "-o", "json"))
	require.Len(t, rows, 1)
	held := regexp.MustCompile(fmt.Sprintf(`step %d: training [0-9.]+, held out ([0-9.]+) bits`, m.steps)).FindStringSubmatch(m.remarks)
	require.Len(t, held, 2)
	assert.Equal(t, held[1], fmt.Sprintf("%.4f", rows[0]["bits_per_byte"]))
	all := commandtest.Objects(t, colt5.OK(t, "eval", out, data, "-o", "json", "-overlap", "8", "-batch", "3"))
	total := 0
	for i := range 8 {
		total += 24 * (20 + i)
	}
	assert.EqualValues(t, total-1, all[0]["predictions"])
	code, _, remarks := colt5.Run("eval", out, corpus(t)+"/1.txt", "-held-out")
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "-held-out needs the files of the training")
}

// TestClassifier trains a classifier, whose classes are words of the documents.
func TestClassifier(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	var lines bytes.Buffer
	for i := range 24 {
		word := []string{"cat", "dog"}[i%2]
		fmt.Fprintf(&lines, "{\"text\": \"%d %s\", \"label\": %q}\n", i, strings.Repeat(word+" ", 3+i%4), word)
	}
	data, out := commandtest.File(t, "documents.jsonl", lines.String()), t.TempDir()
	train(t, append(strings.Fields("train classifier -dim 16 -depth 1 -heads 2 -dim-head 8 -window 8 -q 4 -kv 8 -ff 4 -routes 1 -length 32 -batch 8"+
		" -rate 0.01 -steps 30 -warm-up 0 -evaluate-every 15 -save-every 0 -held-out 4 -out "+out), data))
	list := losses(t, out)
	assert.Less(t, list[29], list[0]/2)
	rows := commandtest.Objects(t, colt5.OK(t, "eval", out, data, "-o", "json"))
	assert.EqualValues(t, 24, rows[0]["predictions"])
	assert.Greater(t, rows[0]["accuracy"], 0.9)
	page, err := os.ReadFile(filepath.Join(out, "index.html"))
	require.NoError(t, err)
	charttest.CheckPage(t, page, false)
	assert.Contains(t, string(page), "layers.0.conditional_ff.router")
	code, _, remarks := colt5.Run("generate", out, "x")
	assert.Equal(t, command.ExitUsage, code)
	assert.Contains(t, remarks, "the model is a classifier, want a language model")
}

// TestRouting trains with each kind of routing, and with dropout. Only a model whose routers select can generate.
func TestRouting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	gputest.CountCase()
	data, dir := corpus(t), t.TempDir()
	seen := map[string]string{}
	for _, flags := range [][]string{{"-sample", "0"}, {"-routing", "random", "-sample", "4"}, {"-routing", "static"}, {"-dropout", "0.3"}} {
		name := strings.Join(flags, "")
		out := filepath.Join(dir, name)
		train(t, tiny(out, data, append(flags, "-steps", "1")...))
		list := fmt.Sprint(losses(t, out))
		assert.NotContains(t, seen, list, "%s has the losses of %s", name, seen[list])
		seen[list] = name
		if flags[1] == "random" || flags[1] == "static" {
			code, _, remarks := colt5.Run("generate", out, "the cat")
			assert.Equal(t, command.ExitUsage, code)
			assert.Contains(t, remarks, "the model was trained with -routing="+flags[1]+", want learned")
			evaluations, err := os.ReadFile(filepath.Join(out, "evaluations.jsonl"))
			require.NoError(t, err)
			assert.NotContains(t, string(evaluations), `"sample"`)
		}
	}
}
