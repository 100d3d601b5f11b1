package vk_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWaiting looks at what a wait does: a driver that runs on the processor is left alone, a GPU is asked around the end of the work.
func TestWaiting(t *testing.T) {
	d := open(t, vk.Options{})
	k, y, tp := kernel(t, d, "busy", nil), buffer(t, d, "y", 4), tape(t, d, vk.TapeConfig{})
	require.NoError(t, tp.Dispatch(busy(k, y.Range(), 65_000))) // some 10 ms
	cpu := d.Caps().CPU
	require.NoError(t, tp.Run())
	polls, naps, blocks := tp.Waited()
	if cpu {
		assert.Equal(t, []int{0, 0, 1}, []int{polls, naps, blocks})
	}
	defer d.SetCaps(func(c *vk.Caps) { c.CPU = cpu })
	d.SetCaps(func(c *vk.Caps) { c.CPU = false })

	release, err := tp.Stall()
	require.NoError(t, err)
	for _, c := range []struct {
		expected   time.Duration
		nap, block bool
	}{
		{0, false, true},                // not known: asked for a while
		{time.Microsecond, false, true}, // long over
		{time.Hour, true, false},        // until the timeout, which is shorter
	} {
		t.Run(fmt.Sprint(c.expected), func(t *testing.T) {
			tp.Expect(c.expected)
			d.SetTimeout(30 * time.Millisecond)
			defer d.SetTimeout(time.Minute)
			start := time.Now()
			require.ErrorIs(t, tp.Wait(), vk.ErrTimeout)
			took := time.Since(start)
			assert.GreaterOrEqual(t, took, 30*time.Millisecond)
			polls, naps, blocks := tp.Waited()
			assert.Positive(t, polls)
			assert.Equal(t, c.nap, naps > 0)
			assert.Equal(t, c.block, blocks > 0)
			if c.nap {
				assert.Equal(t, polls, naps+1, "no processor is kept busy")
			}
		})
	}
	d.SetTimeout(time.Minute)
	require.NoError(t, release())
	require.NoError(t, tp.Wait())
	last := time.Duration(0)
	for range 5 {
		require.NoError(t, tp.Run())
		last = tp.Expected()
	}
	gpu, err := tp.Elapsed()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, last, gpu)
	assert.Equal(t, busied(65_000), words(t, y.Range())[0])
	tp.Expect(100 * last) // it took long once
	start := time.Now()
	require.NoError(t, tp.Run())
	assert.Less(t, time.Since(start), 20*last, "what takes less than expected is noticed in time")
	assert.Less(t, tp.Expected(), 20*last)
	require.NoError(t, tp.Submit()) // and a wait that comes late learns nothing
	time.Sleep(2 * tp.Expected())
	before := tp.Expected()
	require.NoError(t, tp.Wait())
	assert.LessOrEqual(t, tp.Expected(), before)
	upload(t, y.Range(), []uint32{5})
	assert.Equal(t, []uint32{5}, words(t, y.Range()), "transfers are asked for too")
}
