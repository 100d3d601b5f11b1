package vk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpen(t *testing.T) {
	shared := gputest.Device(t)
	for _, want := range []string{"", shared.Info().UUID, shared.Info().Name} {
		d := openDevice(t, vk.Options{Device: want})
		assert.Equal(t, shared.Info().Name, d.Info().Name)
	}
	_, err := vk.Open(vk.Options{Device: "no such device"})
	assert.ErrorIs(t, err, vk.ErrNoDevice)
	_, err = vk.Open(vk.Options{Timeout: -time.Second})
	assert.ErrorContains(t, err, "Options.Timeout is -1s")
}

func TestCloseTwiceAndNil(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	b := newBuffer(t, d, "b", 4)
	l := newList(t, d, vk.CommandListConfig{})
	for range 3 {
		closeAll(t, l, k, b)
	}
	assert.Equal(t, vk.DeviceStats{}, openObjects(d))
	closeAll(t, d, d)
	closeAll(t, (*vk.Device)(nil), (*vk.Kernel)(nil), (*vk.Buffer)(nil), (*vk.CommandList)(nil))
}

// openObjects returns the counters of open objects.
func openObjects(d *vk.Device) vk.DeviceStats {
	s := d.Stats()
	return vk.DeviceStats{Buffers: s.Buffers, Kernels: s.Kernels, CommandLists: s.CommandLists, BufferBytes: s.BufferBytes}
}

// allCalls calls the methods of a device and of a command list, and returns their errors.
func allCalls(d *vk.Device, l *vk.CommandList, k *vk.Kernel, s *vk.Binding, r vk.Range) map[string]error {
	data := make([]byte, r.Size())
	calls := map[string]error{}
	_, calls["NewBuffer"] = d.NewBuffer("b", 4)
	_, calls["NewKernel"] = d.NewKernel(vk.KernelConfig{Name: "k", Code: data})
	_, calls["NewCommandList"] = d.NewCommandList(vk.CommandListConfig{})
	calls["Upload"] = d.Upload(context.TODO(), vk.Transfer{Range: r, Data: data})
	calls["Download"] = d.Download(context.TODO(), vk.Transfer{Range: r, Data: data})
	calls["Device.Wait"] = d.Wait(context.TODO())
	calls["Kernel.CompilerStats"] = second(k.CompilerStats())
	for name, err := range listCalls(l, k, s, r) {
		calls[name] = err
	}
	return calls
}

func listCalls(l *vk.CommandList, k *vk.Kernel, s *vk.Binding, r vk.Range) map[string]error {
	return map[string]error{
		"Dispatch":  l.Dispatch(mixDispatch(k, vk.Range{}, r, r, 1)),
		"Fill":      l.Fill(r, 1),
		"Copy":      l.Copy(r.Slice(0, 4), r.Slice(4, 4)),
		"Bind":      l.Bind(s, r),
		"Run":       l.Run(context.TODO()),
		"Submit":    l.Submit(context.TODO()),
		"Elapsed":   second(l.Elapsed()),
		"StepTimes": second(l.StepTimes()),
	}
}

func second[T any](_ T, err error) error { return err }

func TestUseAfterClose(t *testing.T) {
	gputest.Device(t)
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	k, err := d.NewKernel(vk.KernelConfig{Name: "mix", Code: spv(t, "mix")})
	require.NoError(t, err)
	b, err := d.NewBuffer("forgotten", 64)
	require.NoError(t, err)
	profiled := vk.CommandListConfig{Name: "left", Profile: true}
	left, err := d.NewCommandList(profiled)
	require.NoError(t, err)
	require.NoError(t, left.Fill(b.Range(), 7))
	require.NoError(t, left.Run(t.Context()))
	gone, err := d.NewCommandList(profiled)
	require.NoError(t, err)
	binding := gone.NewBinding("s", 64)
	closeAll(t, gone)
	for name, err := range listCalls(gone, k, binding, b.Range()) {
		assert.ErrorIs(t, err, vk.ErrClosed, name)
	}
	assert.ErrorIs(t, gone.Wait(t.Context()), vk.ErrClosed)

	err = d.Close()
	for _, part := range []string{"left open", "1 buffer (forgotten)", "1 kernel", "1 command list"} {
		assert.ErrorContains(t, err, part)
	}
	assert.NoError(t, d.Close())
	for name, err := range allCalls(d, left, k, left.NewBinding("s", 64), b.Range()) {
		assert.ErrorIs(t, err, vk.ErrClosed, name)
	}
	n, _ := d.DrainMessages()
	assert.Zero(t, n)
	budget, _ := d.MemoryBudget()
	assert.Zero(t, budget)
	closeAll(t, left, b) // no effect
	assert.NoError(t, k.Close(), "Device.Close has reported it")
	assert.NoError(t, k.Close())
}

func TestNilDevice(t *testing.T) {
	var d *vk.Device
	assert.ErrorContains(t, second(d.NewBuffer("b", 4)), "the device is nil")
	assert.ErrorContains(t, second(d.NewCommandList(vk.CommandListConfig{})), "the device is nil")
	assert.ErrorContains(t, second(d.NewKernel(vk.KernelConfig{})), "the device is nil")
}

// TestLostDevice simulates a lost device.
func TestLostDevice(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, b, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "b", 64), newList(t, d, vk.CommandListConfig{Profile: true})
	binding := l.NewBinding("s", 64)
	require.NoError(t, l.Bind(binding, b.Range()))
	require.NoError(t, l.Fill(binding.Range(), 1))
	require.NoError(t, l.Submit(t.Context()))
	d.SimulateLoss()
	for name, err := range allCalls(d, l, k, binding, b.Range()) {
		assert.ErrorIs(t, err, vk.ErrDeviceLost, name)
	}
	closeAll(t, l, k, b)
	assert.Equal(t, vk.DeviceStats{}, openObjects(d))
}

func TestAnotherDevice(t *testing.T) {
	mine, other := openDevice(t, vk.Options{}), openDevice(t, vk.Options{})
	k, b, l := newKernel(t, mine, "mix", nil), newBuffer(t, mine, "mine", 64), newList(t, mine, vk.CommandListConfig{})
	theirs, foreign, far := newKernel(t, other, "mix", nil), newBuffer(t, other, "theirs", 64), newList(t, other, vk.CommandListConfig{})
	r, f := b.Range(), foreign.Range()
	binding, away := l.NewBinding("s", 64), far.NewBinding("away", 64)
	for name, err := range map[string]error{
		"buffer in dispatch": l.Dispatch(mixDispatch(k, r, f, r, 1)),
		"fill":               l.Fill(f, 1),
		"copy":               l.Copy(r, f),
		"bind":               l.Bind(binding, f),
		"upload":             mine.Upload(t.Context(), vk.Transfer{Range: f, Data: make([]byte, 64)}),
		"download":           mine.Download(t.Context(), vk.Transfer{Range: f, Data: make([]byte, 64)}),
	} {
		require.Error(t, err, name)
		assert.ErrorContains(t, err, `buffer "theirs", which is on another device`, name)
	}
	assert.ErrorContains(t, l.Dispatch(mixDispatch(theirs, r, r, r, 1)), "the kernel belongs to another device")
	assert.ErrorContains(t, l.Fill(away.Range(), 1), `binding "away", which belongs to another command list`)
	assert.ErrorContains(t, l.Bind(away, r), "another command list")
	assert.Equal(t, []string(nil), l.StepNames(), "nothing was recorded")
}

func TestErrorIs(t *testing.T) {
	for result, want := range map[int32]error{
		-1: vk.ErrOutOfMemory, -2: vk.ErrOutOfMemory, -10: vk.ErrOutOfMemory, -4: vk.ErrDeviceLost, -6: vk.ErrUnsupported, -7: vk.ErrUnsupported,
		-8: vk.ErrUnsupported, -9: vk.ErrNoDevice, 2: vk.ErrTimeout,
	} {
		err := error(&vk.Error{Op: "vkDoThings", Result: result})
		for _, e := range []error{vk.ErrOutOfMemory, vk.ErrDeviceLost, vk.ErrUnsupported, vk.ErrNoDevice, vk.ErrTimeout, vk.ErrClosed} {
			assert.Equal(t, e == want, errors.Is(err, e), "%d is %v", result, e)
		}
		assert.ErrorContains(t, err, "vkDoThings")
	}
}
