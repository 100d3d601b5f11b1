package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMeasure: measured steps have the bits of others. They cost what their parts cost.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 6 s")
	}
	gputest.CountCase()
	plain, measured := newLanguageModel(t), newLanguageModel(t)
	want, trainer := newTrainer(t, plain, 2), newTrainer(t, measured, 2)
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 2, Length: 16, Seed: 3})
	require.NoError(t, err)
	var b train.Batch
	timed := gputest.Device(t).Caps().TimestampNanoseconds > 0
	var all [4]colt5.CallStats
	for step := range all {
		require.NoError(t, batches.Batch(t.Context(), int64(step), &b))
		require.NoError(t, want.Step(t.Context(), &b))
		if step == 1 { // a step that is not waited for
			require.NoError(t, trainer.Step(t.Context(), &b))
			continue
		}
		all[step].Profile = step > 1
		require.NoError(t, trainer.Measure(t.Context(), &b, &all[step]))
	}
	require.NoError(t, want.Wait(t.Context()))
	assert.Equal(t, plain.weights(t), measured.weights(t))

	first, last := all[0], all[3]
	assert.Empty(t, first.StepTimes)
	assert.Equal(t, first.StepNames, last.StepNames)
	assert.Positive(t, first.Workspace)
	assert.Positive(t, first.Flops)
	assert.Equal(t, timed, first.Time > 0)
	assert.Equal(t, []string{"adamw", "copy"}, last.StepNames[len(last.StepNames)-2:], "the copy is of the loss scale")
	if timed {
		require.Len(t, last.StepTimes, len(last.StepNames))
	}
	var flops, bytes float64
	for i, s := range last.StepTimes {
		assert.Equal(t, last.StepNames[i], s.Name)
		flops += s.Flops
		bytes += s.Bytes
	}
	if timed {
		assert.InEpsilon(t, last.Flops, flops, 1e-9)
		assert.InEpsilon(t, last.Bytes, bytes, 1e-9)
	}
	nodes := len(last.Nodes) / 2
	require.Positive(t, nodes)
	for i, n := range last.Nodes[nodes:] {
		a := last.Nodes[i]
		assert.Equal(t, a.Name, n.Name)
		assert.Equal(t, last.StepNames[a.FirstStep:][:a.Steps], last.StepNames[n.FirstStep:][:n.Steps], "the second micro-batch")
	}

	assert.EqualError(t, trainer.Measure(t.Context(), &b, nil), "train: Trainer.Measure: stats is nil, want the place for the statistics")
	assert.ErrorContains(t, trainer.Measure(t.Context(), &train.Batch{}, &all[0]), "train: Trainer.Measure: the batch is empty")
}
