package history

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/cmd/colt5/internal/model"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func example() *History {
	third := float64(float32(1) / 3)
	h := &History{Steps: []train.Record{
		{Step: 0, Updates: 1, Loss: 5.5, Norm: third, Rate: float64(float32(1e-3)), LossScale: 1, Labels: 64},
		{Step: 1, Updates: 1, Skipped: true, Loss: math.Inf(1), Norm: math.Inf(1), Rate: third, LossScale: 65536, Labels: 64},
		{Step: 2, Updates: 2, Loss: 4.5, Norm: 2, Rate: third, LossScale: 32768, Labels: 64},
	}}
	h.Add(Evaluation{Step: 3, HeldOut: 4, Labels: 9, Prompt: "a\n", Sample: "é\"", Text: "xy", Routers: []model.Router{{Name: "r", KEff: 2, Chosen: []int{1, 1}}}})
	return h
}

func TestRoundTrip(t *testing.T) {
	dir, h := t.TempDir(), example()
	assert.Equal(t, 5.0, h.Evaluations[0].Training, "steps without a loss do not count")
	require.NoError(t, h.Write(dir))
	got, err := Read(dir, 3)
	require.NoError(t, err)
	assert.Equal(t, h, got)
	first := string(h.CSV())
	assert.Contains(t, first, "\n0,5.5,7.93482,0.33333334,0.001,1,64,1,false\n1,+Inf,+Inf,+Inf,0.33333334,65536,64,1,true\n")

	_, err = Read(dir, 4)
	assert.ErrorContains(t, err, "losses.csv has 3 steps, want 4")
	require.NoError(t, os.WriteFile(filepath.Join(dir, EvaluationsFile), []byte("{"), 0o644))
	_, err = Read(dir, 3)
	assert.ErrorContains(t, err, "evaluations.jsonl: ")
	for text, want := range map[string]string{
		"": "the first line is not", "step\n": "the first line is not", first + "3,x,1,1,1,1,1,1,false\n": "row 4, column loss: ",
		first + "4,1,1,1,1,1,1,1,false\n": "row 4 is of step 4, want 3", first + "3,1\n": "wrong number of fields",
	} {
		_, err := readCSV([]byte(text))
		assert.ErrorContains(t, err, want)
	}
}

func TestAdd(t *testing.T) {
	h := example()
	h.Steps = append(h.Steps, train.Record{Step: 3, Loss: 3}, train.Record{Step: 4, Loss: 1})
	h.Add(Evaluation{Step: 5, Text: "z", Routers: []model.Router{{Chosen: []int{0, 1}}}})
	assert.Equal(t, 2.0, h.Evaluations[1].Training, "of the steps since the evaluation before")
	assert.Empty(t, h.Evaluations[0].Text)
	assert.Nil(t, h.Evaluations[0].Routers[0].Chosen)
	assert.Equal(t, []int{0, 1}, h.Evaluations[1].Routers[0].Chosen)
}
