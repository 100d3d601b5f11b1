package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// vkbench runs the program in this process.
func vkbench(args ...string) (code int, stdout, stderr string) {
	var out, remarks bytes.Buffer
	code = run(context.Background(), append([]string{"vkbench"}, args...), &out, &remarks)
	return code, out.String(), remarks.String()
}

// onDevice is vkbench for tests that reach a device: skipped without one.
func onDevice(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	gputest.Device(t)
	gputest.CountCase()
	return vkbench(args...)
}

// fine wants exit code 0, and returns stdout.
func fine(t *testing.T, args ...string) string {
	t.Helper()
	code, out, remarks := onDevice(t, args...)
	require.Equal(t, exitFine, code, "%s\n%s", out, remarks)
	return out
}

// objects reads JSON output.
func objects(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &list), text)
	return list
}

// file writes a file of a test, and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestWrongUsage(t *testing.T) {
	text := file(t, "text", "some text")
	empty := file(t, "empty", "")
	planted := file(t, "planted", earlier(blockLength, "1x2x3x4", "f32", 1, vk.Info{Name: "A"}))
	settings := file(t, "settings", "{}")
	rows := file(t, "rows", "[\n{\"name\": \"a\", \"shape\": \"1\", \"gpu_ms\": 1},\n{\"name\": \"a\"}\n]\n")
	for _, test := range []struct{ args, want string }{
		{"", "which command"},
		{"nonsense", `there is no command "nonsense"`},
		{"-nonsense", "-nonsense"},
		{"devices nonsense", `takes no arguments, but got "nonsense"`},
		{"info -nonsense", "-nonsense"},
		{"info -device", "needs an argument"},
		{"verify", "needs a folder"},
		{"verify /does/not/exist", "/does/not/exist"},
		{"verify " + filepath.Dir(text), "holds no *.safetensors"},
		{"verify -o yaml " + text, `-o is "yaml"`},
		{"bench all", "takes no arguments"},
		{"bench -only rmsnorm,nonsense", `-only is "nonsense", want some of rmsnorm, `},
		{"bench -only rmsnorm -size 5", `-size is "5", but rmsnorm has 2 sizes: rows x dim`},
		{"bench -only rmsnorm -size 5xa", `-size is "5xa", want numbers up to`},
		{"bench -only rmsnorm -size 5x0", `-size is "5x0", but of rmsnorm dim is 0`},
		{"bench -only cross -size 1x2x0x4x5x0", `but of cross memories is 0`},
		{"bench -only topk -size 1x5x6", `but of topk k is 6 of 5 entries`},
		{"bench -only router_logits -size 227932169x316136131x64x1", "multiply to more than 2^58"},
		{"bench -only scatter -size 1x5x8x6", `but of scatter k is 6 of 5 tokens`},
		{"bench -only=", "-only names nothing"},
		{"report -only= -out /tmp", "-only names nothing"},
		{"verify -module= " + text, "-module names nothing"},
		{"plan block 2x32768x512 -precision f16,f32", `-precision is "f16,f32", want one of`},
		{"plan block 2x32768x512 -config " + text, "-config " + text + ": invalid character"},
		{"plan vit 2147483647", "[2147483647 64] make 137438953408 tokens"},
		{"bench -only rmsnorm -size linear=1x1x1", `-size is "linear=1x1x1", want sizes of rmsnorm`},
		{"bench -size 5x5", `-size is "5x5", but patch_embed has 4 sizes`},
		{"bench -only rmsnorm -size 5,6x7,a", `-size is "5,6x7,a", want numbers up to`},
		{"bench -size rmsnorm=1x2,topk=3x4x5", "for another case -size again"},
		{"verify -precision f32,f16 x", `-precision is "f32,f16", want one of f32, f16, bf16`},
		{"bench -precision f32,f8", `-precision is "f32,f8", want some of f32, f16, bf16`},
		{"bench -baseline /does/not/exist", "/does/not/exist"},
		{"bench -baseline " + empty, empty + " holds no rows"},
		{"bench -baseline " + text, "-baseline: " + text + ":1: invalid character"},
		{"bench -baseline " + rows, "-baseline: " + rows + ":3: an object without name or shape"},
		{"bench -steps -baseline " + rows, "do not go together"},
		{"bench -reps 0", "-reps is 0"},
		{"bench -reps x", "x"},
		{"bench -warmup -1", "-warmup is -1"},
		{"peak all", "takes no arguments"},
		{"peak -reps 0", "-reps is 0"},
		{"plot", "plot needs a file"},
		{"plot " + text, text + ":1: invalid character"},
		{"plot " + planted, "-out names no folder"},
		{"plot -out " + text + " " + planted, "-out " + text},
		{"plot " + rows, rows + ":3: an object"},
		{"plot -out /tmp " + file(t, "two", earlier(blockLength, "1x2x3x4", "f32", 1, vk.Info{Name: "A"})+earlier(blockLength, "1x3x3x4", "f32", 1, vk.Info{Name: "B"})), `"A" and "B"`},
		{"plot -out /tmp " + file(t, "none", earlier("membership_mask", "1x2x3", "f32", 1, vk.Info{Name: "A"})), "nothing to draw"},
		{"report", "-out names no folder"},
		{"report all", "takes no arguments"},
		{"report -out " + text, "-out " + text},
		{"report -lengths 5,4", `-lengths is "5,4"`},
		{"report -precision f8", `-precision is "f8"`},
		{"report -only nonsense", `-only is "nonsense"`},
		{"report -size rmsnorm=1x1", `want sizes of feedforward`},
		{"route", "needs a text file"},
		{"route /does/not/exist", "/does/not/exist"},
		{"route " + empty, "is empty"},
		{"route " + text + " -dim 0", "-dim is 0, want 1 to 2147483647"},
		{"route -heavy -1 " + text, "-heavy is -1, want 1 to"},
		{"route -length 0 " + text, "-length is 0, want 1 to"},
		{"route -batch 562949953421312 " + text, "-batch is 562949953421312, want 1 to 2147483647"},
		{"route -html " + text + " " + text, "-html " + text + " is the input"},
		{"route -config " + settings + " -html " + settings + " " + text, "-html " + settings + " is the input"},
		{"route -html " + filepath.Dir(text) + " " + text, "want a regular file or none"},
		{"route -batch 0 " + text, "-batch is 0, want 1 to"},
		{"route -o yaml " + text, `-o is "yaml"`},
		{"route -config /does/not/exist " + text, "/does/not/exist"},
		{"route -config " + text + " " + text, "invalid character"},
		{"route -html /does/not/exist/page " + text, "/does/not/exist/page"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, out, remarks := vkbench(strings.Fields(test.args)...)
			assert.Equal(t, exitUsage, code)
			assert.Empty(t, out)
			assert.Contains(t, remarks, test.want)
			assert.Equal(t, 1, strings.Count(remarks, "\n"), "one line: %s", remarks)
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-help"}, {"--help"}} {
		code, out, remarks := vkbench(args...)
		assert.Equal(t, exitFine, code)
		assert.Empty(t, remarks)
		for _, want := range []string{"Exit codes", "0  fine", "1  a check failed", "2  wrong usage", "3  no usable", "devices", "info", "verify", "bench", "peak", "tune", "report", "plot", "plan", "route"} {
			assert.Contains(t, out, want)
		}
	}
	for _, command := range []string{"devices", "info", "verify", "bench", "peak", "tune", "report", "plot", "plan", "route"} {
		code, out, _ := vkbench(command, "-help")
		assert.Equal(t, exitFine, code)
		assert.Equal(t, command != "plot", strings.Contains(out, "--device"))
	}
}

// TestInterrupted: whoever stops the program is told so once, and it fails.
func TestInterrupted(t *testing.T) {
	gputest.Device(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	for _, args := range []string{
		"bench -only mark", "report -only mark -out " + t.TempDir(), "tune", "verify ../../testdata/golden/topk_00.safetensors", "route " + file(t, "text", "some text"),
		"peak",
	} {
		var out, remarks bytes.Buffer
		assert.Equal(t, exitFailed, run(ctx, append([]string{"vkbench"}, strings.Fields(args)...), &out, &remarks), args)
		assert.True(t, strings.HasSuffix(remarks.String(), "vkbench: interrupted\n"), "%s: %s", args, remarks.String())
	}
}

func TestNoDevice(t *testing.T) {
	golden := "../../testdata/golden/topk_00.safetensors"
	for _, args := range [][]string{
		{"info", "-device", "no such device"}, {"devices", "-device", "no such device"}, {"verify", golden, "-device=no such device"},
		{"bench", "--device", "no such device"}, {"route", golden, "-device", "no such device"},
		{"peak", "-device", "no such device"}, {"report", "-out", t.TempDir(), "-device", "no such device"},
	} {
		code, _, remarks := vkbench(args...)
		assert.Equal(t, exitNoDevice, code, args)
		assert.Contains(t, remarks, "no usable Vulkan device")
	}
}

func TestDevices(t *testing.T) {
	dev := gputest.Device(t)
	list := objects(t, fine(t, "devices", "-o", "json"))
	chosen := 0
	for _, d := range list {
		if d["chosen"] == true {
			chosen++
			assert.Equal(t, dev.Info().Name, d["name"])
			assert.Equal(t, dev.Info().UUID, d["uuid"])
			assert.Empty(t, d["unusable"])
		}
	}
	assert.Equal(t, 1, chosen)
}

func TestInfo(t *testing.T) {
	dev := gputest.Device(t)
	rows, err := csv.NewReader(strings.NewReader(fine(t, "info", "-o", "csv", "-device", dev.Info().UUID))).ReadAll()
	require.NoError(t, err)
	found := map[string]string{}
	for _, r := range rows {
		found[r[0]] = r[1]
	}
	assert.Equal(t, "value", found["property"])
	assert.Equal(t, dev.Info().Name, found["name"])
	assert.Equal(t, dev.Info().UUID, found["UUID"])
	assert.Regexp(t, "^[0-9]+$", found["device memory"])
	shapes := 0
	for _, r := range rows {
		if r[0] == "cooperative matrix" {
			shapes++
			assert.Regexp(t, `^M \d+ N \d+ K \d+: \w+ x \w+ \+ \w+ -> \w+`, r[1])
		}
	}
	assert.Equal(t, len(dev.Caps().MatrixShapes), shapes)
}

func TestComponent(t *testing.T) {
	for number, name := range map[uint32]string{0: "float16", 1: "float32", 3: "int8", 10: "uint64", 1000141000: "bfloat16", 11: "type 11"} {
		assert.Equal(t, name, component(number))
	}
}
