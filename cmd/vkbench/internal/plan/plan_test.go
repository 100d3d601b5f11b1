package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command)

// planned returns the output of plan by part. It needs no device.
func planned(t *testing.T, args ...string) map[string]float64 {
	t.Helper()
	code, out, remarks := program.Run(append([]string{"plan", "-o", "json"}, args...)...)
	require.Equal(t, command.ExitOK, code, remarks)
	parts := map[string]float64{}
	var names []string
	for _, r := range commandtest.Objects(t, out) {
		name, bytes := r["part"].(string), r["bytes"].(float64)
		names = append(names, name)
		parts[name] = bytes
		assert.InDelta(t, bytes/(1<<20), r["mib"], 1e-6)
	}
	assert.Equal(t, []string{"weights", "inputs", "outputs", "workspace", "total"}, names)
	assert.Equal(t, parts["total"], parts["weights"]+parts["inputs"]+parts["outputs"]+parts["workspace"])
	return parts
}

// TestPlanExamples checks inputs and outputs of the examples, and limits their total memory.
func TestPlanExamples(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct {
		args            string
		inputs, outputs float64
		limit           float64 // of the total
	}{
		{"feedforward 2x32768x512", 128 * mib, 128 * mib, 0.5 * gib},
		{"attention 2x32768x512", 128 * mib, 128 * mib, 0.8 * gib},
		{"block 2x32768x512", 128 * mib, 128 * mib, 0.8 * gib},
		{"cross 1x1024x1048576x512", 2*gib + 2*mib, 2 * mib, 2.3 * gib},
		{"cross 1x1024x4194304x512", 8*gib + 2*mib, 2 * mib, 8.2 * gib},
		{"autoregressive 2x8192x512", 32 * mib, 32 * mib, 0.4 * gib},
		{"image 1x32x256x256", 8 * mib, 8 * mib, 2.4 * gib},
		{"cross 1x1024x4194304x512x2x131072", 8*gib + 2*mib, 2 * mib, 8.2 * gib},
		{"block 2x32768x512x1024", 128 * mib, 128 * mib, 0.8 * gib},
		{"encoder 2x32768x512x1024x12", 0.25 * mib, 128 * mib, 0.9 * gib},
		{"encoder 2x32768", 0.25 * mib, 128 * mib, 0.8 * gib},
		{"autoregressive_transformer 2x8192x512", 64 << 10, 16 * mib, 0.5 * gib},
	} {
		t.Run(test.args, func(t *testing.T) {
			parts := planned(t, strings.Fields(test.args)...)
			assert.Equal(t, test.inputs, parts["inputs"])
			assert.Equal(t, test.outputs, parts["outputs"])
			assert.Positive(t, parts["workspace"])
			assert.LessOrEqual(t, parts["total"], test.limit)
		})
	}
	parts := planned(t, "vit", "1")
	assert.Equal(t, 3*256*256*4.0, parts["inputs"])
	assert.Equal(t, 4000.0, parts["outputs"])
	assert.LessOrEqual(t, parts["total"], parts["weights"]+64*mib)
}

// TestPlanNames requires a planner for every module with routers that can be timed, with the same numbers.
func TestPlanNames(t *testing.T) {
	routed := cases.Routed()
	require.Len(t, planners(), len(routed))
	for i, p := range planners() {
		assert.Equal(t, routed[i].Name, p.name)
		assert.Equal(t, routed[i].Dims, p.numbers)
	}
}

func TestPlanConfig(t *testing.T) {
	settings := commandtest.File(t, "config.json", `{"num_heavy_tokens": 8, "heavy_ff_mult": 2}`)
	small, large := planned(t, "feedforward", "2x1024x64", "-config", settings), planned(t, "feedforward", "2x1024x64")
	assert.Less(t, small["weights"], large["weights"])
	assert.Less(t, small["workspace"], large["workspace"])
	assert.Equal(t, large["inputs"], small["inputs"])

	last := commandtest.File(t, "config.json", `{"num_heavy_tokens_q": 8, "num_heavy_tokens_kv": 8, "light_window_size": 16, "dim": 12}`)
	assert.Equal(t, 2*32*64*12*4.0, planned(t, "image", "2x12x32x64", "-config", last)["inputs"], "channels last")

	floats := commandtest.File(t, "config.json", `{"depth": 1, "dim": 12, "num_heavy_attn_tokens_q": 8, "num_heavy_attn_tokens_kv": 8, "num_heavy_ff_tokens": 8}`)
	assert.Equal(t, 2*32*12*4.0, planned(t, "encoder", "2x32", "-config", floats)["inputs"], "no embedding")
}

func TestPlanUsage(t *testing.T) {
	text := commandtest.File(t, "text", "some text")
	config := func(text string) string { return commandtest.File(t, "config.json", text) }
	program.RejectsUsage(t, [][2]string{
		{"plan", "plan got 0 arguments, want a module and a size"},
		{"plan block", "plan got 1 argument,"},
		{"plan block 2x3x4 5", "plan got 3 arguments"},
		{"plan nonsense 1x2", `plan knows no module "nonsense"; want one of feedforward, attention,`},
		{"plan blok 1x2", `plan knows no module "blok", did you mean "block"?`},
		{"plan block 2", `the size is "2", but a size of block is batch x tokens [x dim [x heavy tokens]]`},
		{"plan block 2x3x4x5x6", `the size is "2x3x4x5x6", but a size of block is batch x`},
		{"plan cross 2x3", "but a size of cross is batch x tokens x memories [x dim [x routes [x block]]]"},
		{"plan image 2x3x4", "but a size of image is batch x dim x height x width [x window [x heavy tokens]]"},
		{"plan block 2x3xa", `the size is "2x3xa", want numbers up to 2147483647 with x between them`},
		{"plan block 2x-3x4", `the size is "2x-3x4", want numbers`},
		{"plan block 2x4294967296x4", "want numbers up to 2147483647"},
		{"plan block 2x0x512", "N is 0, want 1 to"},
		{"plan block 2147483647x2147483647x2147483647", "want at most 2^48 elements"},
		{"plan image 1x32x256x250", "the image is 256 by 250 pixels, want multiples of LightWindowSize, 32"},
		{"plan block 2x3x4 -o yaml", `-o is "yaml"`},
		{"plan block 2x3x4 -config /does/not/exist", "/does/not/exist"},
		{"plan block 2x3x4 -config " + config(`{`), "config.json: unexpected end"},
		{"plan block 2x3x4 -config " + config(`{"dims": 3}`), `unknown key "dims", did you mean "dim"?`},
		{"plan block 2x3x4 -config " + config(`{"dim": 8}`), "dim is 8 in the configuration and 4 in the size"},
		{"plan feedforward 2x3x4 -config " + config(`{"dim": 4}`), "NumHeavyTokens is 0, want 1 to"},
		{"plan image 1x8x8x4 -config " + config(`{"dim": 4}`), "dim is 4 in the configuration and 8 in the size"},
		{"plan block 2x32768x512 -precision f16,f32", `-precision is "f16,f32", want one of`},
		{"plan block 2x32768x512 -config " + text, "-config " + text + ": invalid character"},
		{"plan vit 2147483647", "B is 2147483647, want 1 to 33554431"},
	})
}

func TestPlanOutput(t *testing.T) {
	code, out, remarks := program.Run("plan", "block", "2x32768x512")
	assert.Equal(t, command.ExitOK, code)
	assert.Empty(t, remarks)
	assert.Contains(t, out, "block 2x32768x512 on an NVIDIA H200\n")
	assert.Contains(t, out, "| inputs    |    134217728 |    128 MiB |\n")
	assert.NotContains(t, out, "more than")

}

// TestPlanTooSmall requires a failure, with the table, where the device is too small, and the largest batch that fits.
func TestPlanTooSmall(t *testing.T) {
	for args, want := range map[string]string{
		"block 2x67108864x512":           "block needs 513.69 GiB, but the device has 140.40 GiB; a batch of 1 does not fit either",
		"cross 64x1024x4194304x512":      "the largest batch that fits is 17",
		"feedforward 4096x32768x512x256": "the largest batch that fits is ",
	} {
		code, out, remarks := program.Run(append([]string{"plan"}, strings.Fields(args)...)...)
		assert.Equal(t, command.ExitFailed, code, args)
		assert.Contains(t, out, "| total ", args)
		assert.Contains(t, remarks, want, args)
	}
	var p request
	for _, x := range planners() {
		if x.name == "feedforward" {
			p = request{planner: x, size: []int{100, 1000, 64, 10}}
		}
	}
	caps := h200()
	for batch := range 3 {
		m, err := p.memory([]int{batch + 1, 1000, 64, 10}, overrides{}, h200())
		require.NoError(t, err)
		caps.MemoryBytes = m.Total()
		assert.Equal(t, fmt.Sprintf("the largest batch that fits is %d", batch+1), p.fitting(caps))
	}
	caps.MemoryBytes = 1000
	assert.Equal(t, "a batch of 1 does not fit either", p.fitting(caps))
}

func TestPlanDevice(t *testing.T) {
	dev := gputest.Device(t)
	out := program.OK(t, "plan", "vit", "2", "-device", dev.Info().UUID)
	assert.Contains(t, out, "vit 2 on "+dev.Info().Name)
	code, _, remarks := program.Run("plan", "vit", "2", "-device", "no such device")
	assert.Equal(t, command.ExitNoDevice, code)
	assert.Contains(t, remarks, "no usable Vulkan device")
}

// TestPlanMatchesCall compares the planned workspace with that of the call of bench at the same size.
func TestPlanMatchesCall(t *testing.T) {
	dev := gputest.Device(t)
	for _, test := range []struct{ name, size string }{
		{"feedforward", "2x40x16x5"}, {"attention", "2x150x16x5"}, {"block", "2x140x16x5"}, {"cross", "1x32x640x16x1x0"}, {"autoregressive", "2x300x16x40"},
		{"image", "1x16x16x16x8x20"}, {"vit", "1x16x2x16x1"}, {"encoder", "2x70x16x5x1"}, {"autoregressive_transformer", "1x140x16x5x1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if testing.Short() && test.name != "feedforward" {
				t.Skip("takes 1 s")
			}
			gputest.CountCase()
			list, err := cases.Select(cases.All(), []string{test.name}, []string{test.size})
			require.NoError(t, err)
			var stats colt5.CallStats
			require.NoError(t, scope.Run(t.Context(), dev, func(s *scope.Scope) error {
				w, err := list[0].Setup(&cases.Builder{Scope: s}, list[0].Sizes[0])
				if err == nil {
					err = w.Validate(t.Context())
				}
				if err == nil {
					stats, err = w.Stats()
				}
				return err
			}))
			parts := planned(t, test.name, test.size, "-device", dev.Info().UUID)
			if test.name == "encoder" || test.name == "autoregressive_transformer" {
				stats.Workspace += 256 // plan's token ids are integers, of which invalid ones are counted; those of bench are bytes
			}
			assert.Equal(t, float64(stats.Workspace), parts["workspace"])
		})
	}
}
