package vk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTuning: variants are stored in the directory of the cache, and a damaged file is no error.
func TestTuning(t *testing.T) {
	dir := t.TempDir()
	d := openDevice(t, vk.Options{CacheDir: dir})
	assert.Empty(t, d.StoredTuning("a"))
	require.NoError(t, d.StoreTuning(map[string]string{"a": "large", "b": "small"}))
	require.NoError(t, d.StoreTuning(map[string]string{"b": "", "c": "x"}))
	assert.Equal(t, "large", d.StoredTuning("a"))
	assert.Empty(t, d.StoredTuning("b"))
	closeAll(t, d)

	d = openDevice(t, vk.Options{CacheDir: dir})
	assert.Equal(t, "large", d.StoredTuning("a"))
	assert.Equal(t, "x", d.StoredTuning("c"))
	closeAll(t, d)

	files, err := filepath.Glob(filepath.Join(dir, "tuning-*.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	for _, damage := range []string{"", "null", "[1]", `{"a": 3}`, `{"a": "la`} {
		require.NoError(t, os.WriteFile(files[0], []byte(damage), 0o644))
		d = openDevice(t, vk.Options{CacheDir: dir})
		require.NoError(t, d.StoreTuning(map[string]string{"d": "y"}))
		assert.Equal(t, "y", d.StoredTuning("d"), damage)
		closeAll(t, d)
	}
	d = openDevice(t, vk.Options{CacheDir: "-"})
	require.NoError(t, d.StoreTuning(map[string]string{"a": "z"}))
	assert.Equal(t, "z", d.StoredTuning("a"))
	closeAll(t, d)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.WriteFile(dir, nil, 0o644))
	defer os.Remove(dir)
}

// TestTuningTwoDevices: two open devices keep the entries of each other.
func TestTuningTwoDevices(t *testing.T) {
	dir := t.TempDir()
	a, b := openDevice(t, vk.Options{CacheDir: dir}), openDevice(t, vk.Options{CacheDir: dir})
	require.NoError(t, a.StoreTuning(map[string]string{"a": "large", "both": "a"}))
	require.NoError(t, b.StoreTuning(map[string]string{"b": "small", "both": "b"}))
	require.NoError(t, b.StoreTuning(map[string]string{"a": ""}))
	require.NoError(t, a.StoreTuning(map[string]string{"c": "x"}))
	closeAll(t, a)
	closeAll(t, b)
	c := openDevice(t, vk.Options{CacheDir: dir})
	for key, want := range map[string]string{"a": "", "b": "small", "c": "x", "both": "b"} {
		assert.Equal(t, want, c.StoredTuning(key), key)
	}
	closeAll(t, c)
}
