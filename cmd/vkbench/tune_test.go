package main

import (
	"io"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/tune"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTune measures a product, and forgets it without measuring: what was kept for it is gone, and nothing else.
func TestTune(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	rows := objects(t, fine(t, "tune", "-size", "32x16x24", "-precision", "f32", "-each", "1ms", "-o", "json"))
	require.Len(t, rows, 1)
	assert.Equal(t, "32x16x24", rows[0]["product"])
	assert.Positive(t, rows[0]["gpu_ms"])

	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()}) // what users keep is none of a test's business
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	size := []int{32, 16, 24}
	purpose, err := tune.LinearKey(dev, tunedLinear(size, pipelines.F32), size[0])
	require.NoError(t, err)
	found, err := tune.Linear(t.Context(), dev, tunedLinear(size, pipelines.F32), size[0], 1)
	require.NoError(t, err)
	assert.Equal(t, found.Key, purpose)
	require.NoError(t, dev.Tune(map[string]string{purpose: "a", "other": "b"}))
	a := &app{stdout: io.Discard}
	require.NoError(t, a.forget(dev, []pipelines.DType{pipelines.F32}, [][]int{size}))
	assert.Empty(t, dev.Tuned(purpose))
	assert.Equal(t, "b", dev.Tuned("other"))
	assert.Equal(t, "1 products have the usual tiles again.\n", fine(t, "tune", "-forget", "-precision", "f32", "-size", "32x16x24"))
}
