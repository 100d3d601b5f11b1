package vk_test

import (
	"os"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A simulated device has the limits that it was opened with, and no others.
func TestSimulate(t *testing.T) {
	if os.Getenv("COLT5_SIMULATE") != "" {
		t.Skip("COLT5_SIMULATE is set")
	}
	real := gputest.Device(t).Caps()
	for name, l := range simulate.Devices() {
		want := real
		switch name {
		case "shared":
			want.MaxSharedBytes = 16 << 10
		case "push":
			want.MaxPushBytes = 128
		case "invocations":
			want.MaxWorkgroupInvocations, want.MaxWorkgroupSize = 128, [3]uint32{128, 128, min(128, real.MaxWorkgroupSize[2])}
		case "float16":
			want.Float16 = false
		case "storage16":
			want.Storage16 = false
		case "subgroups":
			want.SubgroupSizeControl, want.FullSubgroups, want.MaxWorkgroupSubgroups = false, false, 0
			want.SubgroupMin, want.SubgroupMax = want.SubgroupSize, want.SubgroupSize
		case "timestamps", "all":
			continue // Caps has an unexported field for timestamps
		}
		d := openDevice(t, vk.Options{Simulate: &l})
		assert.Equal(t, want, d.Caps(), name)
		roundTrip(t, d, 100)
	}
}

// roundTrip uploads and downloads a buffer.
func roundTrip(t *testing.T, d *vk.Device, words int) {
	t.Helper()
	b, data := newBuffer(t, d, "b", uint64(4*words)), randomWords(7, words)
	uploadTo(t, b.Range(), data)
	assert.True(t, assert.ObjectsAreEqual(data, download(t, b.Range())))
}

// Without timestamps everything works except reading times.
func TestNoTimestamps(t *testing.T) {
	d := openDevice(t, vk.Options{Simulate: &simulate.Limits{NoTimestamps: true}})
	assert.Zero(t, d.Caps().TimestampNanoseconds)
	k, x, y := newKernel(t, d, "mix", nil), newBuffer(t, d, "x", 64), newBuffer(t, d, "y", 64)
	uploadTo(t, x.Range(), randomWords(3, 16))
	var plain []uint32
	for _, profile := range []bool{false, true} {
		l := newList(t, d, vk.CommandListConfig{Profile: profile})
		require.NoError(t, l.Fill(y.Range(), 5))
		require.NoError(t, l.Dispatch(mixDispatch(k, x.Range(), y.Range(), y.Range(), 3)))
		require.NoError(t, l.Dispatch(mixDispatch(k, x.Range(), y.Range(), y.Range(), 4)))
		for range 2 {
			require.NoError(t, l.Run(t.Context()))
		}
		_, err := l.Elapsed()
		assert.ErrorIs(t, err, vk.ErrUnsupported)
		assert.ErrorContains(t, err, "Elapsed: ")
		assert.ErrorContains(t, err, "the device has no timestamps")
		if _, err = l.StepTimes(); profile {
			assert.ErrorIs(t, err, vk.ErrUnsupported)
			assert.ErrorContains(t, err, "the device has no timestamps")
		}
		if plain == nil {
			plain = download(t, y.Range())
		}
		assert.Equal(t, plain, download(t, y.Range()), "the barriers are the same")
	}
}

// Only the staging buffer needs host-visible memory, however large the buffers are.
func TestHostVisibleMemory(t *testing.T) {
	const limit = 20 << 20
	d := openDevice(t, vk.Options{Simulate: &simulate.Limits{HostVisibleBytes: limit}})
	roundTrip(t, d, 2*limit/4)
	assert.False(t, d.BuffersAreHostVisible())

	small := openDevice(t, vk.Options{Simulate: &simulate.Limits{HostVisibleBytes: 8 << 20}})
	b := newBuffer(t, small, "b", limit)
	err := small.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: make([]byte, limit)})
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
	assert.ErrorContains(t, err, "vk: Upload: staging memory: ")
}

// Buffers beyond the simulated memory are an error; closing others frees the memory.
func TestBufferMemory(t *testing.T) {
	const limit = 48 << 20
	d := openDevice(t, vk.Options{Simulate: &simulate.Limits{BufferBytes: limit}})
	b := newBuffer(t, d, "b", limit-1)
	_, err := d.NewBuffer("c", limit/2)
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
	require.NoError(t, b.Close())
	newBuffer(t, d, "c", limit/2)
}

// Transfers flush what they write and invalidate before they read.
func TestNonCoherentMemory(t *testing.T) {
	d := openDevice(t, vk.Options{Simulate: &simulate.Limits{NonCoherent: true}})
	for _, words := range []int{1, 100, vk.ChunkBytes/4 + 3, 5 * vk.ChunkBytes / 4} {
		roundTrip(t, d, words)
	}
	b, data := newBuffer(t, d, "b", 400), randomWords(8, 100)
	// Each of both is necessary.
	d.SetCoherent(true)
	uploadTo(t, b.Range(), data)
	d.SetCoherent(false)
	assert.NotEqual(t, data, download(t, b.Range()), "without a flush")
	uploadTo(t, b.Range(), data)
	roundTrip(t, d, 100) // other words in the staging buffer
	d.SetCoherent(true)
	assert.NotEqual(t, data, download(t, b.Range()), "without an invalidation")
}
