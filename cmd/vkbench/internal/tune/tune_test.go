package tune

import (
	"io"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/commandtest"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/tune"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { gputest.Main(m) }

var program = commandtest.New("vkbench", Command)

// TestTune measures a product, then deletes what is stored for it: other products keep their tiles.
func TestTune(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	rows := commandtest.Objects(t, program.OK(t, "tune", "-size", "32x16x24", "-size", "linear=8x16x24,20", "-precision", "f32", "-each", "1ms", "-o", "json"))
	require.Len(t, rows, 3)
	assert.Equal(t, "32x16x24", rows[0]["product"])
	assert.Equal(t, "8x16x20", rows[2]["product"])
	assert.Positive(t, rows[0]["gpu_ms"])

	dev, err := vk.Open(vk.Options{CacheDir: t.TempDir()}) // not the user's
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	size := []int{32, 16, 24}
	key, err := tune.LinearKey(dev, tunedLinear(size, pipelines.F32), size[0])
	require.NoError(t, err)
	found, err := tune.Linear(t.Context(), dev, tunedLinear(size, pipelines.F32), size[0], 1)
	require.NoError(t, err)
	assert.Equal(t, found.Key, key)
	require.NoError(t, dev.StoreTuning(map[string]string{key: "a", "other": "b"}))
	env := &command.Env{Stdout: io.Discard}
	require.NoError(t, forget(env, dev, []pipelines.DType{pipelines.F32}, [][]int{size}))
	assert.Empty(t, dev.StoredTuning(key))
	assert.Equal(t, "b", dev.StoredTuning("other"))
	assert.Equal(t, "1 product: the default tiles are used again.\n", program.OK(t, "tune", "-forget", "-precision", "f32", "-size", "32x16x24"))
}

func TestUsage(t *testing.T) {
	program.RejectsUsage(t, [][2]string{
		{"tune all", "takes no arguments"},
		{"tune -size 5x5", `-size is "5x5", but a size of linear has 3 numbers: rows x in x out`},
		{"tune -size 5x0x5", "of linear, in is 0"},
		{"tune -size rmsnorm=5x5", "rmsnorm is not among the cases of this run"},
		{"tune -each 0", "-each is 0s"},
	})
}

// TestUnsupportedPrecision requires a failure where the device supports none of the precisions.
func TestUnsupportedPrecision(t *testing.T) {
	caps := gputest.Device(t).Caps()
	for _, p := range []pipelines.DType{pipelines.F16, pipelines.BF16} {
		if p.Supported(caps) == nil {
			continue
		}
		code, out, remarks := program.RunOnDevice(t, "tune", "-precision", p.String())
		assert.Equal(t, command.ExitFailed, code)
		assert.Empty(t, out)
		assert.Contains(t, remarks, "Left out: "+p.String()+", which the device does not support")
	}
}
