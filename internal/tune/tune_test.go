package tune

import (
	"context"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

func TestLinear(t *testing.T) {
	gputest.Device(t)
	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	gputest.CountCase()
	c := pipelines.LinearConfig{In: 32, Out: 48, Bias: true}
	got, err := Linear(t.Context(), dev, c, 70, time.Millisecond)
	require.NoError(t, err)
	tiles, err := pipelines.ListLinearTiles(dev, c, 70)
	require.NoError(t, err)
	require.Len(t, got.Tiles, len(tiles.Names))
	for i, tile := range got.Tiles {
		assert.Equal(t, tiles.Names[i], tile.Tile)
		assert.LessOrEqual(t, got.Tiles[got.Best].Time, tile.Time)
		assert.Positive(t, tile.Time)
	}
	assert.Equal(t, tiles.Default, got.Tiles[got.Default].Tile)
	assert.Equal(t, tiles.Key, got.Key)
	key, err := LinearKey(dev, c, 70)
	require.NoError(t, err)
	assert.Equal(t, tiles.Key, key)

	_, err = Linear(t.Context(), dev, c, 0, time.Millisecond)
	assert.ErrorContains(t, err, "rows is 0, want 1")
	_, err = Linear(t.Context(), dev, pipelines.LinearConfig{}, 1, time.Millisecond)
	assert.ErrorContains(t, err, "In is 0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Linear(ctx, dev, c, 70, time.Minute)
	assert.ErrorIs(t, err, context.Canceled)
}

// TestMedianTime has a first run that takes longer than the whole measurement: it does not count.
func TestMedianTime(t *testing.T) {
	runs := 0
	median, err := medianTime(time.Millisecond, func() (time.Duration, error) {
		if runs++; runs == 1 {
			time.Sleep(5 * time.Millisecond)
			return 1446 * time.Millisecond, nil
		}
		time.Sleep(2 * time.Millisecond)
		return 150 * time.Microsecond, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 150*time.Microsecond, median)
	assert.Equal(t, 4, runs)

	runs = 0
	median, err = medianTime(1, func() (time.Duration, error) { runs++; return time.Duration(runs), nil })
	require.NoError(t, err)
	assert.Equal(t, 4, runs)
	assert.Equal(t, time.Duration(3), median, "of the last three runs")

	for _, failing := range []int{1, 2} {
		runs = 0
		_, err = medianTime(1, func() (time.Duration, error) {
			if runs++; runs == failing {
				return 0, context.Canceled
			}
			return 1, nil
		})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, failing, runs)
	}
}
