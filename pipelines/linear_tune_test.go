package pipelines

import (
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What was measured counts from then on, for these sizes alone, and only if it is a tile that the device can run.
func TestTuneLinear(t *testing.T) {
	gputest.Device(t)
	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	gputest.CountCase()
	c := LinearConfig{In: 32, Out: 48}
	found, err := TuneLinear(dev, c, 70, time.Millisecond)
	require.NoError(t, err)
	require.NotEmpty(t, found.Tiles)
	for _, tile := range found.Tiles {
		assert.LessOrEqual(t, found.Tiles[found.Best].Time, tile.Time)
		assert.Positive(t, tile.Time)
	}
	l, err := NewLinear(dev, c)
	require.NoError(t, err)
	defer l.Close()
	size := linearSize{slots: 70, dense: true, straight: true}
	assert.Equal(t, found.Tiles[found.Default].Tile, l.tiles()[l.choose(size)].name())
	for i, v := range l.tiles() {
		require.NoError(t, dev.Tune(map[string]string{found.Purpose: v.name()}))
		if want := l.rule(size); l.allowed(v, size) {
			assert.Equal(t, i, l.choose(size))
			other := size
			other.slots = 700
			assert.Equal(t, l.rule(other), l.choose(other), "other sizes have purposes of their own")
		} else {
			assert.Equal(t, want, l.choose(size), v.name())
		}
	}
	require.NoError(t, dev.Tune(map[string]string{found.Purpose: "1x1"}))
	assert.Equal(t, l.rule(size), l.choose(size))
	_, err = TuneLinear(dev, c, 0, time.Millisecond)
	assert.ErrorContains(t, err, "rows is 0, want 1")
	_, err = TuneLinear(dev, LinearConfig{}, 1, time.Millisecond)
	assert.ErrorContains(t, err, "In is 0")
}
