//go:build unix

package vk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile replaces a file by something that cannot be read as one, or that has no end.
var hostile = map[string]func(path string) error{
	"a named pipe": func(path string) error { return syscall.Mkfifo(path, 0o644) },
	"60 GB": func(path string) error {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, 60<<30)
	},
	"an endless device":      func(path string) error { return os.Symlink("/dev/zero", path) },
	"a folder":               func(path string) error { return os.Mkdir(path, 0o755) },
	"a link to itself":       func(path string) error { return os.Symlink(path, path) },
	"a file without a right": func(path string) error { return os.WriteFile(path, []byte("{}"), 0) },
}

// TestHostileFiles: whatever is in the place of the cache file and of the tuning file, a device opens at once, works, and
// closes.
func TestHostileFiles(t *testing.T) {
	openDevice(t, vk.Options{})
	for name, make := range hostile {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, err := compile(t, dir)
			require.NoError(t, err)
			d, err := vk.Open(vk.Options{CacheDir: dir})
			require.NoError(t, err)
			require.NoError(t, d.StoreTuning(map[string]string{"a": "b"}))
			closeAll(t, d)
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			require.NoError(t, err)
			require.Len(t, files, 3, "cache, tuning and its lock")
			for _, f := range files {
				require.NoError(t, os.Remove(f))
				require.NoError(t, make(f))
			}
			d, err = vk.Open(vk.Options{CacheDir: dir})
			require.NoError(t, err)
			k, err := d.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix")})
			require.NoError(t, err)
			assert.Empty(t, d.StoredTuning("a"))
			if err := d.StoreTuning(map[string]string{"c": "d"}); err != nil {
				assert.ErrorContains(t, err, "the variants are not stored, and apply until the device is closed: ")
			}
			assert.Equal(t, "d", d.StoredTuning("c"))
			closeAll(t, k)
			if err := d.Close(); err != nil { // the file cannot be replaced
				assert.ErrorContains(t, err, "vk: Device.Close: pipeline cache ")
				assert.ErrorContains(t, err, filepath.Base(file))
			}
			assert.Equal(t, vk.DeviceStats{}, openObjects(d))
		})
	}
}

// TestTuningAtOnce: of entries that many devices store at the same time none is lost.
func TestTuningAtOnce(t *testing.T) {
	openDevice(t, vk.Options{})
	dir := t.TempDir()
	const devices, entries = 4, 8
	var wait sync.WaitGroup
	for i := range devices {
		d, err := vk.Open(vk.Options{CacheDir: dir})
		require.NoError(t, err)
		wait.Add(1)
		go func() {
			defer wait.Done()
			for j := range entries {
				assert.NoError(t, d.StoreTuning(map[string]string{fmt.Sprint(i, " ", j): "x"}))
			}
			assert.NoError(t, d.Close())
		}()
	}
	wait.Wait()
	d, err := vk.Open(vk.Options{CacheDir: dir})
	require.NoError(t, err)
	for i := range devices {
		for j := range entries {
			assert.Equal(t, "x", d.StoredTuning(fmt.Sprint(i, " ", j)))
		}
	}
	closeAll(t, d)
}
