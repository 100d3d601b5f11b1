package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// embeddingModel is a Linear of what between makes of an embedding of bytes. loss makes the loss of its result.
func embeddingModel(t *testing.T, c colt5.LinearConfig, between, loss func(g *colt5.Graph, x *colt5.Tensor) *colt5.Tensor) languageModel {
	ctx, dev := t.Context(), gputest.Device(t)
	g := colt5.NewGraph(dev)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	embedding, err := colt5.NewEmbedding(ctx, dev, colt5.EmbeddingConfig{NumTokens: 256, Dim: c.In})
	embedding = keep(t, embedding, err)
	head, err := colt5.NewLinear(ctx, dev, c)
	head = keep(t, head, err)
	x, y := g.Value("embedding"), g.Value("head")
	require.NoError(t, embedding.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}))
	require.NoError(t, head.Forward(ctx, y, between(g, x), colt5.CallOptions{}))
	g.Output("loss", loss(g, y))
	m := languageModel{g, head.Parameters()}
	table := embedding.Parameters()[0]
	table.Name = "embedding.weight"
	m.parameters = append(m.parameters, table)
	return m
}

// droppingModel is a language model of one byte, with dropout of its embedding.
func droppingModel(t *testing.T, rate float64) languageModel {
	return embeddingModel(t, colt5.LinearConfig{In: 16, Out: 256},
		func(g *colt5.Graph, x *colt5.Tensor) *colt5.Tensor { return g.Dropout(x, rate) },
		func(g *colt5.Graph, y *colt5.Tensor) *colt5.Tensor {
			return g.CrossEntropy(y, g.Input("labels", colt5.I32, 0, 0))
		})
}

// TestTrainerDropout: each step drops other elements, the same ones in all micro-batches, after a resume, and on another run.
func TestTrainerDropout(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	gputest.CountCase()
	const n = 3
	run := func(rate float64, seed uint64, micro, resume int) map[string][]float32 {
		m, file := droppingModel(t, rate), t.TempDir()+"/optimizer.safetensors"
		c := train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}, MicroBatches: micro, DropoutSeed: seed}
		trainer, err := train.NewTrainer(t.Context(), m.graph, m.parameters, c)
		trainer = keep(t, trainer, err)
		steps(t, trainer, 0, int64(resume))
		if resume < n {
			require.NoError(t, trainer.Optimizer().Save(t.Context(), file))
			second, err := train.NewTrainer(t.Context(), m.graph, m.parameters, c)
			second = keep(t, second, err)
			require.NoError(t, second.Load(t.Context(), file))
			steps(t, second, int64(resume), n)
		}
		return m.weights(t)
	}
	want := run(0.3, 1, 1, n)
	for _, micro := range []int{2, 8} {
		if testing.Short() && micro == 2 { // as resumed, below
			continue
		}
		assert.Equal(t, want, run(0.3, 1, micro, n), "%d micro-batches", micro)
	}
	assert.Equal(t, want, run(0.3, 1, 2, 2), "resumed")
	assert.NotEqual(t, want, run(0.3, 2, 1, n), "another seed")
	assert.NotEqual(t, want, run(0, 1, 1, n), "no dropout")
}
