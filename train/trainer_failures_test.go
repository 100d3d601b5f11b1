package train_test

import (
	"context"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// endingContext is a context that ends after it was asked so many times.
type endingContext struct {
	context.Context
	left int
	done chan struct{}
}

func (c *endingContext) Err() error {
	if c.left--; c.left >= 0 {
		return nil
	}
	if c.left == -1 {
		close(c.done)
	}
	return context.Canceled
}

func (c *endingContext) Done() <-chan struct{} { return c.done }

// TestTrainerAfterFailures: steps that fail, wherever their context ends, change nothing; nor does one with a label that is no
// class in a micro-batch before the last one.
func TestTrainerAfterFailures(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	gputest.CountCase()
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 3, Length: 16, Seed: 3})
	require.NoError(t, err)
	run := func(fail bool) map[string][]float32 {
		m := newLanguageModel(t)
		trainer := newTrainer(t, m, 3)
		var b train.Batch
		for step := range int64(2) {
			require.NoError(t, batches.Batch(t.Context(), step, &b))
			if fail {
				label := b.Labels[17]
				b.Labels[17] = 300
				require.ErrorContains(t, trainer.Step(t.Context(), &b), "labels has 1 labels")
				b.Labels[17] = label
				failures := 0
				for ; ; failures++ {
					ctx := &endingContext{t.Context(), failures, make(chan struct{})}
					if trainer.Step(ctx, &b) == nil {
						break
					}
				}
				assert.Greater(t, failures, 10)
				continue
			}
			require.NoError(t, trainer.Step(t.Context(), &b))
		}
		require.NoError(t, trainer.Wait(t.Context()))
		state, err := trainer.Optimizer().State(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 2, state.Steps)
		return m.weights(t)
	}
	assert.Equal(t, run(false), run(true))
}

// TestTrainerBatches: a wrong batch is an error that names what is wrong, and the trainer goes on.
func TestTrainerBatches(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 6 s on CPU drivers")
	}
	gputest.CountCase()
	m := newLanguageModel(t)
	trainer := newTrainer(t, m, 2)
	batch := func(change func(b *train.Batch)) *train.Batch {
		b := &train.Batch{Items: 2, Length: 2, IDs: make([]uint8, 4), Labels: make([]int32, 4)}
		change(b)
		return b
	}
	for want, b := range map[string]*train.Batch{
		"the batch has 2 items of 1099511627776 bytes, want": batch(func(b *train.Batch) { b.Length = 1 << 40 }),
		"the batch has 3 IDs, want Items * Length, 4":        batch(func(b *train.Batch) { b.IDs = b.IDs[:3] }),
		"the batch has 3 Labels, want Items * Length or Ite": batch(func(b *train.Batch) { b.Labels = b.Labels[:3] }),
		"the batch has a Mask of 3, want Items * Length, 4":  batch(func(b *train.Batch) { b.Mask = make([]uint8, 3) }),
	} {
		assert.ErrorContains(t, trainer.Step(t.Context(), b), "train: Trainer.Step: "+want)
	}
	require.NoError(t, trainer.Step(t.Context(), batch(func(*train.Batch) {})))
	for want, b := range map[string]*train.Batch{
		"the batch has a Mask of 4, want a Mask in all batches or in none": batch(func(b *train.Batch) { b.Mask = make([]uint8, 4) }),
		"the batch has 2 Labels, want 4, as the first one":                 batch(func(b *train.Batch) { b.Labels = b.Labels[:2] }),
	} {
		assert.ErrorContains(t, trainer.Step(t.Context(), b), "train: Trainer.Step: "+want)
	}
	require.NoError(t, trainer.Step(t.Context(), batch(func(*train.Batch) {})))
	require.NoError(t, trainer.Wait(t.Context()))

	_, err := train.NewTrainer(t.Context(), nil, m.parameters, train.OptimizerConfig{})
	assert.EqualError(t, err, "train: NewTrainer: the graph is nil, want one made by colt5.NewGraph")
	var none context.Context
	_, err = train.NewTrainer(none, m.graph, m.parameters, train.OptimizerConfig{})
	assert.EqualError(t, err, "train: NewTrainer: the context is nil")
	assert.Error(t, new(train.Trainer).Step(t.Context(), batch(func(*train.Batch) {})))
	assert.Error(t, new(train.Trainer).Wait(t.Context()))
	assert.NoError(t, new(train.Trainer).Close())
}
