package main

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

// TestNeedle runs a tiny experiment on this file.
func TestNeedle(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the kernels of a training step for 9 s on CPU drivers")
	}
	gputest.Device(t)
	gputest.CountCase()
	var out bytes.Buffer
	require.NoError(t, needle(t.Context(), &out, settings{length: 32, batch: 2, steps: 1, seeds: 1, selected: 8, depth: 1, dim: 16, heads: 2, window: 8, rate: 1e-3, evaluations: 1}, "."))
	assert.Regexp(t, `^\| routing .*\n.*\n\| learned \| \[[01]\.\d{3}\] \| [01]\.\d{3} \| 0\.000 \|\n\| random .*\n\| static .*\n$`, out.String())
	assert.Error(t, needle(t.Context(), &out, settings{}, "no-such-folder"))
}

// TestDocuments: each document has its needle, and none of the bytes of needles elsewhere.
func TestDocuments(t *testing.T) {
	text, _, err := train.OpenCorpus(train.CorpusOptions{}, ".")
	require.NoError(t, err)
	d := documents{text, settings{length: 50, batch: 20}, 3}
	var b, again, other train.Batch
	require.NoError(t, d.Batch(context.Background(), 1, &b))
	require.NoError(t, d.Batch(context.Background(), 1, &again))
	require.NoError(t, d.Batch(context.Background(), 2, &other))
	assert.Equal(t, b, again)
	assert.NotEqual(t, b, other)
	for i, label := range b.Labels {
		document := b.IDs[i*50 : (i+1)*50]
		assert.EqualValues(t, firstByte, document[0])
		needles := slices.DeleteFunc(slices.Clone(document[1:]), func(x uint8) bool { return x > firstByte })
		assert.Equal(t, []uint8{uint8(1 + label)}, needles)
	}
}

func TestSpread(t *testing.T) {
	mean, deviation := spread([]float64{0.25, 0.75, 0.5})
	assert.InDelta(t, 0.5, mean, 1e-12)
	assert.InDelta(t, 0.25, deviation, 1e-12)
	_, deviation = spread([]float64{0.5})
	assert.Zero(t, deviation)
}
