package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	goldenDir  = "../../../../testdata/golden/"
	pytorchDir = "../../../../colt5/testdata/pytorch/cases/"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command)

func TestVerifyPasses(t *testing.T) {
	names := []string{"coor_descent_00", "feedforward_1", "router_10", "topk_11"}
	if testing.Short() {
		names = []string{"coor_descent_00", "feedforward_8", "router_40", "topk_11"}
	}
	args := []string{"verify", "-o", "json"}
	for _, name := range names {
		args = append(args, goldenDir+name+".safetensors")
	}
	out := program.OK(t, args...)
	rows := commandtest.Objects(t, out)
	require.Len(t, rows, 4)
	for _, r := range rows {
		assert.Equal(t, "passed", r["result"])
		assert.Less(t, r["error"], r["bound"])
		assert.NotEmpty(t, r["worst"])
		assert.Nil(t, r["remark"])
	}
}

// TestVerifyModules has cases of every module with routers, with and without masks, blocks, several routes and padding.
func TestVerifyModules(t *testing.T) {
	if testing.Short() {
		t.Skip("TestVerifyPyTorch has small cases of all modules")
	}
	args := []string{"verify", "-o", "json"}
	names := []string{
		"attention_2", "attention_6", "attention_11", "attention_12", "block_1", "block_2", "cross_2", "cross_4", "cross_7",
		"autoregressive_1", "autoregressive_5", "autoregressive_7", "autoregressive_8", "image_1", "image_2", "image_3", "vit_1", "vit_2",
	}
	for _, name := range names {
		args = append(args, goldenDir+name+".safetensors")
	}
	rows := commandtest.Objects(t, program.OK(t, args...))
	require.Len(t, rows, len(names))
	for i, r := range rows {
		assert.Equal(t, names[i], r["case"])
		assert.Equal(t, "passed", r["result"], names[i])
	}
}

// TestVerifyEmbedded runs the cases in the program.
func TestVerifyEmbedded(t *testing.T) {
	args := []string{"verify", "-o", "json"}
	if testing.Short() {
		args = append(args, "-only", "topk,coordinate_descent", "-only", "feedforward")
	}
	code, out, remarks := program.RunOnDevice(t, args...)
	require.Equal(t, command.ExitOK, code, remarks)
	assert.Contains(t, remarks, "golden cases of the program;")
	seen := map[any]any{}
	for _, r := range commandtest.Objects(t, out) {
		assert.Equal(t, "passed", r["result"], r["case"])
		seen[r["module"]] = r["class"]
	}
	if testing.Short() {
		assert.Equal(t, map[any]any{"topk": "TopK", "coordinate_descent": "CoordinateDescent", "feedforward": "ConditionalRoutedFeedForward"}, seen)
		return
	}
	for _, m := range modules() {
		assert.Equal(t, m.class, seen[m.name], "a case of each module")
	}
}

// TestVerifyPyTorch has cases that scripts/from_pytorch.py wrote, of the modules without committed golden cases among them.
func TestVerifyPyTorch(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 7 s on CPU drivers")
	}
	for _, r := range commandtest.Objects(t, program.OK(t, "verify", "-o", "json", pytorchDir)) {
		assert.Equal(t, "passed", r["result"], r)
		assert.Less(t, r["output_difference"], 1e-5, r)
	}
}

// TestVerifyRows changes an output of a row of padding, which is not compared, and one of the valid row before it. The case
// has 21 and 14 valid tokens of 8 elements.
func TestVerifyRows(t *testing.T) {
	verify := func(at int) map[string]any {
		path := damagedFile(t, pytorchDir+"feedforward_soft.safetensors", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], at, 1e-3) })
		_, out, _ := program.RunOnDevice(t, "verify", path, "-o", "json")
		return commandtest.Objects(t, out)[0]
	}
	assert.Equal(t, "passed", verify((21 + 14) * 8)["result"])
	r := verify((21+14)*8 - 1)
	assert.Equal(t, "FAILED", r["result"])
	assert.InDelta(t, 1e-3, r["output_difference"], 1e-5)
}

// TestModules requires a setup for every module of the committed cases.
func TestModules(t *testing.T) {
	paths, err := golden.Cases(goldenDir, pytorchDir)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, path := range paths {
		c, err := golden.Load(path)
		require.NoError(t, err)
		_, known := moduleOf(c.Module)
		assert.True(t, known, c.Module)
		seen[c.Module] = true
	}
	assert.Len(t, seen, len(modules()), "a case of each")
	for _, m := range modules() {
		assert.Contains(t, cases.Names(cases.All()), m.name, "the names are those of bench")
	}
}

func TestVerifySummary(t *testing.T) {
	args, passed := []string{goldenDir}, 6
	if testing.Short() {
		args, passed = []string{goldenDir + "topk_10.safetensors", goldenDir + "topk_11.safetensors", goldenDir + "router_40.safetensors"}, 2
	}
	out := program.OK(t, append([]string{"verify", "-module", "TopK"}, args...)...) // an earlier name of the flag, and the class
	assert.Contains(t, out, fmt.Sprintf("\n%d passed, 0 failed on ", passed))
	assert.NotContains(t, out, "router_")

	code, out, remarks := program.RunOnDevice(t, "verify", "-only", "vit", goldenDir+"topk_10.safetensors")
	assert.Equal(t, command.ExitFailed, code)
	assert.Contains(t, out, "0 passed, 0 failed")
	assert.Contains(t, remarks, "no case of vit ran")
}

// TestVerifySameBits has modules whose second run differs.
func TestVerifySameBits(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	c, err := golden.Load(goldenDir + "topk_10.safetensors")
	require.NoError(t, err)
	for _, test := range []struct {
		name string
		runs func(x *instance) forwardFunc
		want string
	}{
		{"other bits", func(x *instance) forwardFunc {
			forward, values := x.forward, x.outputs["values"]
			runs := 0
			return func(ctx context.Context, t tensors, records *[]colt5.RoutingRecord) error {
				if err := forward(ctx, t, records); err != nil {
					return err
				}
				data, err := values.Float32(ctx)
				if err != nil {
					return err
				}
				if runs++; runs == 2 {
					data[0] = math.Nextafter32(data[0], 9)
				}
				return values.Write(ctx, data)
			}
		}, "values: the second run has different bits"},
		{"nothing written", func(*instance) forwardFunc {
			return func(context.Context, tensors, *[]colt5.RoutingRecord) error { return nil }
		}, "gates: the second run has different bits"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := &comparison{}
			require.NoError(t, scope.Run(t.Context(), dev, func(s *scope.Scope) error {
				_, err := check(s, c, func(s *scope.Scope, c *golden.Case) (*instance, error) {
					x, err := setupTopK(s, c)
					if err == nil {
						x.forward = test.runs(x)
					}
					return x, err
				}, false, found)
				return err
			}))
			assert.Contains(t, strings.Join(found.problems, "; "), test.want)
		})
	}
}

// TestInterrupted cancels the context during a call: that is no failure of the case.
func TestInterrupted(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	setup := func(*scope.Scope, *golden.Case) (*instance, error) {
		return &instance{forward: func(ctx context.Context, t tensors, _ *[]colt5.RoutingRecord) error {
			stop()
			return fmt.Errorf("waiting: %w", ctx.Err())
		}}, nil
	}
	v := verification{dev: dev, table: table.New(&out, &out, "csv", table.Text("a", "a", 0)), moduleOf: func(string) (module, bool) { return module{setup: setup}, true }}
	assert.Equal(t, command.ErrInterrupted, v.run(ctx, caseFile{path: goldenDir + "topk_10.safetensors"}))
	assert.Zero(t, v.failed)
	assert.Empty(t, out.String())

	code, text, remarks := program.RunContext(ctx, "verify", "-o", "json", goldenDir+"topk_10.safetensors")
	assert.Equal(t, command.ExitInterrupted, code)
	assert.Equal(t, "vkbench: interrupted\n", remarks)
	assert.Empty(t, commandtest.Objects(t, text), "a whole table")
}

// TestDigests requires a line for each output of the cases that ran, in order, also of cases that failed, and the same
// lines for the same bits.
func TestDigests(t *testing.T) {
	broken := damaged(t, "coor_descent_00", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 3, 1) })
	path := filepath.Join(t.TempDir(), "digests")
	args := []string{"verify", goldenDir + "topk_10.safetensors", broken, goldenDir + "feedforward_1.safetensors", "-digests", path}
	digests := func() []string {
		code, _, remarks := program.RunOnDevice(t, args...)
		assert.Equal(t, command.ExitFailed, code)
		assert.Contains(t, remarks, "1 of 3 cases failed")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	lines := digests()
	var names []string
	for _, line := range lines {
		assert.Regexp(t, "^[a-z0-9_]+ [a-z_]+ [0-9a-f]{64}$", line)
		names = append(names, line[:strings.LastIndex(line, " ")])
	}
	want := []string{"topk_10 gates", "topk_10 indices", "topk_10 values", "coor_descent_00 y", "feedforward_1 y"}
	assert.Equal(t, want, slices.DeleteFunc(names, func(name string) bool { return name == "topk_10 coor_descent_values" }))
	assert.Equal(t, lines, digests())
}

// TestWriteDigests compares with a hash of the little-endian bytes 00 00 80 3f of 1.0.
func TestWriteDigests(t *testing.T) {
	var out strings.Builder
	values{bits: map[string][]byte{"y": vk.Bytes([]float32{1}), "i": {}}}.writeDigests(&out, "case")
	assert.Equal(t, "case i e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"+
		"case y "+fmt.Sprintf("%x", sha256.Sum256([]byte{0, 0, 0x80, 0x3f}))+"\n", out.String())
}

func TestUsage(t *testing.T) {
	text := commandtest.File(t, "text", "some text")
	program.RejectsUsage(t, [][2]string{
		{"verify -only topkk", `verify knows no module "topkk", did you mean "topk"?; want some of coordinate_descent, topk, router,`},
		{"verify -only nonsense " + text, `verify knows no module "nonsense"; want some of`},
		{"verify /does/not/exist", "/does/not/exist"},
		{"verify " + filepath.Dir(text), "holds no *.safetensors"},
		{"verify -o yaml " + text, `-o is "yaml"`},
		{"verify -only= " + text, "-only is empty"},
		{"verify -precision f32,f16 x", `-precision is "f32,f16", want one of f32, f16, bf16`},
		{"verify -digests= " + text, "-digests is empty"},
		{"verify -digests /does/not/exist/digests " + text, "-digests /does/not/exist/digests"},
		{"verify -digests " + text + " " + text, "-digests " + text + " is the input"},
	})
}

func TestComparisonKeepsTheWorst(t *testing.T) {
	c := &comparison{}
	c.withinBound("a", []float32{1}, []float64{1}, 1)
	c.withinBound("b", []float32{1.5}, []float64{1}, 1)
	c.withinBound("c", []float32{1.25}, []float64{1}, 10)
	assert.Equal(t, quantity{"b", 0.5, 1}, c.worst)
	assert.Empty(t, c.problems)
	c.withinBound("d", []float32{1, 2}, []float64{1}, 1)
	assert.Equal(t, "d", c.worst.name)
	c.equalInts("e", []int32{1, 2}, []int32{1, 3})
	c.equalInts("f", []int32{1}, []int32{1, 3})
	assert.Len(t, c.problems, 3)
}
