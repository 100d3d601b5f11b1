package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTrainerRecompute: activation checkpointing costs work and changes no bit.
func TestTrainerRecompute(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers")
	}
	gputest.CountCase()
	c := colt5.Default[colt5.FeedForwardConfig]()
	c.Dim = 16
	ff, err := colt5.NewFeedForward(t.Context(), gputest.Device(t), c)
	ff = keep(t, ff, err)
	run := func(recompute int) (map[string][]float32, float64) {
		m := embeddingModel(t, colt5.LinearConfig{In: c.Dim, Out: 256}, func(g *colt5.Graph, x *colt5.Tensor) *colt5.Tensor {
			y := g.Value("ff")
			require.NoError(t, ff.Forward(t.Context(), y, x, colt5.CallOptions{}))
			return y
		}, func(g *colt5.Graph, y *colt5.Tensor) *colt5.Tensor {
			return g.CrossEntropy(y, g.Input("labels", colt5.I32, 0, 0))
		})
		trainer, err := train.NewTrainer(t.Context(), m.graph, m.parameters, train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}, Recompute: recompute})
		trainer = keep(t, trainer, err)
		batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 2, Length: 24, Seed: 3})
		require.NoError(t, err)
		var b train.Batch
		var stats colt5.CallStats
		for step := range int64(2) {
			require.NoError(t, batches.Batch(t.Context(), step, &b))
			require.NoError(t, trainer.Measure(t.Context(), &b, &stats))
		}
		return m.weights(t), stats.Flops
	}
	kept, few := run(0)
	again, more := run(-1)
	assert.Equal(t, kept, again)
	assert.Less(t, few, more)
}
