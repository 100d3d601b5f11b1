package vk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// compile opens a device, makes a kernel and closes both, as a program that uses the cache does.
func compile(t *testing.T, dir string) (file string, err error) {
	t.Helper()
	d, err := vk.Open(vk.Options{CacheDir: dir})
	require.NoError(t, err)
	k, err := d.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix")})
	require.NoError(t, err)
	closeAll(t, k)
	return d.CacheFile(), d.Close()
}

func TestCache(t *testing.T) {
	info := openDevice(t, vk.Options{}).Info()
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	file, err := compile(t, dir)
	require.NoError(t, err)
	assert.Equal(t, dir, filepath.Dir(file))
	assert.Contains(t, filepath.Base(file), "pipelines-"+info.UUID)
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	data := vk.ReadCache(file)
	require.Equal(t, good[vk.CacheHead:], data)

	before, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, second(compile(t, dir)))
	after, err := os.Stat(file)
	require.NoError(t, err)
	if again := vk.ReadCache(file); bytes.Equal(again, data) { // a driver may have added data
		assert.True(t, os.SameFile(before, after), "an unchanged cache is not written again")
	}

	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	header := bytes.Clone(good[:vk.CacheHead+4])
	for name, damage := range map[string][]byte{
		"empty": nil, "head alone": good[:vk.CacheHead], "cut off": good[:len(good)-1], "a bit": flipped, "longer": append(bytes.Clone(good), 0),
		"another format": append([]byte("x"), good...), "garbage": bytes.Repeat([]byte{7}, 4096), "short": header,
	} {
		require.NoError(t, os.WriteFile(file, damage, 0o644))
		assert.Nil(t, vk.ReadCache(file), name)
		require.NoError(t, second(compile(t, dir)), name)
		assert.NotNil(t, vk.ReadCache(file), "%s: it was not replaced", name)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary files stay")
}

func TestCacheUnwritable(t *testing.T) {
	_ = openDevice(t, vk.Options{})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("no folder"), 0o644))
	_, err := compile(t, filepath.Join(file, "sub"))
	assert.ErrorContains(t, err, "pipeline cache")

	t.Setenv("XDG_CACHE_HOME", file)
	t.Setenv("HOME", file)
	_, err = compile(t, "")
	assert.NoError(t, err, "the default cache may fail")

	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("HOME", dir)
	_, err = compile(t, "-")
	assert.NoError(t, err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range left {
		assert.NotContains(t, entry.Name(), "colt5")
	}
}
