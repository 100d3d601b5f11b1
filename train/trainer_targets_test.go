package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// regression is a model that predicts two numbers of a text, with the loss of Graph.MeanSquaredError.
func regression(t *testing.T) languageModel {
	return embeddingModel(t, colt5.LinearConfig{In: 16, Out: 2, Bias: true},
		func(g *colt5.Graph, x *colt5.Tensor) *colt5.Tensor { return g.Mean(x, nil) },
		func(g *colt5.Graph, y *colt5.Tensor) *colt5.Tensor {
			return g.MeanSquaredError(y, g.Input("targets", colt5.F32, 0, 2))
		})
}

// TestTrainerTargets: a Trainer minimises the mean squared error, in micro-batches with the same bits.
func TestTrainerTargets(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 6 s")
	}
	gputest.CountCase()
	b := train.Batch{Items: 4, Length: 5, IDs: make([]uint8, 20), Targets: make([]float32, 8)}
	for i := range b.IDs {
		b.IDs[i] = uint8(i * i % 3)
		b.Targets[i/5*2+1] += float32(b.IDs[i])
	}
	var want map[string][]float32
	for _, micro := range []int{1, 2, 4} {
		m := regression(t)
		trainer := newTrainer(t, m, micro)
		for range 30 {
			require.NoError(t, trainer.Step(t.Context(), &b))
		}
		records, err := trainer.Optimizer().Records(t.Context(), 0)
		require.NoError(t, err)
		assert.Equal(t, 8.0, records[0].Labels)
		assert.Less(t, records[29].Loss, records[0].Loss/4)
		if want == nil {
			want = m.weights(t)
		}
		assert.Equal(t, want, m.weights(t), "%d micro-batches", micro)
	}
	trainer := newTrainer(t, regression(t), 2)
	bad := b
	bad.Targets = bad.Targets[1:]
	assert.ErrorContains(t, trainer.Step(t.Context(), &bad), "the batch has 7 Targets, want a multiple of Items, 4")
	require.NoError(t, trainer.Step(t.Context(), &b))
	bad.Targets = make([]float32, 12)
	assert.ErrorContains(t, trainer.Step(t.Context(), &bad), "the batch has 12 Targets, want 8, as the first one")
}
