package train_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// routedModel is a small language model with routers.
func routedModel(t *testing.T, o colt5.AutoregressiveOptions) languageModel {
	ctx, dev := t.Context(), gputest.Device(t)
	c := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	c.Dim, c.Depth, c.LightHeads, c.HeavyHeads, c.LightDimHead, c.HeavyDimHead, c.LightWindowSize = 16, 1, 2, 2, 8, 8, 8
	c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.NumRoutedKV, c.FFMult = 3, 10, 2, 2
	m, err := colt5.NewAutoregressiveTransformer(ctx, dev, c)
	m = keep(t, m, err)
	g := colt5.NewGraph(dev)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	logits := g.Value("model")
	require.NoError(t, m.Forward(ctx, logits, g.Input("ids", colt5.U8, 0, 0), o))
	g.Output("loss", g.CrossEntropy(logits, g.Input("labels", colt5.I32, 0, 0)))
	return languageModel{g, m.Parameters()}
}

// TestStepReplay: a step with its own lists has the bits of Step, with and without micro-batches. One with other lists does not.
func TestStepReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s; TestTrainer trains with learned routing")
	}
	gputest.CountCase()
	dev := gputest.Device(t)
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 4, Length: 24, Seed: 3})
	require.NoError(t, err)
	var b train.Batch
	require.NoError(t, batches.Batch(t.Context(), 0, &b))
	m := routedModel(t, colt5.AutoregressiveOptions{})
	ids, err := colt5.FromSlice(t.Context(), dev, b.IDs, 4, 24)
	ids = keep(t, ids, err)
	labels, err := colt5.FromSlice(t.Context(), dev, b.Labels, 4, 24)
	labels = keep(t, labels, err)
	loss, err := colt5.NewTensor(dev, colt5.F32, 2)
	loss = keep(t, loss, err)
	var own []colt5.RoutingRecord
	require.NoError(t, m.graph.Run(t.Context(), map[string]*colt5.Tensor{"ids": ids, "labels": labels, "loss": loss}, colt5.GraphOptions{Routing: &own}))
	require.Len(t, own, 2)
	other := slices.Clone(own)
	other[1].Indices = slices.Clone(other[1].Indices)
	last := other[1].Indices[(4*6-1)*10:][:10] // of 16 bytes
	for i := range int32(16) {
		if !slices.Contains(last, i) {
			last[0] = i
			break
		}
	}
	run := func(records []colt5.RoutingRecord, micro int) map[string][]float32 {
		m := routedModel(t, colt5.AutoregressiveOptions{})
		trainer := newTrainer(t, m, micro)
		if records == nil {
			require.NoError(t, trainer.Step(t.Context(), &b))
		} else {
			require.NoError(t, trainer.StepReplay(t.Context(), &b, records))
		}
		require.NoError(t, trainer.Wait(t.Context()))
		return m.weights(t)
	}
	want := run(nil, 1)
	assert.Equal(t, want, run(own, 1))
	assert.Equal(t, want, run(own, 2))
	changed := run(other, 1)
	assert.NotEqual(t, want, changed)
	assert.Equal(t, changed, run(other, 4))

	trainer := newTrainer(t, m, 2)
	assert.EqualError(t, trainer.StepReplay(t.Context(), &b, nil), "train: Trainer.StepReplay: there are no records, want those of all routers")
	other[0].Lists = 3
	assert.ErrorContains(t, trainer.StepReplay(t.Context(), &b, other), "the record of model.layers.0.attn.q_router has 3 lists of 9 slots")
	assert.ErrorContains(t, trainer.StepReplay(t.Context(), &b, own[:1]), "GraphOptions.Replay has no record of model.layers.0.attn.kv_router")
	require.NoError(t, trainer.StepReplay(t.Context(), &b, own), "after errors")
}

// TestTrainerRandomRouting: each step selects other tokens, and a run that resumes those of one that does not stop.
func TestTrainerRandomRouting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s; TestTrainer trains with learned routing")
	}
	gputest.CountCase()
	ctx, file := t.Context(), t.TempDir()+"/optimizer.safetensors"
	random := colt5.AutoregressiveOptions{RandomSeed: 1}
	m := routedModel(t, random)
	same, err := train.NewRandomBatches(strings.NewReader(strings.Repeat("a", 26)), train.BatchOptions{Items: 2, Length: 24})
	require.NoError(t, err)
	var b train.Batch
	run := func(trainer *train.Trainer, n int) {
		for range n {
			require.NoError(t, same.Batch(ctx, 0, &b))
			require.NoError(t, trainer.Step(ctx, &b))
		}
		require.NoError(t, trainer.Wait(ctx))
	}
	run(newTrainer(t, m, 1), 3)
	want := m.weights(t)
	m = routedModel(t, random)
	first := newTrainer(t, m, 1)
	run(first, 2)
	require.NoError(t, first.Optimizer().Save(ctx, file))
	second := newTrainer(t, m, 1)
	require.NoError(t, second.Load(ctx, file))
	run(second, 1)
	assert.Equal(t, want, m.weights(t), "resumed")
	m = routedModel(t, colt5.AutoregressiveOptions{RandomSeed: 2})
	run(newTrainer(t, m, 1), 3)
	assert.NotEqual(t, want, m.weights(t), "another seed")
}
