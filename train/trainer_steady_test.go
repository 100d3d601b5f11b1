package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTrainerSteady: after the first step, a step allocates no memory, neither of the host nor of the device, and is as many
// submits as the uploads of its batch, its graph and optimiser, and the check of the labels of the step before.
func TestTrainerSteady(t *testing.T) {
	gputest.CountCase()
	dev := gputest.Device(t)
	m := droppingModel(t, 0.1)
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 8, Length: 24})
	require.NoError(t, err)
	for _, micro := range []int{1, 4} {
		trainer := newTrainer(t, m, micro)
		var b train.Batch
		require.NoError(t, batches.Batch(t.Context(), 0, &b))
		for range 2 { // of each of the two sets of tensors
			require.NoError(t, trainer.Step(t.Context(), &b))
		}
		var failed error
		step := func() {
			if err := trainer.Step(t.Context(), &b); err != nil {
				failed = err
			}
		}
		step()
		before := dev.Stats()
		step()
		one := dev.Stats()
		assert.Zero(t, testing.AllocsPerRun(3, step), "%d micro-batches", micro) // four steps
		after := dev.Stats()
		require.NoError(t, failed)
		assert.Equal(t, 4*(one.Submits-before.Submits), after.Submits-one.Submits)
		assert.Equal(t, 4*(one.CommandBufferWrites-before.CommandBufferWrites), after.CommandBufferWrites-one.CommandBufferWrites)
		after.Submits, after.CommandBufferWrites = before.Submits, before.CommandBufferWrites
		assert.Equal(t, before, after)
		require.NoError(t, trainer.Wait(t.Context()))
	}
}
