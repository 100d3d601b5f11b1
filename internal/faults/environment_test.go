//go:build linux

package faults_test

import (
	"context"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/faults"
	"github.com/colt5-vulkan/colt5/train"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMissing hides what a device needs: the error of Open says what is missing, and nothing is left.
func TestMissing(t *testing.T) {
	needLoader(t)
	defer loader.Hide(faults.Nothing)
	for hidden, c := range map[faults.Hidden]struct {
		is   error
		want string
	}{
		faults.Devices:             {vk.ErrNoDevice, "the Vulkan loader found no driver; install a Vulkan driver: "},
		faults.Vulkan12:            {vk.ErrNoDevice, "(Vulkan 1.1.0, want 1.2)"},
		faults.Compute:             {vk.ErrNoDevice, "(no compute queue)"},
		faults.BufferDeviceAddress: {vk.ErrNoDevice, "(no bufferDeviceAddress)"},
		faults.HostQueryReset:      {vk.ErrNoDevice, "(no hostQueryReset)"},
		faults.SubgroupArithmetic:  {vk.ErrNoDevice, "(no subgroup arithmetic, ballot and shuffle in compute shaders)"},
		faults.QueueSubmit:         {nil, "vkGetDeviceProcAddr: "},
	} {
		loader.Hide(hidden)
		_, err := vk.Open(vk.Options{CacheDir: "-"})
		assert.ErrorContains(t, err, c.want)
		if c.is != nil {
			assert.ErrorIs(t, err, c.is)
		}
		assert.Empty(t, loader.Live(), c.want)
	}
	loader.Hide(faults.HostVisible)
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	_, err = colt5.FromSlice(t.Context(), d, []float32{1}, 1)
	assert.ErrorIs(t, err, vk.ErrUnsupported)
	assert.ErrorContains(t, err, "host-visible memory")
	require.NoError(t, d.Close())
	assert.Empty(t, loader.Live())
}

// TestNoDriver: the loader finds no driver, or one that does not exist.
func TestNoDriver(t *testing.T) {
	needLoader(t)
	loader.Share(false)
	defer loader.Share(true)
	for _, name := range []string{"VK_ICD_FILENAMES", "VK_DRIVER_FILES"} {
		t.Setenv(name, filepath.Join(t.TempDir(), "none.json"))
	}
	_, err := vk.Open(vk.Options{CacheDir: "-"})
	require.ErrorIs(t, err, vk.ErrNoDevice)
	assert.ErrorContains(t, err, "install a Vulkan driver: your GPU vendor's, or mesa-vulkan-drivers")
	_, err = vk.List()
	require.ErrorIs(t, err, vk.ErrNoDevice)
	assert.Empty(t, loader.Live())
}

// TestRealObjects makes the calls of Open and Close fail with instances and devices that are not shared.
func TestRealObjects(t *testing.T) {
	needLoader(t)
	loader.Share(false)
	defer loader.Share(true)
	s := newSweep(t, []step{
		{"", func(_ context.Context, s *state) error { return s.open() }},
		{"FromSlice", func(ctx context.Context, s *state) (err error) {
			s.x, err = colt5.FromSlice(ctx, s.device, []float32{1, 2}, 2)
			return err
		}},
		{"Close", func(_ context.Context, s *state) error { return s.x.Close() }},
		{"Close", func(_ context.Context, s *state) error { return s.device.Close() }},
	})
	for i := 0; i < len(s.calls)*2; i += stride(9, 2) {
		f := faults.Fault{At: i/2 + 1, Result: faults.OutOfHostMemory}
		if i%2 == 1 {
			f = faults.Fault{At: i/2 + 1, Mode: faults.Lose}
		}
		s.try(f)
	}
}

// limitFiles makes writes beyond so many bytes of a file fail, as on a full disk, until restore is called.
func limitFiles(t *testing.T, bytes uint64) (restore func()) {
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	limit := before
	limit.Cur = min(bytes, limit.Max)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	return func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) }
}

// listFiles returns the contents of the files of a folder and its folders, by name.
func listFiles(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	}))
	return files
}

// TestFullDisk: wherever a disk is full during a save, the error names the operation, and the earlier file stays.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the kernels of a training step for 14 s on CPU drivers")
	}
	needLoader(t)
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	ctx, s := t.Context(), &state{dir: t.TempDir()}
	steps := modules()
	for _, step := range steps[:16] { // a step of training
		require.NoError(t, step.run(ctx, s))
	}
	dir := t.TempDir()
	checkpoints, err := train.OpenCheckpoints(dir, train.CheckpointOptions{Config: map[string]int{"dim": dim}})
	require.NoError(t, err)
	step := int64(0)
	saves := map[string]func() error{
		"ConditionalRoutedFeedForward.Save": func() error { return s.ff.Save(ctx, filepath.Join(dir, "ff")) },
		"Optimizer.Save":                    func() error { return s.trainer.Optimizer().Save(ctx, filepath.Join(dir, "optimizer")) },
		"StoreTuning":                       func() error { return s.device.StoreTuning(map[string]string{"a": "b"}) },
		"train: Save of step ": func() error {
			step++
			return checkpoints.Save(step, nil, func(dir string) error { return s.ff.Save(ctx, filepath.Join(dir, "ff")) })
		},
	}
	for name, save := range saves {
		before := listFiles(t, dir)
		require.NoError(t, save())
		largest := 1
		for path, text := range listFiles(t, dir) {
			if before[path] != text {
				largest = max(largest, len(text))
			}
		}
		before = listFiles(t, dir)
		for _, limit := range []int{0, 1, largest / 2, largest - 1} {
			restore := limitFiles(t, uint64(limit))
			err := save()
			restore()
			if name == "StoreTuning" && limit > 0 {
				continue // its file is in the folder of the cache, and smaller
			}
			require.ErrorIs(t, err, syscall.EFBIG, "%s, %d bytes", name, limit)
			assert.ErrorContains(t, err, name)
			require.Equal(t, before, listFiles(t, dir), "%s, %d bytes", name, limit)
		}
		require.NoError(t, save(), name)
	}
	latest, err := checkpoints.Latest()
	require.NoError(t, err)
	assert.Equal(t, step, latest.Step)
	require.NoError(t, checkpoints.Close())

	restore := limitFiles(t, 10)
	err = s.closeAll()
	restore()
	require.ErrorIs(t, err, syscall.EFBIG)
	assert.ErrorContains(t, err, "Device.Close: pipeline cache "+s.dir)
	assert.Empty(t, loader.Live())
}

// TestReadOnlyHome: without a folder that can be written everything works, and only what should be stored is not.
func TestReadOnlyHome(t *testing.T) {
	needLoader(t)
	for _, name := range []string{"HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, "/proc/none") // no user can make folders there
	}
	d, err := vk.Open(vk.Options{})
	require.NoError(t, err)
	x, err := colt5.FromSlice(t.Context(), d, []float32{math.Pi}, 1)
	require.NoError(t, err)
	err = d.StoreTuning(map[string]string{"a": "b"})
	assert.ErrorContains(t, err, "the variants are not stored, and apply until the device is closed: mkdir /proc/none: ")
	assert.Equal(t, "b", d.StoredTuning("a"))
	require.NoError(t, x.Close())
	require.NoError(t, d.Close())
	assert.Empty(t, loader.Live())
}

// TestControl: the struct of the loader and that of this package have the same layout.
func TestControl(t *testing.T) {
	needLoader(t)
	loader.Inject(faults.Fault{At: 1 << 40, Function: "vkEnumeratePhysicalDevices"})
	_, err := vk.List()
	require.NoError(t, err)
	assert.Equal(t, []string{"vkEnumeratePhysicalDevices"}, loader.Trace())
	loader.Inject(faults.Fault{At: 1, Function: "vkEnumeratePhysicalDevices", Result: faults.Unknown})
	_, err = vk.List()
	assert.ErrorContains(t, err, "vkEnumeratePhysicalDevices: ")
	name, times := loader.Failed()
	assert.Equal(t, "vkEnumeratePhysicalDevices", name)
	assert.Equal(t, 1, times)
	loader.Inject(faults.Fault{})
}
