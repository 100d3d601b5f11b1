package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRows(t *testing.T) {
	const one, two = `{"name": "a", "shape": "1x2", "precision": "f16", "gpu_ms": 0.5, "gb_per_s": null}`, `{"name": "b", "shape": "3", "gpu_ms": 2, "new_key": 1}`
	want := []benchRow{{Name: "a", Shape: "1x2", Precision: "f16", GPU: 0.5}, {Name: "b", Shape: "3", Precision: "f32", GPU: 2}}
	for _, text := range []string{one + "\n" + two + "\n", "[\n  " + one + ",\n  " + two + "\n]\n", "\r\n" + one + "\r\n\r\n" + two} {
		rows, err := parseRows([]byte(text))
		require.NoError(t, err)
		assert.Equal(t, want, rows)
	}
	for line, want := range map[string]string{
		"| name |":                                                       "2: invalid character",
		`{"name": "a"`:                                                   "2: unexpected EOF",
		`{"name": "a"}`:                                                  "2: an object without name or shape",
		`{"shape": "a"}`:                                                 "2: an object without name or shape",
		`{"name": 5, "shape": ""}`:                                       "2: json: cannot unmarshal number",
		`{"name": "a", "shape": "1", "step": 1}`:                         "2: a row without gpu_ms",
		`{"name": "a", "shape": "1", "gpu_ms": -1}`:                      "2: gpu_ms is -1",
		`{"name": "a", "shape": "1", "gpu_ms": "1"}`:                     "2: json: cannot unmarshal string",
		`{"name": "a", "shape": "1", "gpu_ms": 1e308}`:                   "2: gpu_ms is 1e+308, want 0, or 1e-18 to 1e+18",
		`{"name": "a", "shape": "1", "gpu_ms": 5e-324}`:                  "2: gpu_ms is 5e-324, want",
		`{"name": "a", "shape": "1", "gpu_ms": 1, "gb_per_s": -1}`:       "2: gb_per_s is -1, want 0",
		`{"name": "a", "shape": "1", "gpu_ms": 1, "tflop_per_s": 1e300}`: "2: tflop_per_s is 1e+300, want 0",
		one + one: "2: more than one object",
		one + "}": "2: more than one object",
		one + "]": "2: more than one object",
	} {
		_, err := parseRows([]byte(two + "\n" + line + "\n" + two))
		assert.ErrorContains(t, err, want, line)
	}
}

// earlier is a row of an earlier run.
func earlier(name, shape, precision string, gpu float64, i vk.Info) string {
	return fmt.Sprintf(`{"name": %q, "shape": %q, "precision": %q, "gpu_ms": %g, "device": %q, "driver": %q}`+"\n", name, shape, precision, gpu, i.Name, driverOf(i))
}

func TestBaseline(t *testing.T) {
	here, other := vk.Info{Name: "A", Driver: "d", DriverInfo: "1"}, vk.Info{Name: "B", Driver: "e"}
	b, err := readBaseline(file(t, "base.jsonl", earlier("x", "1", "f32", 9, here)+earlier("x", "1", "f32", 4, here)+earlier("x", "1", "f16", 0, here)+earlier("y", "1", "f32", 1, here)))
	require.NoError(t, err)
	assert.Equal(t, []any{millis(4), 2.0}, b.cells("x 1 f32", 2), "the last of two rows counts")
	assert.Equal(t, []any{millis(0), nil}, b.cells("x 1 f16", 2))
	assert.Equal(t, []any{absent{}, nil}, b.cells("x 2 f32", 2))
	assert.Equal(t, "Not run, but in the baseline: y 1 f32.", b.rest())
	assert.Equal(t, []any{millis(1), nil}, b.cells("y 1 f32", 0))
	assert.Empty(t, b.rest())
	assert.Len(t, b.about(here), 1)
	assert.Contains(t, b.about(here)[0], "3 rows of ")
	assert.Equal(t, []string{"The baseline is of another device: A, d 1."}, b.about(other)[1:])
	here.DriverInfo = "2"
	assert.Equal(t, []string{"The baseline is of another driver: d 1."}, b.about(here)[1:])

	var none *baseline
	assert.Empty(t, none.columns())
	assert.Empty(t, none.cells("x 1 f32", 2))
	assert.Empty(t, none.about(here))
	assert.Empty(t, none.rest())

	text := ""
	for i := range 20 {
		text += fmt.Sprintf(`{"name": "x", "shape": "%d", "gpu_ms": 1}`+"\n", i)
	}
	b, err = readBaseline(file(t, "old.jsonl", text))
	require.NoError(t, err)
	assert.Equal(t, []string{"The baseline has rows that do not say of what device they are."}, b.about(here)[1:])
	assert.Contains(t, b.rest(), "x 11 f32, and 8 more.")
}

// TestBenchBaseline plants rows: one that this run has, and one that it has not.
func TestBenchBaseline(t *testing.T) {
	i := gputest.Device(t).Info()
	base := file(t, "base.jsonl", earlier("rmsnorm", "3x4", "f32", 1e6, i)+earlier("rmsnorm", "5x4", "f16", 1, i)+earlier("membership_mask", "1x2x3", "f32", 1, vk.Info{Name: "Other"}))
	args := quickly("-only", "rmsnorm", "-size", "3,7x4", "-baseline", base)
	code, out, remarks := onDevice(t, append(args, "-o", "json")...)
	require.Equal(t, exitFine, code, remarks)
	rows := objects(t, out)
	require.Len(t, rows, 4)
	assert.Nil(t, rows[0]["baseline_gpu_ms"])
	assert.Equal(t, 1e6, rows[2]["baseline_gpu_ms"])
	assert.Equal(t, i.Name, rows[2]["device"])
	if now := rows[2]["gpu_ms"].(float64); now > 0 {
		assert.InEpsilon(t, 1e6/now, rows[2]["baseline_ratio"], 1e-6)
	}
	assert.Nil(t, rows[3]["baseline_gpu_ms"])
	assert.Contains(t, remarks, "of another device: Other")
	assert.Contains(t, remarks, "Not run, but in the baseline: rmsnorm 5x4 f16, mark 1x2x3 f32.")
	assert.NotContains(t, remarks, "another driver")

	// What a run wrote is a baseline of the next.
	again := file(t, "again.json", out)
	code, out, remarks = onDevice(t, quickly("-only", "rmsnorm", "-size", "3x4", "-baseline", again)...)
	require.Equal(t, exitFine, code, remarks)
	assert.Contains(t, out, " earlier |  ratio |")
	assert.NotContains(t, out, "absent")
	assert.Contains(t, out, "Not run, but in the baseline: rmsnorm 7x4 f32.")
	assert.Equal(t, 1, strings.Count(out, "Earlier: 4 rows of "+again))
}
