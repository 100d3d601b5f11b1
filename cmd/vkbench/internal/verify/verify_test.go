package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	"github.com/colt5-vulkan/colt5/safetensors"
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

// damaged copies a golden case with changed metadata or tensors. data has the bytes of the tensors by name.
func damaged(t *testing.T, name string, change func(metadata map[string]string, data map[string][]byte)) string {
	t.Helper()
	return damagedFile(t, goldenDir+name+".safetensors", change)
}

func damagedFile(t *testing.T, from string, change func(metadata map[string]string, data map[string][]byte)) string {
	t.Helper()
	f, err := safetensors.Open(from)
	require.NoError(t, err)
	defer f.Close()
	data := map[string][]byte{}
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		data[n] = make([]byte, info.Size())
		require.NoError(t, f.ReadInto(n, data[n]))
	}
	metadata := f.Metadata()
	change(metadata, data)
	var list []safetensors.Tensor
	for _, n := range f.Names() {
		info, _ := f.Info(n)
		list = append(list, safetensors.Tensor{Name: n, DType: info.DType, Shape: info.Shape, Data: safetensors.Bytes(data[n])})
	}
	path := filepath.Join(t.TempDir(), filepath.Base(from))
	require.NoError(t, safetensors.Write(path, metadata, list))
	return path
}

// add adds to an element of a float32 tensor.
func add(data []byte, at int, x float32) {
	old := math.Float32frombits(binary.LittleEndian.Uint32(data[4*at:]))
	binary.LittleEndian.PutUint32(data[4*at:], math.Float32bits(old+x))
}

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
	args := []string{"verify", "-o", "json", pytorchDir}
	if testing.Short() {
		args = args[:3]
		for _, name := range []string{
			"attention", "autoregressive", "block", "cross", "encoder_ids", "feedforward_soft", "image", "local_mha", "plain_feedforward", "rmsnorm", "vit",
		} {
			args = append(args, pytorchDir+name+".safetensors")
		}
	}
	for _, r := range commandtest.Objects(t, program.OK(t, args...)) {
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

func TestVerifyFailures(t *testing.T) {
	tested := map[string]bool{} // golden cases
	for _, test := range []struct {
		name, from, want string
		change           func(metadata map[string]string, data map[string][]byte)
	}{
		{"scores", "coor_descent_00", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 3, 0.001) }},
		{"values", "topk_11", "values: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.values"], 3, 0.001) }},
		{"gates", "topk_11", "gates: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.gates"], 0, 1) }},
		{"soft values", "topk_11", "coor_descent_values: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.coor_descent_values"], 0, 0.01) }},
		{"order", "topk_11", "indices: element ", func(_ map[string]string, d map[string][]byte) {
			i := d["out.indices"]
			copy(i, append(append([]byte{}, i[4:8]...), i[:4]...))
		}},
		{"logits", "router_10", "logits: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..logits"], 0, 0.01) }},
		{"all scores", "router_10", "scores_all: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..scores_all"], 0, 0.01) }},
		{"slots", "router_10", "indices of row 0: ", func(_ map[string]string, d map[string][]byte) { d["route..indices"][0] ^= 1 }},
		{"slot scores", "router_10", "scores: error ", func(_ map[string]string, d map[string][]byte) { add(d["route..scores"], 0, 0.01) }},
		{"tokens", "router_10", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 0, 0.01) }},
		{"y", "feedforward_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 100, 0.01) }},
		{"route", "feedforward_1", "indices of row 0: ", func(_ map[string]string, d map[string][]byte) { d["route.router.indices"][0] ^= 1 }},
		{"route of a block", "block_1", "conditional_ff.router indices of row 0: ", func(_ map[string]string, d map[string][]byte) {
			d["route.conditional_ff.router.indices"][0] ^= 1
		}},
		{"logits of a second route", "attention_2", "kv_router logits: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.kv_router.logits"], 96, 1)
		}},
		{"a later block's slots", "cross_2", "kv_router indices of row 2: ", func(_ map[string]string, d map[string][]byte) {
			d["route.kv_router.indices"][8*4] ^= 1
		}},
		{"queries of a window", "autoregressive_1", "q_router indices of row 1: ", func(_ map[string]string, d map[string][]byte) {
			d["route.q_router.indices"][8*4] ^= 1
		}},
		{"keys of a window", "autoregressive_1", "kv_router scores_all: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.kv_router.scores_all"], 159, 0.01)
		}},
		{"scores of a patch", "image_1", "q_router scores_all: error ", func(_ map[string]string, d map[string][]byte) {
			add(d["route.q_router.scores_all"], 64*11, 0.01)
		}},
		{"classes", "vit_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["out.y"], 3, 0.01) }},
		{"name of a router", "attention_2", "kv_router: has no routing record", func(m map[string]string, d map[string][]byte) {
			m["config"] = strings.Replace(m["config"], `"num_heavy_tokens_kv": 20`, `"num_heavy_tokens_kv": 200`, 1)
		}},
		{"weight", "feedforward_1", "y: error ", func(_ map[string]string, d map[string][]byte) { add(d["param.light_ff.1.bias"], 0, 1) }},
		{"option", "coor_descent_00", `unknown key "nonsense"`, func(m map[string]string, _ map[string][]byte) { m["config"] = `{"k": 3, "nonsense": 1}` }},
		{"value of an option", "coor_descent_00", "Eps is -1", func(m map[string]string, _ map[string][]byte) { m["config"] = `{"k": 3, "eps": -1}` }},
		{"call", "router_10", "num_tokens is 0", func(m map[string]string, _ map[string][]byte) { m["call"] = "{}" }},
		{"shape of a weight", "router_10", "param.routing_token has shape", func(m map[string]string, _ map[string][]byte) {
			m["config"] = strings.Replace(m["config"], `"dim": `, `"dim": 1`, 1)
		}},
	} {
		if testing.Short() && (tested[test.from] || !slices.Contains([]string{"coor_descent_00", "topk_11", "router_10", "feedforward_1"}, test.from)) {
			continue // the kernels of other modules take seconds to compile
		}
		tested[test.from] = true
		t.Run(test.name, func(t *testing.T) {
			path := damaged(t, test.from, test.change)
			code, out, remarks := program.RunOnDevice(t, "verify", path, goldenDir+"topk_10.safetensors", "-o", "json")
			assert.Equal(t, command.ExitFailed, code)
			assert.Contains(t, remarks, "1 passed, 1 failed")
			assert.Contains(t, remarks, "1 of 2 cases failed")
			r := commandtest.Objects(t, out)
			assert.Equal(t, "FAILED", r[0]["result"])
			assert.Contains(t, r[0]["remark"], test.want)
			assert.Equal(t, "passed", r[1]["result"])
		})
	}
}

func TestVerifyUnreadable(t *testing.T) {
	whole, err := os.ReadFile(goldenDir + "topk_10.safetensors")
	require.NoError(t, err)
	path := commandtest.File(t, "cut.safetensors", string(whole[:len(whole)/2]))
	code, out, remarks := program.RunOnDevice(t, "verify", path)
	assert.Equal(t, command.ExitFailed, code)
	assert.Contains(t, out, "| cut")
	assert.Contains(t, out, "FAILED")
	assert.Contains(t, out, "0 passed, 1 failed")
	assert.Contains(t, remarks, "1 of 1 cases failed")
}

func TestVerifyUnknown(t *testing.T) {
	path := damaged(t, "topk_10", func(m map[string]string, _ map[string][]byte) { m["module"] = "Sorcery" })
	code, out, remarks := program.RunOnDevice(t, "verify", path)
	assert.Equal(t, command.ExitFailed, code, "nothing ran")
	assert.Contains(t, out, "0 passed, 0 failed, of unknown modules: Sorcery 1")
	assert.Contains(t, remarks, "there are cases of unknown modules, which did not run: Sorcery 1")

	code, out, remarks = program.RunOnDevice(t, "verify", path, goldenDir+"coor_descent_00.safetensors")
	assert.Equal(t, command.ExitFailed, code, "not all ran")
	assert.Contains(t, out, "1 passed, 0 failed, of unknown modules: Sorcery 1")
	assert.Equal(t, 1, strings.Count(remarks, "\n"), remarks)
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
