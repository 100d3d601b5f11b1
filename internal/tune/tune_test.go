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
