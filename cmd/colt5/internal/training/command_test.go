package training

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/history"
	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/settings"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var program = commandtest.New("colt5", Command)

// TestPrintConfig requires flags to set the configuration, also one that was read.
func TestPrintConfig(t *testing.T) {
	code, out, remarks := program.Run("train", "lm", "-print-config", "-dim", "64", "-heads", "2", "-precision", "bf16", "-causal=false", "-include", "*.go",
		"-include", "*.s", "-held-out", "7", "-rate", "0.5", "-schedule", "constant", "-seed", "18446744073709551615", "-skip-generated")
	require.Equal(t, command.ExitOK, code, remarks)
	want := settings.Default(settings.LM)
	x := want.Transformer
	x.Dim, x.LightHeads, x.HeavyHeads, x.Precision, x.CausalQueryRouting = 64, 2, 2, colt5.BF16, false
	want.Data.Include, want.Data.HeldOut, want.Data.SkipGenerated = []string{"*.go", "*.s"}, 7, true
	want.Optimizer.Rate, want.Optimizer.Schedule, want.Seed = 0.5, "constant", 18446744073709551615
	var got settings.Config
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, want, got)

	file := commandtest.File(t, "config.json", out)
	code, out, remarks = program.Run("train", "lm", "-print-config", "-config", file, "-dim", "32", "-steps", "9", "-schedule", "cosine", "-warm-up", "3")
	require.Equal(t, command.ExitOK, code, remarks)
	want.Transformer.Dim, want.Run.Steps, want.Optimizer.Schedule, want.Optimizer.WarmUp, want.Optimizer.Total = 32, 9, "cosine", 3, 9
	got = settings.Config{}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, want, got)
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	text := commandtest.File(t, "text", "some text that is long enough")
	empty := commandtest.File(t, "documents.jsonl", "\n")
	config := commandtest.File(t, "config.json", `{"bach": 1}`)
	program.RejectsUsage(t, [][2]string{
		{"train", "train what? want lm or classifier"},
		{"train vit", `"vit" is no task, want lm or classifier`},
		{"train lm", "train lm needs files"},
		{"train classifier a b", `train classifier takes one file, but got "b" too`},
		{"train lm " + text, "-out names no folder"},
		{"train lm -out " + dir + " no-such-file", "no-such-file"},
		{"train lm -out " + dir + " " + text, "data has 29 bytes, want at least Length + 2, 514"},
		{"train classifier -out " + dir + " " + empty, "there is no document"},
		{"train classifier -include x " + text, "-include is a flag of the task lm, not of classifier"},
		{"train lm -ff 3 " + text, "-ff is a flag of the task classifier, not of lm"},
		{"train classifier -replay x " + text, "-replay is a flag of the task lm, not of classifier"},
		{"train lm -window 8 -length 16 -out " + dir + " -replay no-such-file " + text, "-replay no-such-file: 16 of the 8 bytes of a window are queries"},
		{"train lm -window 8 -q 2 -length 16 -out " + dir + " -replay no-such-file " + text, "-replay no-such-file: safetensors: no-such-file: no such file"},
		{"train lm -sample -1 " + text, "-sample is -1, want 0 to"},
		{"train lm -rate 0 " + text, "-rate is 0, want above 0"},
		{"train lm -batch 0 " + text, "-batch is 0, want 1 to"},
		{"train lm -held-out 4294967296 " + text, "-held-out is 4294967296, want at most 4294967295"},
		{"train lm -precision f8 " + text, `-precision is "f8"`},
		{"train lm -warm-up 2000 " + text, "-warm-up is 2000, want at most the steps of the schedule, 1000"},
		{"train lm -config no-such-file " + text, "-config no-such-file: "},
		{"train lm -config " + config + " " + text, `unknown field "bach"`},
	})
}

func TestStatus(t *testing.T) {
	r := &runner{config: settings.Default(settings.LM), history: &history.History{}, step: 40}
	for i := range 40 {
		r.history.Steps = append(r.history.Steps, train.Record{Step: i, Loss: map[bool]float64{true: 9, false: 2 * math.Ln2}[i < 20]})
	}
	assert.Equal(t, "2.000 bits/byte", r.status(), "of the last 20 steps; the rate is unknown")
	r.pace.rate = 4
	assert.Equal(t, "2.000 bits/byte  16 KiB/s  4m0s left", r.status(), "4 steps of 8 x 512 bytes, and 960 more")
}

func TestPace(t *testing.T) {
	var p pace
	p.restart(10)
	assert.True(t, p.due(11), "the first step compiles kernels")
	p.add(11)
	assert.Zero(t, p.rate)
	assert.False(t, p.due(12))
	assert.True(t, p.due(11+readSteps))
	p.at = p.at.Add(-2 * time.Second)
	assert.True(t, p.due(12))
	p.add(15)
	assert.InDelta(t, 2, p.rate, 0.1, "4 steps in 2 s")
	p.at = p.at.Add(-100 * time.Second)
	p.restart(15) // after an evaluation
	p.at = p.at.Add(-time.Second)
	p.add(17)
	assert.InDelta(t, 2, p.rate, 0.1)
}
