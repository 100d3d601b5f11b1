package bench

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/resultstest"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/deviceinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/hostinfo"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command, PeakCommand)

// TestBenchBaseline has rows that are in this run and rows that are not. An earlier version wrote one of them.
func TestBenchBaseline(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	i := gputest.Device(t).Info()
	base := commandtest.File(t, "base.jsonl", resultstest.JSON("rmsnorm", "3x4", "f32", 1e6, i)+resultstest.JSON("rmsnorm", "5x4", "f16", 1, i)+resultstest.JSON("mark", "1x2x3", "f32", 1, vk.Info{Name: "Other"}))
	args := quick("-only", "rmsnorm", "-size", "3,7x4", "-baseline", base)
	code, out, remarks := program.RunOnDevice(t, append(args, "-o", "json")...)
	require.Equal(t, command.ExitOK, code, remarks)
	rows := commandtest.Objects(t, out)
	require.Len(t, rows, 4)
	assert.Nil(t, rows[0]["baseline_gpu_ms"])
	assert.Equal(t, 1e6, rows[2]["baseline_gpu_ms"])
	assert.Equal(t, i.Name, rows[2]["device"])
	when, err := time.Parse(time.RFC3339, rows[2]["time"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), when, time.Hour)
	host := hostinfo.Read()
	for key, want := range map[string]string{"driver": deviceinfo.Driver(i), "version": host.Version, "commit": host.Commit, "os": host.OS, "cpu": host.CPU} {
		assert.Equal(t, want, rows[2][key], key)
	}
	if now := rows[2]["gpu_ms"].(float64); now > 0 {
		assert.InEpsilon(t, 1e6/now, rows[2]["baseline_ratio"], 1e-6)
	}
	assert.Nil(t, rows[3]["baseline_gpu_ms"])
	assert.Contains(t, remarks, "of another device: Other")
	assert.Contains(t, remarks, "Not run, but in the baseline: rmsnorm 5x4 f16, membership_mask 1x2x3 f32.")
	assert.NotContains(t, remarks, "another driver")

	if testing.Short() {
		return
	}
	// The output of a run is a valid baseline.
	again := commandtest.File(t, "again.json", out)
	code, out, remarks = program.RunOnDevice(t, quick("-only", "rmsnorm", "-size", "3x4", "-baseline", again)...)
	require.Equal(t, command.ExitOK, code, remarks)
	assert.Contains(t, out, " earlier |  ratio |")
	assert.NotContains(t, out, "absent")
	assert.Contains(t, out, "Not run, but in the baseline: rmsnorm 7x4 f32.")
	assert.Equal(t, 1, strings.Count(out, "Earlier: 4 rows of "+again))
}

// TestBenchFailAbove compares with a baseline that is faster, one that is slower, and one of other rows.
func TestBenchFailAbove(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	i := gputest.Device(t).Info()
	for _, test := range []struct {
		name, size string
		before     float64
		code       int
		want       string
	}{
		{"slower", "3x4", 1e-6, command.ExitFailed, "1 of 1 row took more than 50 % longer than in "},
		{"faster", "3x4", 1e6, command.ExitOK, ""},
		{"other rows", "5x4", 1e6, command.ExitFailed, "no row of this run can be compared with one of "},
	} {
		if testing.Short() && test.name != "slower" {
			continue // a second each
		}
		base := commandtest.File(t, "base.jsonl", resultstest.JSON("rmsnorm", test.size, "f32", test.before, i))
		code, out, remarks := program.RunOnDevice(t, quick("-only", "rmsnorm", "-size", "3x4", "-baseline", base, "-fail-above", "50")...)
		assert.Equal(t, test.code, code, test.name)
		assert.Contains(t, out, "| rmsnorm", "the table is written in any case")
		assert.Contains(t, remarks, test.want)
		assert.Equal(t, test.want != "", strings.Contains(remarks, "vkbench: "), remarks)
	}
}

// tinySizes has a small size for cases whose SmallSizes take long.
func tinySizes() map[string]string {
	return map[string]string{
		"rmsnorm": "5x12", "linear": "9x12x20", "router_logits": "2x33x12x2", "coor_descent": "2x100x7", "select": "2x100x7", "gather": "2x50x12x5",
		"scatter": "2x50x12x5", "feedforward": "2x40x16x5", "router": "2x40x16x5", "topk": "2x100x7", "topk_differentiable": "2x100x7",
		"coordinate_descent": "2x100x7x5x100", "attention": "2x140x16x5", "block": "2x140x16x5", "cross": "2x20x256x16x2x64",
		"autoregressive": "2x140x16x5", "image": "1x12x16x8x4x10", "vit": "1x16x2x16x1", "encoder": "2x70x16x5x1",
		"autoregressive_transformer": "1x140x16x5x1", "block_length": "1x140x16x5", "dense_attention": "1x40x2x8",
		"coor_descent_windows": "2x2x100x5x7", "select_windows": "2x2x100x5x7",
		"coor_descent_backward": "2x100x7", "linear_backward": "2x9x12x20", "tree_sum": "9x1000", "rmsnorm_backward": "2x9x12", "layernorm_backward": "2x9x12", "gather_backward": "2x50x12x5", "router_logits_backward": "2x33x12x2",

		"feedforward_backward": "2x40x16x5", "attention_backward": "2x140x16x5", "block_backward": "2x140x16x5", "cross_backward": "2x20x256x16x2x64",
		"autoregressive_backward": "2x140x16x5", "image_backward": "1x12x16x8x4x10", "vit_backward": "1x16x2x16x1", "encoder_backward": "2x70x16x5x1",
		"autoregressive_transformer_backward": "1x140x16x5x1", "router_backward": "2x40x16x5", "topk_backward": "2x100x7",
		"topk_differentiable_backward": "2x100x7", "coordinate_descent_backward": "2x100x7x5x100", "local_mha_backward": "1x40x16",
		"plain_feedforward_backward": "2x9x16", "rmsnorm_module_backward": "2x9x12", "train_step": "1x140x16x1",
	}
}

// tested is the cases of TestBench. All take two minutes on a CPU driver, most of it to compile, so -short has few kernels and
// modules.
func tested() []string {
	names := cases.Names(cases.All())
	if !testing.Short() {
		return names
	}
	short := []string{"rmsnorm", "gather", "tree_sum", "add", "feedforward", "topk", "topk_backward"}
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(short, name) })
}

// sizesOf returns flags with the tiny sizes of cases.
func sizesOf(names ...string) []string {
	var flags []string
	for _, name := range names {
		flags = append(flags, "-size", name+"="+tinySizes()[name])
	}
	return flags
}

// quick returns the arguments of a short run.
func quick(args ...string) []string {
	return append([]string{"bench", "-reps", "2", "-warmup", "0"}, args...)
}

func TestBench(t *testing.T) {
	tiny := slices.DeleteFunc(tested(), func(name string) bool { return tinySizes()[name] == "" })
	rows := commandtest.Objects(t, program.OK(t, append(quick("-o", "json", "-only", strings.Join(tested(), ",")), sizesOf(tiny...)...)...))
	names := append([]string{results.CopyPeak, results.MatmulPeak}, tested()...)
	require.Len(t, rows, len(names))
	for i, r := range rows {
		name := r["name"].(string)
		assert.Equal(t, names[i], name)
		if size, ok := tinySizes()[name]; ok {
			assert.Equal(t, size, r["shape"])
		}
		assert.Equal(t, 2.0, r["runs"], name)
		assert.Positive(t, r["wall_ms"], name)
		assert.Positive(t, r["peak_bytes"], name)
		low, middle, high := r["gpu_p10_ms"].(float64), r["gpu_ms"].(float64), r["gpu_p90_ms"].(float64)
		assert.True(t, 0 <= low && low <= middle && middle <= high, name)
		if middle > 0 {
			assert.Positive(t, r["gb_per_s"], name)
		}
	}
	assert.Positive(t, rows[0]["gb_per_s"])
	assert.Positive(t, rows[1]["tflop_per_s"])
	feedforward := rows[slices.Index(names, "feedforward")]
	assert.Positive(t, feedforward["workspace_bytes"])
	if gputest.Device(t).Caps().CPU {
		for _, r := range rows {
			assert.Nil(t, r["peak_share"], "%s: a CPU driver has no peaks", r["name"])
		}
		return
	}
	assert.Equal(t, 1.0, rows[1]["peak_share"])
	assert.Positive(t, feedforward["peak_share"])
}

func TestBenchSteps(t *testing.T) {
	rows := commandtest.Objects(t, program.OK(t, append(quick("-steps", "-o", "json", "-only", "feedforward,scatter"), sizesOf("feedforward", "scatter")...)...))
	kernels := map[string][]string{}
	sum := map[string]float64{}
	for _, r := range rows {
		name := r["name"].(string)
		assert.Equal(t, float64(len(kernels[name])+1), r["step"])
		kernels[name] = append(kernels[name], r["kernel"].(string))
		if part, ok := r["time_share"].(float64); ok {
			sum[name] += part
		}
	}
	assert.Equal(t, []string{"scatter_vec4_initial", "scatter_vec4"}, kernels["scatter"])
	require.Len(t, kernels["feedforward"], 6, kernels)
	assert.Contains(t, kernels["feedforward"][0], "router_logits")
	assert.Equal(t, "select", kernels["feedforward"][1])
	for _, k := range kernels["feedforward"][2:] {
		assert.Contains(t, k, "linear")
	}
	for name, x := range sum {
		assert.InDelta(t, 1, x, 1e-6, name)
	}
}

func TestBenchRemarks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s; TestBenchFailures has remarks too")
	}
	dev := gputest.Device(t)
	code, out, remarks := program.RunOnDevice(t, "bench", "-o", "csv", "-reps", "1", "-warmup", "0", "-only", "rmsnorm", "-size", "3x4")
	assert.Equal(t, command.ExitOK, code)
	assert.Contains(t, out, "\nrmsnorm,3x4,f32,")
	assert.Contains(t, remarks, dev.Info().Name)
	assert.Equal(t, dev.Caps().CPU, strings.Contains(remarks, "no GPU figures"))
}

func TestBenchFailures(t *testing.T) {
	// Not routed: 5 of 5 tokens. The other case still runs.
	code, out, remarks := program.RunOnDevice(t, "bench", "-o", "csv", "-reps", "1", "-warmup", "0", "-only", "router,topk", "-size", "router=1x5x4x5", "-size", "topk=1x10x3")
	assert.Equal(t, command.ExitFailed, code)
	assert.Contains(t, remarks, "router 1x5x4x5 f32: 5 heavy tokens of 5, want fewer")
	assert.NotContains(t, out, "\nrouter,")
	assert.Contains(t, out, "\ntopk,1x10x3,f32,")
}

// TestBenchPrecisions requires a row or a remark for each precision.
func TestBenchPrecisions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s; precisions of modules are tested in package colt5")
	}
	caps := gputest.Device(t).Caps()
	code, out, remarks := program.RunOnDevice(t, quick("-o", "jsonl", "-only", "linear", "-only", "membership_mask", "-precision", "f32,f16,bf16", "-size", "linear=9x12x20", "-size", "membership_mask=1x9x3")...)
	require.Equal(t, command.ExitOK, code, remarks)
	for _, p := range []pipelines.DType{pipelines.F32, pipelines.F16, pipelines.BF16} {
		supported := p.Supported(caps) == nil
		assert.Equal(t, supported, strings.Contains(out, `{"name": "linear", "shape": "9x12x20", "precision": "`+p.String()+`",`), out)
		assert.Equal(t, supported, !strings.Contains(remarks, "Left out: "+p.String()+","), remarks)
	}
	assert.Equal(t, 1, strings.Count(out, `"name": "membership_mask"`))
	assert.Contains(t, remarks, "In f32 only, without 16-bit variants: membership_mask.")
}

// TestBenchUnsupportedPrecision requires a failure where the device supports none of the precisions.
func TestBenchUnsupportedPrecision(t *testing.T) {
	caps := gputest.Device(t).Caps()
	for p, name := range map[pipelines.DType]string{pipelines.F16: "f16", pipelines.BF16: "bf16"} {
		if p.Supported(caps) == nil {
			continue
		}
		code, out, remarks := program.RunOnDevice(t, "bench", "-only", "linear", "-precision", name)
		assert.Equal(t, command.ExitFailed, code)
		assert.Empty(t, out)
		assert.Contains(t, remarks, "Left out: "+name+", which the device does not support")
	}
}

func TestUsage(t *testing.T) {
	text, empty := commandtest.File(t, "text", "some text"), commandtest.File(t, "empty", "")
	rows := commandtest.File(t, "rows", "[\n{\"name\": \"a\", \"shape\": \"1\", \"gpu_ms\": 1},\n{\"name\": \"a\"}\n]\n")
	program.RejectsUsage(t, [][2]string{
		{"bench all", "takes no arguments"},
		{"bench -only rmsnorm,nonsense", `-only names "nonsense", which is no case; vkbench bench -list has them all`},
		{"bench -only rmsnorm -size 5", `-size is "5", but a size of rmsnorm has 2 numbers: rows x dim`},
		{"bench -only rmsnorm -size 5xa", `-size is "5xa", want numbers up to`},
		{"bench -only rmsnorm -size 5x0", `-size is "5x0": of rmsnorm, dim is 0, want at least 1`},
		{"bench -only cross -size 1x2x0x4x5x0", `of cross, memories is 0`},
		{"bench -only topk -size 1x5x6", `of topk, k is 6 of 5 entries`},
		{"bench -only router_logits -size 227932169x316136131x64x1", "multiply to more than 2^58"},
		{"bench -only scatter -size 1x5x8x6", `of scatter, k is 6 of 5 tokens`},
		{"bench -only=", "-only is empty"},
		{"bench -only rmsnorm -size linear=1x1x1", `-size is "linear=1x1x1", but linear is not among the cases of this run`},
		{"bench -only rmsnrom", `-only names "rmsnrom", which is no case, did you mean "rmsnorm"?`},
		{"bench -size lienar=1x1x1", `-size names "lienar", which is no case, did you mean "linear"?`},
		{"bench -list -only nonsense", `-only names "nonsense"`},
		{"bench -size topk=2x64x8,2x128x8", `but a size of topk has 3 numbers: rows x entries x k; commas list values of one number, for another size repeat -size`},
		{"bench -size 5x5", `-size is "5x5", but a size of patch_embed has 4 numbers: batch x channels x side x patch; without NAME= it is a size of every case of this run`},
		{"bench -only rmsnorm -size 5,6x7,a", `-size is "5,6x7,a", want numbers up to`},
		{"bench -size rmsnorm=1x2,topk=3x4x5", "for another case -size again"},
		{"bench -precision f32,f8", `-precision is "f32,f8", want some of f32, f16, bf16`},
		{"bench -baseline /does/not/exist", "/does/not/exist"},
		{"bench -baseline " + empty, empty + " holds no rows"},
		{"bench -baseline " + text, "-baseline: " + text + ":1: invalid character"},
		{"bench -baseline " + rows, "-baseline: " + rows + ":3: an object without name or shape"},
		{"bench -steps -baseline " + rows, "do not go together"},
		{"bench -fail-above 5", "-fail-above needs a -baseline"},
		{"bench -fail-above -1 -baseline " + rows, "-fail-above is -1, want a number of percent"},
		{"bench -fail-above NaN -baseline " + rows, "-fail-above is NaN"},
		{"bench -fail-above inf -baseline " + rows, "-fail-above is +Inf"},
		{"bench -reps 0", "-reps is 0"},
		{"bench -reps x", "x"},
		{"bench -warmup -1", "-warmup is -1"},
		{"peak all", "takes no arguments"},
		{"peak -reps 0", "-reps is 0"},
	})
}
