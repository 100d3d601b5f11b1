package vk_test

import (
	"bytes"
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/vk"
)

// prompt is much longer than a cancelled call takes, and much shorter than the timeout of the device.
const prompt = 5 * time.Second

// skipUnderValidation skips a test whose simulation of a fault the validation layer reports. For the end of a hang while
// another goroutine waits, the simulation submits the fence of that wait.
func skipUnderValidation(t *testing.T) {
	if os.Getenv("COLT5_VALIDATE") == "1" {
		t.Skip("COLT5_VALIDATE is 1")
	}
}

// cancelled returns a context that is cancelled after a while.
func cancelled(t testing.TB, after time.Duration) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(after, cancel)
	t.Cleanup(func() { timer.Stop(); cancel() })
	return ctx
}

// assertPrompt checks that f returns the error want within prompt.
func assertPrompt(t testing.TB, want error, f func() error) error {
	t.Helper()
	start := time.Now()
	err := f()
	assert.Less(t, time.Since(start), prompt)
	require.ErrorIs(t, err, want)
	return err
}

// TestCancelWait cancels the wait for a device that hangs, in all its phases.
func TestCancelWait(t *testing.T) {
	d := openDevice(t, vk.Options{})
	y, l := newBuffer(t, d, "y", 64), newList(t, d, vk.CommandListConfig{Name: "fill"})
	require.NoError(t, l.Fill(y.Range(), 7))
	require.NoError(t, l.Run(t.Context()))
	release, err := l.Stall()
	require.NoError(t, err)
	cpu := d.Caps().CPU
	for _, c := range []struct {
		name     string
		cpu      bool
		expected time.Duration
	}{
		{"sleep", true, 0},
		{"poll", false, 0},
		{"sleep before polling", false, time.Minute}, // of the five that a wait may take
	} {
		t.Run(c.name, func(t *testing.T) {
			defer d.SetCaps(func(caps *vk.Caps) { caps.CPU = cpu })
			d.SetCaps(func(caps *vk.Caps) { caps.CPU = c.cpu })
			l.SetExpected(c.expected)
			const want = `vk: command list "fill": Wait: context canceled; the submitted work is still running, and the next call waits for it first`
			err := assertPrompt(t, context.Canceled, func() error { return l.Wait(cancelled(t, 5*time.Millisecond)) })
			assert.EqualError(t, err, want)
			for _, call := range []func(context.Context) error{l.Run, l.Submit, d.Wait} {
				assertPrompt(t, context.Canceled, func() error { return call(cancelled(t, 5*time.Millisecond)) })
				deadline, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				err = assertPrompt(t, context.DeadlineExceeded, func() error { return call(deadline) })
				assert.ErrorContains(t, err, "context deadline exceeded; the submitted work is still running")
				<-deadline.Done()
				err = call(deadline)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.NotContains(t, err.Error(), "still running", "nothing was submitted")
				cancel()
			}
			err = assertPrompt(t, context.Canceled, func() error { return l.Run(cancelled(t, 5*time.Millisecond)) })
			assert.ErrorContains(t, err, "nothing was submitted: the earlier run: context canceled")
		})
	}
	require.NoError(t, release())
	require.NoError(t, l.Run(t.Context()))
	assert.Equal(t, []uint32{7}, download(t, y.Range().Slice(0, 4)))
}

// TestCancelRun cancels runs that do work, and runs the same list again.
func TestCancelRun(t *testing.T) {
	d := openDevice(t, vk.Options{})
	const rounds, steps, n = 65_000, 12, 1000
	k, m := newKernel(t, d, "busy", nil), newKernel(t, d, "mix", nil)
	y, l := newBuffer(t, d, "y", 4), newList(t, d, vk.CommandListConfig{})
	in, out := l.NewBinding("in", 4*n), l.NewBinding("out", 4*n)
	for range steps { // 0.1 s
		require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), rounds)))
	}
	require.NoError(t, l.Dispatch(mixDispatch(m, vk.Range{}, in.Range(), out.Range(), 1)))
	early := 0
	for i := range 4 {
		x, want := randomWords(uint64(i), n), make([]uint32, n)
		a, b := newBuffer(t, d, "a", 4*n), newBuffer(t, d, "b", 4*n)
		uploadTo(t, a.Range(), x)
		require.NoError(t, l.Bind(in, a.Range()))
		require.NoError(t, l.Bind(out, b.Range()))
		if err := l.Run(cancelled(t, time.Duration(i)*5*time.Millisecond)); err != nil {
			require.ErrorIs(t, err, context.Canceled)
			early++
		}
		// Another set of memory can be bound at once; the run in flight keeps its own.
		other := newBuffer(t, d, "other", 4*n)
		require.NoError(t, l.Bind(out, other.Range()))
		mixReference(want, nil, x, 1, 0)
		require.NoError(t, l.Run(t.Context()))
		assert.Equal(t, want, download(t, other.Range()))
		before := d.Stats().Buffers
		closeAll(t, a, b, other)
		assert.Equal(t, before-3, d.Stats().Buffers, "no run uses them any more")
	}
	assert.Positive(t, early, "no run was cancelled while it was in flight")
	assert.Equal(t, busyResult(rounds), download(t, y.Range())[0])
}

// TestCancelledRunKeepsMemory closes everything that a cancelled run uses.
func TestCancelledRunKeepsMemory(t *testing.T) {
	skipUnderValidation(t)
	d := openDevice(t, vk.Options{})
	y, l := newBuffer(t, d, "y", 64), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Fill(y.Range(), 7))
	require.NoError(t, l.Run(t.Context()))
	release, err := l.Stall()
	require.NoError(t, err)
	assertPrompt(t, context.Canceled, func() error { return l.Wait(cancelled(t, time.Millisecond)) })
	closeAll(t, y)
	assert.Equal(t, int64(1), d.Stats().Buffers, "the run in flight uses it")
	time.AfterFunc(20*time.Millisecond, func() { assert.NoError(t, release()) })
	closeAll(t, l) // waits
	assert.Equal(t, vk.DeviceStats{}, openObjects(d))
}

// TestCancelLocked cancels calls that wait for another call, not for the device.
func TestCancelLocked(t *testing.T) {
	skipUnderValidation(t)
	d := openDevice(t, vk.Options{})
	y, l := newBuffer(t, d, "y", 64), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Fill(y.Range(), 7))
	require.NoError(t, l.Run(t.Context()))
	data := vk.Transfer{Range: y.Range(), Data: make([]byte, 64)}
	require.NoError(t, d.Download(t.Context(), data))
	var group sync.WaitGroup
	hold := func(release func() error, err error, call func() error) (stop func()) {
		require.NoError(t, err)
		done := make(chan struct{})
		group.Add(1)
		go func() { defer group.Done(); defer close(done); assert.NoError(t, call()) }()
		return func() { assert.NoError(t, release()); <-done }
	}
	release, err := l.Stall()
	stop := hold(release, err, func() error { return l.Wait(context.Background()) })
	time.Sleep(10 * time.Millisecond) // it has the list by now; if not, the errors below are others of the same kind
	for _, call := range []func(context.Context) error{l.Run, l.Submit, l.Wait, d.Wait} {
		err := assertPrompt(t, context.Canceled, func() error { return call(cancelled(t, 5*time.Millisecond)) })
		assert.ErrorContains(t, err, "context canceled while another call uses the list")
	}
	stop()
	release, err = d.StallDownload(data)
	stop = hold(release, err, func() error {
		return d.Upload(context.Background(), vk.Transfer{Range: y.Range(), Data: make([]byte, 64)})
	})
	time.Sleep(10 * time.Millisecond)
	for _, call := range []func(context.Context, ...vk.Transfer) error{d.Upload, d.Download} {
		err := assertPrompt(t, context.Canceled, func() error { return call(cancelled(t, 5*time.Millisecond), data) })
		assert.ErrorContains(t, err, "context canceled while another transfer runs")
	}
	stop()
	group.Wait()
}

// countdown is a context that is cancelled by the n-th call of Err.
type countdown struct {
	context.Context
	left atomic.Int64
	done chan struct{}
}

func newCountdown(t testing.TB, n int64) *countdown {
	c := &countdown{Context: t.Context(), done: make(chan struct{})}
	c.left.Store(n)
	return c
}

func (c *countdown) Done() <-chan struct{} { return c.done }

func (c *countdown) Err() error {
	switch left := c.left.Add(-1); {
	case left > 0:
		return nil
	case left == 0:
		close(c.done)
	}
	return context.Canceled
}

// TestCancelTransfer cancels uploads and downloads before each of their chunks.
func TestCancelTransfer(t *testing.T) {
	d := openDevice(t, vk.Options{})
	const size = 4*vk.ChunkBytes + 5
	b := newBuffer(t, d, "b", size)
	data, other, got := randomBytes(1, size), randomBytes(2, size), make([]byte, size)
	require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: other}))
	for n := int64(1); ; n++ {
		ctx := newCountdown(t, n)
		err := d.Upload(ctx, vk.Transfer{Range: b.Range(), Data: data})
		if err == nil {
			require.Greater(t, n, int64(5))
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		clear(got)
		ctx = newCountdown(t, n)
		require.ErrorIs(t, d.Download(ctx, vk.Transfer{Range: b.Range(), Data: got}), context.Canceled)
		before := bytes.Clone(got)
		require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: b.Range().Slice(0, 64), Data: data[:64]}))
		require.NoError(t, d.Wait(t.Context()))
		require.True(t, bytes.Equal(before, got), "the memory of a call that has returned does not change")
	}
	require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}))
	assert.True(t, bytes.Equal(data, got))
	for n := range int64(4) {
		require.ErrorIs(t, d.Upload(newCountdown(t, n+2), vk.Transfer{Range: b.Range(), Data: data}), context.Canceled)
		require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: other}))
		require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: got}))
		require.True(t, bytes.Equal(other, got), "a later upload wins")
	}
	before := d.Stats().Buffers
	require.ErrorIs(t, d.Upload(newCountdown(t, 4), vk.Transfer{Range: b.Range(), Data: data}), context.Canceled)
	closeAll(t, b)
	require.NoError(t, d.Wait(t.Context()))
	assert.Equal(t, before-1, d.Stats().Buffers)
}

// TestCancelTransferInFlight cancels transfers while the device executes, or hangs in, earlier work.
func TestCancelTransferInFlight(t *testing.T) {
	d := openDevice(t, vk.Options{})
	a, b := newBuffer(t, d, "a", 64), newBuffer(t, d, "b", 64)
	data, first, second := randomBytes(1, 64), make([]byte, 64), make([]byte, 64)
	require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: a.Range(), Data: data}))
	release, err := d.StallDownload(vk.Transfer{Range: a.Range(), Data: first})
	require.NoError(t, err)
	for op, call := range map[string]func(context.Context, ...vk.Transfer) error{"Upload": d.Upload, "Download": d.Download} {
		err := assertPrompt(t, context.Canceled, func() error {
			return call(cancelled(t, 5*time.Millisecond), vk.Transfer{Range: b.Range(), Data: second})
		})
		assert.EqualError(t, err, "vk: "+op+": context canceled; the submitted work is still running, and the next call waits for it first")
		deadline, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		assertPrompt(t, context.DeadlineExceeded, func() error { return call(deadline, vk.Transfer{Range: b.Range(), Data: second}) })
		cancel()
	}
	assertPrompt(t, context.Canceled, func() error { return d.Wait(cancelled(t, 5*time.Millisecond)) })
	require.NoError(t, release())
	require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: b.Range(), Data: data}))
	require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: second}))
	assert.Equal(t, data, second)
	assert.Equal(t, make([]byte, 64), first, "the memory of a call that has returned does not change")

	k, y, l := newKernel(t, d, "busy", nil), newBuffer(t, d, "y", 4), newList(t, d, vk.CommandListConfig{})
	for range 12 { // 0.1 s
		require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), 65_000)))
	}
	require.NoError(t, l.Submit(t.Context()))
	clear(second)
	if err := d.Download(cancelled(t, 5*time.Millisecond), vk.Transfer{Range: b.Range(), Data: second}); err != nil {
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, d.Wait(t.Context()))
		assert.Equal(t, make([]byte, 64), second)
	}
	require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: b.Range(), Data: second}))
	assert.Equal(t, data, second)
}
