package pipelines

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

// Lists of an item are merged. Their rows are few, so that lists have many in common, and many, so that they have few.
func TestRoutedAttentionBackwardMerged(t *testing.T) {
	indexed := func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }
	valid := func(c *RoutedAttentionConfig) { c.Valid, c.QueryValid = true, true }
	scoreValues := func(c *RoutedAttentionConfig) { c.ScoreValues = true }
	scoreQueries := func(c *RoutedAttentionConfig) { c.ScoreQueries = true }
	precisions := matrixPrecisions(t, func(p DType) error {
		_, err := NewRoutedAttentionBackward(gputest.Device(t), RoutedAttentionConfig{Heads: 1, DimHead: 8, Routes: 1, Precision: p})
		return err
	})
	if limitsOf(gputest.Device(t)).lowRegisters() {
		t.Skip("this device has no kernels of merged lists")
	}
	training := ownKeys(4, 16, 2).with(indexed).with(valid).with(scoreValues)
	for _, p := range precisions {
		opened := map[RoutedAttentionConfig]*RoutedAttentionBackward{}
		for i, c := range []routedCase{
			{RoutedAttentionConfig: training, lists: 10, queries: 8, keys: 45, perItem: 5, rows: 60, scale: 6, unitScores: true},
			{RoutedAttentionConfig: training, lists: 8, queries: 33, keys: 40, perItem: 4, rows: 1500, unitScores: true},
			{RoutedAttentionConfig: training, lists: 6, queries: 64, keys: 90, perItem: 6, rows: 91, unitScores: true},
			{RoutedAttentionConfig: training, lists: 2, queries: 1, keys: 1, perItem: 2, rows: 1, unitScores: true},
			{RoutedAttentionConfig: training, lists: 4, queries: 9, keys: 33, perItem: 2, rows: 40, validKeys: -1, unitScores: true},
			{RoutedAttentionConfig: ownKeys(2, 64, 1).with(indexed), lists: 4, queries: 32, keys: 99, perItem: 4, rows: 130},
			{RoutedAttentionConfig: ownKeys(2, 16, 1).with(indexed).with(scoreValues), lists: 3, queries: 5, keys: 63, perItem: 3, rows: 70, scale: 1000, unitScores: true},
			{RoutedAttentionConfig: ownKeys(2, 22, 1).with(indexed).with(valid).with(scoreQueries), lists: 6, queries: 20, keys: 50, perItem: 3, rows: 90},
		} {
			if testing.Short() && i > 0 {
				continue
			}
			c.Precision, c.merged = p, true
			if opened[c.RoutedAttentionConfig] == nil {
				opened[c.RoutedAttentionConfig] = c.openBackward(t)
			}
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
				gpu := gputest.New(t)
				a, dy := c.gradientArgs()
				c.check(t, a, dy, c.backward(t, opened[c.RoutedAttentionConfig], gpu, a, dy))
				require.Contains(t, fmt.Sprint(gpu.StepNames()), matrixAttention("routed_attention_backward_merged_queries", p))
				require.Contains(t, fmt.Sprint(gpu.StepNames()), matrixAttention("routed_attention_backward_merged_keys", p))
			})
		}
	}
}

// The bits of an item do not depend on other items, nor on the number of dispatches.
func TestRoutedAttentionBackwardMergedBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for seconds on CPU drivers")
	}
	precisions := matrixPrecisions(t, func(p DType) error {
		_, err := NewRoutedAttentionBackward(gputest.Device(t), RoutedAttentionConfig{Heads: 1, DimHead: 8, Routes: 1, Precision: p})
		return err
	})
	for _, p := range precisions {
		c := routedCase{RoutedAttentionConfig: RoutedAttentionConfig{Heads: 4, DimHead: 16, Routes: 2, KeySource: KeySourceIndexed, ScoreValues: true, Valid: true, QueryValid: true, Precision: p},
			lists: 10, queries: 8, keys: 45, perItem: 5, rows: 60, unitScores: true, merged: true}
		r := c.openBackward(t)
		if r.merged == nil {
			t.Skip("this device has no kernels of merged lists")
		}
		a, dy := c.gradientArgs()
		first := c.backward(t, r, gputest.New(t), a, dy)
		r.merged.maxFlops = 1e5
		gpu := gputest.New(t)
		assert.Equal(t, first, c.backward(t, r, gpu, a, dy))
		assert.Greater(t, len(gpu.StepNames()), 12)

		c.checkSecondItem(t, r, a, dy, first)
	}
}
