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
	ctx, dev := t.Context(), gputest.Device(t)
	g := colt5.NewGraph(dev)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	embedding, err := colt5.NewEmbedding(ctx, dev, colt5.EmbeddingConfig{NumTokens: 256, Dim: 16})
	embedding = keep(t, embedding, err)
	head, err := colt5.NewLinear(ctx, dev, colt5.LinearConfig{In: 16, Out: 2, Bias: true})
	head = keep(t, head, err)
	x, y := g.Value("embedding"), g.Value("head")
	require.NoError(t, embedding.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}))
	require.NoError(t, head.Forward(ctx, y, g.Mean(x, nil), colt5.CallOptions{}))
	g.Output("loss", g.MeanSquaredError(y, g.Input("targets", colt5.F32, 0, 2)))
	m := languageModel{g, head.Parameters()}
	table := embedding.Parameters()[0]
	table.Name = "embedding.weight"
	m.parameters = append(m.parameters, table)
	return m
}

// TestTrainerTargets: a Trainer minimises the mean squared error, in micro-batches with the same bits.
func TestTrainerTargets(t *testing.T) {
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
