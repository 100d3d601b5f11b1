package results

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	const one, two = `{"name": "a", "shape": "1x2", "precision": "f16", "gpu_ms": 0.5, "gb_per_s": null}`, `{"name": "b", "shape": "3", "gpu_ms": 2, "new_key": 1}`
	want := []Row{{Name: "a", Shape: "1x2", Precision: "f16", GPU: 0.5}, {Name: "b", Shape: "3", Precision: "f32", GPU: 2}}
	for _, text := range []string{one + "\n" + two + "\n", "[\n  " + one + ",\n  " + two + "\n]\n", "\r\n" + one + "\r\n\r\n" + two} {
		rows, err := Parse([]byte(text))
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
		`{"name": "a\u001b[31m", "shape": "1", "gpu_ms": 1}`:             `2: name is "a\x1b[31m", want at most 300 printable`,
		`{"name": "a", "shape": "1", "gpu_ms": 1, "os": "a\nb"}`:         `2: os is "a\nb", want`,
		one + one: "2: more than one object",
		one + "}": "2: more than one object",
		one + "]": "2: more than one object",
	} {
		_, err := Parse([]byte(two + "\n" + line + "\n" + two))
		assert.ErrorContains(t, err, want, line)
	}
}

// TestEarlierVersions reads the names of earlier versions, and the committed results.
func TestEarlierVersions(t *testing.T) {
	rows, err := Parse([]byte(`{"name": "roof matrix to f32", "shape": "16x16x16", "precision": "f16", "gpu_ms": 1, "roof_share": null}
{"name": "mark", "shape": "1x2x3", "precision": "f32", "gpu_ms": 1, "roof_share": 0.5}
{"name": "mark", "shape": "1x2x3", "precision": "f32", "gpu_ms": 1, "peak_share": 0.25}`))
	require.NoError(t, err)
	assert.Equal(t, []Row{
		{Name: MatrixPeak + "f32", Shape: "16x16x16", Precision: "f16", GPU: 1},
		{Name: "membership_mask", Shape: "1x2x3", Precision: "f32", GPU: 1, PeakShare: 0.5},
		{Name: "membership_mask", Shape: "1x2x3", Precision: "f32", GPU: 1, PeakShare: 0.25},
	}, rows)
	assert.True(t, rows[0].IsPeak())
	assert.False(t, rows[1].IsPeak())

	paths, err := filepath.Glob("../../../../docs/results/*/*/bench.jsonl")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		rows, err := ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, []string{CopyPeak, MatmulPeak}, []string{rows[0].Name, rows[1].Name}, path)
		assert.Equal(t, 1.0, rows[1].PeakShare, path)
	}
}

func TestLatest(t *testing.T) {
	rows := Latest([]Row{{Name: "a", GPU: 1}, {Name: "b", GPU: 2}, {Name: "a", GPU: 3}})
	assert.Equal(t, []Row{{Name: "a", GPU: 3}, {Name: "b", GPU: 2}}, rows)
}
