package train_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// languageModel is a small model over bytes: an embedding, attention to a causal window, a feedforward, and a head.
type languageModel struct {
	graph      *colt5.Graph
	parameters []colt5.Parameter
}

func keep[M interface{ Close() error }](t *testing.T, m M, err error) M {
	t.Helper()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close()) })
	return m
}

func newLanguageModel(t *testing.T) languageModel {
	const dim = 16
	ctx, dev := t.Context(), gputest.Device(t)
	g := colt5.NewGraph(dev)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	m := languageModel{graph: g}
	embedding, err := colt5.NewEmbedding(ctx, dev, colt5.EmbeddingConfig{NumTokens: 256, Dim: dim})
	embedding = keep(t, embedding, err)
	c := colt5.Default[colt5.LocalMHAConfig]()
	c.Dim, c.DimHead, c.Heads, c.WindowSize, c.Causal, c.ExactWindowSize, c.PreNorm = dim, 8, 2, 8, true, true, true
	attention, err := colt5.NewLocalMHA(ctx, dev, c)
	attention = keep(t, attention, err)
	ff, err := colt5.NewFeedForward(ctx, dev, colt5.FeedForwardConfig{Dim: dim, Mult: 2})
	ff = keep(t, ff, err)
	head, err := colt5.NewLinear(ctx, dev, colt5.LinearConfig{In: dim, Out: 256})
	head = keep(t, head, err)

	x, a, f, logits := g.Value("embedding"), g.Value("attention"), g.Value("feedforward"), g.Value("logits")
	require.NoError(t, embedding.Forward(ctx, x, g.Input("ids", colt5.U8, 0, 0), colt5.CallOptions{}))
	require.NoError(t, attention.Forward(ctx, a, x, colt5.LocalMHAOptions{}))
	h := g.Add(x, a)
	require.NoError(t, ff.Forward(ctx, f, h, colt5.CallOptions{}))
	require.NoError(t, head.Forward(ctx, logits, g.Add(h, f), colt5.CallOptions{}))
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	add := func(prefix string, list []colt5.Parameter) {
		for _, p := range list {
			p.Name = prefix + p.Name
			m.parameters = append(m.parameters, p)
		}
	}
	add("embedding.", embedding.Parameters())
	add("attention.", attention.Parameters())
	add("ff.", ff.Parameters())
	add("head.", head.Parameters())
	return m
}

func (m languageModel) weights(t *testing.T) map[string][]float32 {
	w := map[string][]float32{}
	for _, p := range m.parameters {
		data, err := p.Tensor.Float32(t.Context())
		require.NoError(t, err)
		w[p.Name] = data
	}
	return w
}

var trainingText = bytes.NewReader([]byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", 50)))

// steps trains from one step to another, and returns the losses.
func steps(t *testing.T, trainer *train.Trainer, from, to int64) (losses []float64) {
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 8, Length: 24, Seed: 3})
	require.NoError(t, err)
	var b train.Batch
	for step := from; step < to; step++ {
		require.NoError(t, batches.Batch(t.Context(), step, &b))
		require.NoError(t, trainer.Step(t.Context(), &b))
	}
	require.NoError(t, trainer.Wait(t.Context()))
	records, err := trainer.Optimizer().Records(t.Context(), int(from))
	require.NoError(t, err)
	for _, r := range records {
		assert.Equal(t, 8*24.0, r.Labels)
		losses = append(losses, r.Loss)
	}
	return losses
}

func newTrainer(t *testing.T, m languageModel, micro int) *train.Trainer {
	t.Helper()
	c := train.OptimizerConfig{AdamW: train.AdamW{Rate: 0.01}, Clip: 1, MicroBatches: micro}
	trainer, err := train.NewTrainer(t.Context(), m.graph, m.parameters, c)
	return keep(t, trainer, err)
}

// TestTrainer: a small model halves its loss. A batch of 8 items in 1, 2, 4 or 8 micro-batches gives the same bits, and so does a
// run that is saved and resumed.
func TestTrainer(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 11 s on CPU drivers; ExampleTrainer halves a loss too")
	}
	gputest.CountCase()
	m := newLanguageModel(t)
	losses := steps(t, newTrainer(t, m, 1), 0, 40)
	require.Len(t, losses, 40)
	assert.Less(t, losses[39], losses[0]/2, "%v", losses)

	const short = 5
	var want map[string][]float32
	var wantLosses []float64
	for _, micro := range []int{1, 2, 4, 8} {
		if testing.Short() && micro != 1 && micro != 4 {
			continue
		}
		m := newLanguageModel(t)
		got := steps(t, newTrainer(t, m, micro), 0, short)
		w := m.weights(t)
		if micro == 1 {
			want, wantLosses = w, got
			assert.Equal(t, losses[:short], got)
			continue
		}
		assert.Equal(t, want, w, "%d micro-batches", micro)
		assert.Equal(t, wantLosses, got, "%d micro-batches", micro)
	}

	m = newLanguageModel(t)
	file := filepath.Join(t.TempDir(), "optimizer.safetensors")
	first := newTrainer(t, m, 2)
	steps(t, first, 0, 2)
	require.NoError(t, first.Optimizer().Save(t.Context(), file))
	second := newTrainer(t, m, 2)
	require.NoError(t, second.Load(t.Context(), file))
	steps(t, second, 2, short)
	assert.Equal(t, want, m.weights(t), "resumed")
}

func TestTrainerErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers")
	}
	m := newLanguageModel(t)
	_, err := train.NewTrainer(t.Context(), m.graph, nil, train.OptimizerConfig{})
	assert.EqualError(t, err, "train: NewTrainer: there are no parameters, want at least one")
	trainer := newTrainer(t, m, 2)
	assert.ErrorContains(t, trainer.Step(t.Context(), &train.Batch{}), "train: Trainer.Step: the batch is empty, want at least one item")
	odd := train.Batch{Items: 3, Length: 2, IDs: make([]uint8, 6), Labels: make([]int32, 6)}
	assert.ErrorContains(t, trainer.Step(t.Context(), &odd), "the batch has 3 items, want a multiple of MicroBatches, 2")
	even := train.Batch{Items: 2, Length: 2, IDs: make([]uint8, 4), Labels: make([]int32, 4)}
	require.NoError(t, trainer.Step(t.Context(), &even))
	longer := train.Batch{Items: 2, Length: 3, IDs: make([]uint8, 6), Labels: make([]int32, 6)}
	assert.ErrorContains(t, trainer.Step(t.Context(), &longer), "the batch has 2 items of 3 bytes, want 2 of 2, as the first one")
	even.Labels[0] = 256
	err = trainer.Step(t.Context(), &even)
	if err == nil {
		err = trainer.Wait(t.Context())
	}
	assert.ErrorContains(t, err, "labels has 1 labels that are neither -1 nor below 256")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, trainer.Step(ctx, &even), context.Canceled)
}
