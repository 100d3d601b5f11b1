package vk_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWaiting checks the phases of a wait: a CPU driver is never polled, a GPU is polled around the expected end of the
// work.
func TestWaiting(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, y, l := newKernel(t, d, "busy", nil), newBuffer(t, d, "y", 4), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), 65_000))) // about 10 ms
	cpu := d.Caps().CPU
	require.NoError(t, l.Run(t.Context()))
	assert.Equal(t, cpu, l.Polls() == 0)
	defer d.SetCaps(func(c *vk.Caps) { c.CPU = cpu })
	d.SetCaps(func(c *vk.Caps) { c.CPU = false })

	release, err := l.Stall()
	require.NoError(t, err)
	for _, c := range []struct {
		expected time.Duration
		polled   bool
	}{
		{0, true},                // not known
		{time.Microsecond, true}, // expected end in the past
		{time.Hour, false},       // expected end after the timeout: no polling
	} {
		t.Run(fmt.Sprint(c.expected), func(t *testing.T) {
			l.SetExpected(c.expected)
			d.SetTimeout(30 * time.Millisecond)
			defer d.SetTimeout(time.Minute)
			start := time.Now()
			require.ErrorIs(t, l.Wait(t.Context()), vk.ErrTimeout)
			assert.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond)
			assert.Equal(t, c.polled, l.Polls() > 0)
		})
	}
	d.SetTimeout(time.Minute)
	require.NoError(t, release())
	require.NoError(t, l.Wait(t.Context()))
	polled := false
	for range 5 {
		require.NoError(t, l.Run(t.Context()))
		polled = polled || l.Polls() > 0
	}
	assert.True(t, polled, "polled before the end")
	gpu, err := l.Elapsed()
	require.NoError(t, err)
	last := l.Expected()
	assert.GreaterOrEqual(t, last, gpu)
	assert.Equal(t, busyResult(65_000), download(t, y.Range())[0])
	l.SetExpected(time.Hour) // the previous run took that long
	start := time.Now()
	require.NoError(t, l.Run(t.Context()))
	assert.Less(t, time.Since(start), time.Minute, "a run that takes less than expected is noticed in time")
	assert.Zero(t, l.Polls())
	assert.Less(t, l.Expected(), time.Minute)
	uploadTo(t, y.Range(), []uint32{5})
	assert.Equal(t, []uint32{5}, download(t, y.Range()), "transfers are polled too")
}

// TestPolling checks that polling notices the end: a sleep would begin only after the polling time.
func TestPolling(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, y, l := newKernel(t, d, "busy", nil), newBuffer(t, d, "y", 4), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), 100)))
	cpu := d.Caps().CPU
	defer d.SetCaps(func(c *vk.Caps) { c.CPU = cpu })
	d.SetCaps(func(c *vk.Caps) { c.CPU = false })
	least := time.Hour
	for range 20 { // a busy machine may need longer in some of them
		l.SetExpected(0)
		require.NoError(t, l.Run(t.Context()))
		least = min(least, l.Expected())
	}
	assert.Less(t, least, vk.PollMargin)
}
