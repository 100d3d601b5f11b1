package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	a := write("a.jsonl", "{\"step\": 0, \"loss\": 4, \"grad_norm\": 1}\n{\"step\": 1, \"loss\": 2.0}\n{\"step\": 2, \"loss\": 1}\n")
	b := write("b.csv", "step,bits,loss\n0,1,4\n1,1,2.5\n2,1,1.75\n3,1,1.5\n")
	one, err := readRun("PyTorch", a)
	require.NoError(t, err)
	two, err := readRun("ours", b)
	require.NoError(t, err)
	assert.Equal(t, []float64{4, 2, 1}, one.losses)
	assert.Equal(t, []float64{4, 2.5, 1.75, 1.5}, two.losses)
	assert.Equal(t, "ours and PyTorch, first 2 steps: at most 2.50e-01 relative (step 1: 2.5 and 2), mean 1.25e-01", difference(one, two, 2))
	assert.Equal(t, "ours and PyTorch, first 3 steps: at most 7.50e-01 relative (step 2: 1.75 and 1), mean 3.33e-01", difference(one, two, 200))
	out := filepath.Join(dir, "out")
	require.NoError(t, compare(out, "1,2", "title", []string{"PyTorch=" + a, "ours=" + b}))
	got, err := os.ReadFile(out + ".csv")
	require.NoError(t, err)
	assert.Equal(t, "step,PyTorch,ours\n0,4,4\n1,2,2.5\n2,1,1.75\n3,,1.5\n", string(got))
	assert.FileExists(t, out+".svg")
	assert.FileExists(t, out+".png")

	for _, test := range []struct{ file, text, want string }{
		{"x.csv", "step,bits\n0,1\n", `the columns are ["step" "bits"], want step and loss among them`},
		{"x.csv", "", "there are no losses"},
		{"x.csv", "step,loss\n1,2\n", `a step is "1", want 0: those from 0 on, in order`},
		{"x.jsonl", `{"step": 0, "loss": "x"}`, "invalid number literal"},
		{"x.jsonl", `{"step": 0}`, `the loss of step 0 is "", want a finite number`},
		{"x.csv", "step,loss\n0,NaN\n", `the loss of step 0 is "NaN", want a finite number`},
	} {
		_, err := readRun("x", write(test.file, test.text))
		assert.ErrorContains(t, err, test.want)
	}
	assert.ErrorContains(t, compare(out, "0", "", nil), `-up-to: "0" is no number of steps, want at least 1`)
	assert.ErrorContains(t, compare(out, "1", "", []string{"a=" + a}), "fewer than two runs")
	assert.ErrorContains(t, compare(out, "1", "", []string{"a=" + a, b}), "is not of the form NAME=FILE")
	assert.ErrorIs(t, compare(out, "1", "", []string{"a=" + a, "b=no-such-file"}), os.ErrNotExist)
}
