package train_test

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTrainerSteady: after the first step, a step allocates no memory, neither of the host nor of the device, and is a
// submit of the batch's upload, and one of the graph and one of the optimiser for each micro-batch that has something to add.
// There is no other transfer: each would be a submit, and would wait for the step before.
func TestTrainerSteady(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	gputest.CountCase()
	dev := gputest.Device(t)
	m := droppingModel(t, 0.1)
	batches, err := train.NewRandomBatches(trainingText, train.BatchOptions{Items: 8, Length: 24})
	require.NoError(t, err)
	for micro, submits := range map[int]uint64{1: 3, 4: 1 + 4 + 2} {
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
		assert.Equal(t, submits, one.Submits-before.Submits, "%d micro-batches", micro)
		assert.Equal(t, 4*submits, after.Submits-one.Submits, "%d micro-batches", micro)
		assert.Equal(t, 4*(one.CommandBufferWrites-before.CommandBufferWrites), after.CommandBufferWrites-one.CommandBufferWrites)
		after.Submits, after.CommandBufferWrites = before.Submits, before.CommandBufferWrites
		assert.Equal(t, before, after)
		require.NoError(t, trainer.Wait(t.Context()))
	}
}
