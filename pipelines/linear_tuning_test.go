package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A measured tile is selected for the sizes that it was measured for, and only if the device can run it.
func TestLinearMeasuredTile(t *testing.T) {
	gputest.Device(t)
	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	gputest.CountCase()
	c := LinearConfig{In: 32, Out: 48}
	listed, err := ListLinearTiles(dev, c, 70)
	require.NoError(t, err)
	assert.Contains(t, listed.Names, listed.Default)
	l, err := NewLinear(dev, c)
	require.NoError(t, err)
	defer l.Close()
	size, other := linearSize{rows: 70, denseIn: true, denseOut: true}, linearSize{rows: 700, denseIn: true, denseOut: true}
	assert.Equal(t, listed.Default, l.tiles()[l.selectTile(size)].name())
	for i, tile := range l.tiles() {
		require.NoError(t, dev.StoreTuning(map[string]string{listed.Key: tile.name()}))
		if l.allowed(tile, size) {
			assert.Equal(t, i, l.selectTile(size))
			assert.Equal(t, l.defaultTile(other), l.selectTile(other), "other sizes have keys of their own")
		} else {
			assert.Equal(t, l.defaultTile(size), l.selectTile(size), tile.name())
		}
	}
	require.NoError(t, dev.StoreTuning(map[string]string{listed.Key: "1x1"}))
	assert.Equal(t, l.defaultTile(size), l.selectTile(size))
	_, err = ListLinearTiles(dev, c, 0)
	assert.ErrorContains(t, err, "rows is 0, want 1")
}

// A configured tile is selected for all sizes, or an error.
func TestLinearConfiguredTile(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewLinear(gpu.Dev, LinearConfig{In: 32, Out: 48, Tile: "1x1"})
	assert.ErrorContains(t, err, `pipelines: Linear: Tile is "1x1", want one of 128x128, 64x64, 64x8`)
	for i, tile := range linearTiles {
		l, err := NewLinear(gpu.Dev, LinearConfig{In: 32, Out: 48, Tile: tile.name()})
		require.NoError(t, err)
		assert.Equal(t, i, l.selectTile(linearSize{rows: 1}))
		assert.Equal(t, i, l.selectTile(linearSize{rows: 1 << 20, denseIn: true}))
		require.NoError(t, l.Close())
	}
	large := &Linear{config: LinearConfig{Precision: F16, Tile: linearMatrixTiles[0].name()}, kernels: kernelCache{dev: gpu.Dev}, matrix: vk.MatrixShape{M: 128, N: 16, K: 16}}
	_, err = large.configuredTile()
	assert.ErrorIs(t, err, vk.ErrUnsupported)
	for _, p := range linearPrecisions(t) {
		c := LinearConfig{In: 64, Out: 128, Precision: p, Tile: linearMatrixTiles[0].name()}
		l, err := NewLinear(gpu.Dev, c)
		if err != nil {
			assert.ErrorIs(t, err, vk.ErrUnsupported)
			continue
		}
		gpu := gputest.New(t)
		a := LinearArgs{X: gpu.In("x", make([]float32, 64)), W: gpu.In("w", make([]uint16, 128*64)), Y: gpu.Out("y", 512), Batch: 1, Rows: 1}
		assertRecordError(t, gpu, "x has float32 elements or gathered rows, want contiguous 16-bit rows with Tile 128x128x64", func(t *vk.CommandList) error { return l.Record(t, a) })
		require.NoError(t, l.Close())
	}
}
