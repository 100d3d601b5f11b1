package vk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/vk"
)

// hung is a device that hangs in a run, with the objects that a caller has open.
type hung struct {
	d       *vk.Device
	k       *vk.Kernel
	y, z    *vk.Buffer
	l       *vk.CommandList
	release func() error
}

func hang(t *testing.T, timeout time.Duration) hung {
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	h := hung{d: d}
	h.k, err = d.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix")})
	require.NoError(t, err)
	h.y, err = d.NewBuffer("y", 64)
	require.NoError(t, err)
	h.z, err = d.NewBuffer("z", 64)
	require.NoError(t, err)
	h.l, err = d.NewCommandList(vk.CommandListConfig{Name: "mix"})
	require.NoError(t, err)
	require.NoError(t, h.l.Dispatch(mixDispatch(h.k, vk.Range{}, h.y.Range(), h.y.Range(), 1)))
	uploadTo(t, h.z.Range(), make([]uint32, 16))
	require.NoError(t, h.l.Run(t.Context()))
	h.release, err = h.l.Stall()
	require.NoError(t, err)
	d.SetTimeout(timeout)
	return h
}

// TestHungDevice: on a device that never finishes every call returns in bounded time.
func TestHungDevice(t *testing.T) {
	openDevice(t, vk.Options{}) // skips without a device
	h := hang(t, 30*time.Millisecond)
	const advice = "the device did not finish within 30ms; the work is still running: call Wait of the device to wait longer, raise Options.Timeout, or close the device"
	err := assertPrompt(t, vk.ErrTimeout, func() error { return h.l.Run(context.Background()) })
	assert.EqualError(t, err, `vk: command list "mix": Run: nothing was submitted: the earlier run: `+advice)
	err = assertPrompt(t, vk.ErrTimeout, func() error { return h.d.Wait(context.Background()) })
	assert.EqualError(t, err, `vk: Wait: command list "mix": `+advice)
	var more *vk.Buffer
	assertPrompt(t, nil, func() (err error) { more, err = h.d.NewBuffer("more", 64); return err })
	data := vk.Transfer{Range: more.Range(), Data: make([]byte, 64)}
	retryTimeouts(t, func() error { return h.d.Upload(t.Context(), data) }) // the hang is simulated: other work is executed
	assertPrompt(t, nil, more.Close)
	assertPrompt(t, nil, h.y.Close)
	assertPrompt(t, nil, h.z.Close)
	assertPrompt(t, vk.ErrTimeout, h.l.Close)
	assert.ErrorContains(t, h.k.Close(), "an open command list uses")
	start := time.Now()
	err = assertPrompt(t, vk.ErrTimeout, h.d.Close)
	assert.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond)
	assert.EqualError(t, err, "vk: Device.Close: the device did not finish in time: it is still working after 30ms; its Vulkan objects are freed when the process ends")
	for _, c := range []closer{h.d, h.l, h.y, h.k} {
		assertPrompt(t, nil, c.Close)
	}
	assert.ErrorIs(t, h.l.Run(context.Background()), vk.ErrClosed)
}

// TestHungDeviceLeak leaves objects open on a device that hangs: Close reports them, but not those whose Close failed.
func TestHungDeviceLeak(t *testing.T) {
	openDevice(t, vk.Options{})
	h := hang(t, time.Millisecond)
	closeAll(t, h.y)
	require.ErrorIs(t, h.l.Close(), vk.ErrTimeout)
	err := h.d.Close()
	require.ErrorIs(t, err, vk.ErrTimeout)
	assert.ErrorContains(t, err, "left open: 1 buffer (z), 1 kernel")
	assert.NotContains(t, err.Error(), "command list")
}

// TestHungTransfer: on a device that hangs in a transfer every call returns in bounded time.
func TestHungTransfer(t *testing.T) {
	openDevice(t, vk.Options{})
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	b, err := d.NewBuffer("b", 64)
	require.NoError(t, err)
	data := vk.Transfer{Range: b.Range(), Data: make([]byte, 64)}
	require.NoError(t, d.Upload(t.Context(), data))
	_, err = d.StallDownload(data)
	require.NoError(t, err)
	d.SetTimeout(10 * time.Millisecond)
	err = assertPrompt(t, vk.ErrTimeout, func() error { return d.Upload(context.Background(), data) })
	assert.ErrorContains(t, err, "call Wait of the device to wait longer")
	assertPrompt(t, vk.ErrTimeout, func() error { return d.Wait(context.Background()) })
	assertPrompt(t, nil, b.Close)
	err = assertPrompt(t, vk.ErrTimeout, d.Close)
	assert.NotContains(t, err.Error(), "buffer")
}

// TestRecoveredDevice: when a device finishes after a timeout, nothing leaks.
func TestRecoveredDevice(t *testing.T) {
	openDevice(t, vk.Options{})
	for name, recover := range map[string]func(h hung){
		"before Close": func(h hung) {
			require.NoError(t, h.release())
			closeAll(t, h.l, h.k, h.y, h.z, h.d)
		},
		"the list was closed before": func(h hung) {
			require.ErrorIs(t, h.l.Close(), vk.ErrTimeout)
			closeAll(t, h.y, h.z)
			require.NoError(t, h.release())
			h.d.SetTimeout(time.Minute)
			closeAll(t, h.l, h.l, h.k, h.d)
		},
		"during Device.Close": func(h hung) {
			closeAll(t, h.y, h.z)
			require.ErrorIs(t, h.l.Close(), vk.ErrTimeout)
			h.d.SetTimeout(time.Minute)
			time.AfterFunc(10*time.Millisecond, func() { assert.NoError(t, h.release()) })
			err := h.d.Close()
			assert.EqualError(t, err, "vk: Device.Close: left open: 1 kernel") // its Close failed while the list was open
			closeAll(t, h.l, h.k)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := hang(t, 10*time.Millisecond)
			require.ErrorIs(t, h.l.Wait(t.Context()), vk.ErrTimeout)
			recover(h)
			assert.Equal(t, int64(0), h.d.Stats().Buffers)
			assert.Equal(t, int64(0), h.d.Stats().CommandLists)
			assert.Equal(t, int64(0), h.d.Stats().Kernels)
		})
	}
}

// TestCallsDuringClose: while Close waits for the device, other calls return at once.
func TestCallsDuringClose(t *testing.T) {
	openDevice(t, vk.Options{})
	h := hang(t, time.Minute)
	done := make(chan error)
	go func() { done <- h.d.Close() }()
	require.Eventually(t, func() bool {
		b, err := h.d.NewBuffer("late", 64)
		_ = b.Close()
		return errors.Is(err, vk.ErrClosed)
	}, prompt, time.Millisecond)
	assertPrompt(t, vk.ErrClosed, func() error { return h.l.Run(context.Background()) })
	assertPrompt(t, vk.ErrClosed, func() error { return h.d.Wait(context.Background()) })
	require.NoError(t, h.release())
	assert.ErrorContains(t, <-done, "left open: 2 buffers (y, z), 1 kernel, 1 command list")
	closeAll(t, h.y, h.z, h.l, h.k)
}

// TestWaitFails makes Vulkan calls at the end of a transfer or a run fail, once or permanently: nothing leaks.
func TestWaitFails(t *testing.T) {
	openDevice(t, vk.Options{})
	const lasting = 1 << 30
	for _, c := range []struct {
		op     string
		result int32
		times  int
	}{
		{"vkWaitForFences", -1, 1}, // out of host memory
		{"vkWaitForFences", -1, lasting},
		{"vkWaitForFences", -13, 1}, // unknown error
		{"vkWaitForFences", -13, lasting},
		{"vkWaitForFences", 2, 1}, // timeout
		{"vkResetFences", -1, 1},
		{"vkResetFences", -13, lasting},
	} {
		for _, what := range []string{"Upload", "Download", "Run"} {
			t.Run(fmt.Sprintf("%s %d %d %s", c.op, c.result, c.times, what), func(t *testing.T) {
				d, err := vk.Open(vk.Options{CacheDir: "-"})
				require.NoError(t, err)
				b, err := d.NewBuffer("b", 64)
				require.NoError(t, err)
				l, err := d.NewCommandList(vk.CommandListConfig{})
				require.NoError(t, err)
				require.NoError(t, l.Fill(b.Range(), 0x01010101))
				data := vk.Transfer{Range: b.Range(), Data: bytes.Repeat([]byte{1}, 64)}
				call := map[string]func() error{
					"Upload":   func() error { return d.Upload(t.Context(), data) },
					"Download": func() error { return d.Download(t.Context(), data) },
					"Run":      func() error { return l.Run(t.Context()) },
				}[what]
				require.NoError(t, l.Run(t.Context()))
				require.NoError(t, call())
				left := c.times
				d.Fault(func(op string, actual int32) int32 {
					if op != c.op || left == 0 {
						return actual
					}
					left--
					return c.result
				})
				require.ErrorContains(t, call(), c.op)
				if c.times == 1 {
					require.NoError(t, call())
					assert.Equal(t, bytes.Repeat([]byte{1}, 64), data.Data)
					left = 1
					require.Error(t, call())
				}
				closeAll(t, b, l, d)
				assert.Equal(t, vk.DeviceStats{}, openObjects(d))
			})
		}
	}
}

// TestSubmitFailsMidway: of a run only the first submission succeeds.
func TestSubmitFailsMidway(t *testing.T) {
	d := openDevice(t, vk.Options{})
	const n = 1000
	k, y, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "y", 4*n), newList(t, d, vk.CommandListConfig{})
	x := randomWords(1, n)
	for i := range 3 {
		step := mixDispatch(k, y.Range(), y.Range(), y.Range(), uint32(i))
		step.Flops = vk.SegmentFlops
		require.NoError(t, l.Dispatch(step))
	}
	require.NoError(t, l.Run(t.Context()))
	require.Equal(t, 3, l.Submits())
	fail := func(op string, actual int32) int32 {
		if op == "vkResetFences" { // before the submit of the fence
			return -1
		}
		return actual
	}
	for i := range 3 {
		uploadTo(t, y.Range(), x)
		require.NoError(t, l.SubmitFirst())
		d.Fault(fail)
		for range i {
			require.ErrorIs(t, l.Wait(t.Context()), vk.ErrOutOfMemory)
			require.ErrorIs(t, l.Run(t.Context()), vk.ErrOutOfMemory)
			require.ErrorIs(t, l.Close(), vk.ErrOutOfMemory, "the run has no fence, so its end is unknown")
		}
		d.Fault(nil)
		if i > 0 {
			require.NoError(t, l.Wait(t.Context()))
		}
		uploadTo(t, y.Range(), x)
		require.NoError(t, l.Run(t.Context()))
		want := slices.Clone(x)
		for i := range 3 {
			mixReference(want, want, want, uint32(i), 0)
		}
		assert.Equal(t, want, download(t, y.Range()))
	}
	require.NoError(t, l.SubmitFirst())
	closeAll(t, l, y)
	assert.Zero(t, d.Stats().Buffers)
}
