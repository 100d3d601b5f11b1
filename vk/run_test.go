package vk_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRunAgain runs a list many times: each run is one submission, allocates nothing and records nothing.
func TestRunAgain(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, b, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "b", 4096), newList(t, d, vk.CommandListConfig{})
	binding := l.NewBinding("x", 4096)
	x, y := newBuffer(t, d, "x", 4096), newBuffer(t, d, "y", 4096)
	require.NoError(t, l.Dispatch(mixDispatch(k, binding.Range(), binding.Range(), b.Range(), 3)))
	require.NoError(t, l.Dispatch(mixDispatch(k, b.Range(), b.Range(), y.Range(), 3)))
	require.NoError(t, l.Bind(binding, x.Range()))
	require.NoError(t, l.Run(t.Context()))
	deadline, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": t.Context(), "deadline": deadline} {
		before, runs := d.Stats(), 0
		allocations := testing.AllocsPerRun(200, func() {
			if err := l.Run(ctx); err != nil {
				t.Fatal(err)
			}
			runs++
		})
		assert.Zero(t, allocations, name)
		want := before
		want.Submits += uint64(runs)
		assert.Equal(t, want, d.Stats(), name)
	}
}

func TestSegments(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k := newKernel(t, d, "mix", nil)
	const n = 1000
	for _, c := range []struct {
		flops   []float64
		submits int
	}{
		{[]float64{0, 0, 0}, 1},
		{[]float64{vk.SegmentFlops / 2, vk.SegmentFlops / 2, 0}, 1},
		{[]float64{vk.SegmentFlops / 2, vk.SegmentFlops / 2, 1}, 2},
		{[]float64{3 * vk.SegmentFlops}, 1},
		{[]float64{1, 3 * vk.SegmentFlops, 1, 1, vk.SegmentFlops}, 4},
		{[]float64{vk.SegmentFlops, vk.SegmentFlops, vk.SegmentFlops, vk.SegmentFlops, vk.SegmentFlops}, 5},
	} {
		for _, profile := range []bool{false, true} {
			t.Run(fmt.Sprint(c.flops, profile), func(t *testing.T) {
				x, want := randomWords(1, n), randomWords(1, n)
				b, l := newBuffer(t, d, "b", 4*n), newList(t, d, vk.CommandListConfig{Profile: profile})
				binding := l.NewBinding("b", 4*n)
				total := 0.0
				for i, flops := range c.flops {
					run := mixDispatch(k, binding.Range(), binding.Range(), binding.Range(), uint32(i+2))
					run.Flops, run.Bytes = flops, 12*n
					total += flops
					require.NoError(t, l.Dispatch(run))
					mixReference(want, want, want, uint32(i+2), 0)
				}
				require.NoError(t, l.Bind(binding, b.Range()))
				uploadTo(t, b.Range(), x)
				before := d.Stats()
				require.NoError(t, l.Run(t.Context()))
				assert.Equal(t, c.submits, l.Submits())
				assert.Equal(t, len(c.flops)-c.submits, l.Barriers(), "every submit begins with a barrier of its own")
				assert.Equal(t, before.Submits+uint64(c.submits), d.Stats().Submits)
				assert.Equal(t, want, download(t, b.Range()))
				flops, moved := l.Work()
				assert.Equal(t, total, flops)
				assert.Equal(t, float64(12*n*len(c.flops)), moved)
				uploadTo(t, b.Range(), x)
				require.NoError(t, l.Run(t.Context()))
				assert.Equal(t, want, download(t, b.Range()))
				_, err := l.Elapsed()
				assert.NoError(t, err)
			})
		}
	}
}

func TestRunTimeout(t *testing.T) {
	const rounds = 65_000
	want := busyResult(rounds)
	d := openDevice(t, vk.Options{Timeout: time.Millisecond})
	k, y, l := newKernel(t, d, "busy", nil), newBuffer(t, d, "y", 4), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Dispatch(busyDispatch(k, y.Range(), rounds)))
	assertTimeout(t, d, l.Run(t.Context()))
	retryTimeouts(t, func() error { return l.Wait(t.Context()) })
	got := []uint32{0}
	retryTimeouts(t, func() error { return d.Download(t.Context(), vk.Transfer{Range: y.Range(), Data: vk.Bytes(got)}) })
	assert.Equal(t, want, got[0])
	require.NoError(t, d.Wait(t.Context()))
}

// TestRunStall: a run does not finish within the timeout.
func TestRunStall(t *testing.T) {
	d := openDevice(t, vk.Options{Timeout: 50 * time.Millisecond})
	y, l := newBuffer(t, d, "y", 64), newList(t, d, vk.CommandListConfig{})
	require.NoError(t, l.Fill(y.Range(), 7))
	retryTimeouts(t, func() error { return l.Run(t.Context()) })
	release, err := l.Stall()
	require.NoError(t, err)
	for range 2 {
		require.ErrorIs(t, l.Wait(t.Context()), vk.ErrTimeout)
		assert.ErrorIs(t, l.Run(t.Context()), vk.ErrTimeout, "the earlier run is in flight")
		assert.ErrorIs(t, l.Close(), vk.ErrTimeout)
		_, err = l.Elapsed()
		assert.ErrorContains(t, err, "there is no finished run")
	}
	require.NoError(t, release())
	retryTimeouts(t, func() error { return l.Wait(t.Context()) })
	retryTimeouts(t, func() error { return l.Run(t.Context()) })
	_, err = l.Elapsed()
	assert.NoError(t, err)
	release, err = l.Stall()
	require.NoError(t, err)
	held := d.Stats().BufferBytes
	require.NoError(t, y.Close())
	assert.Equal(t, held, d.Stats().BufferBytes, "the device uses it")
	require.NoError(t, release())
	retryTimeouts(t, func() error { return l.Wait(t.Context()) })
	assert.Equal(t, held-64, d.Stats().BufferBytes)
	assert.ErrorIs(t, l.Run(t.Context()), vk.ErrClosed)
}

func TestElapsed(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, y, z := newKernel(t, d, "busy", nil), newBuffer(t, d, "y", 4), newBuffer(t, d, "z", 4096)
	const rounds = 65_000
	for _, profile := range []bool{false, true} {
		l := newList(t, d, vk.CommandListConfig{Profile: profile})
		require.NoError(t, l.Fill(z.Range(), 1))
		run := busyDispatch(k, y.Range(), rounds)
		run.Flops, run.Bytes = 3, 4
		require.NoError(t, l.Dispatch(run)) // independent of the fill, so without a barrier
		_, err := l.Elapsed()
		require.ErrorContains(t, err, "there is no finished run")
		require.NoError(t, l.Run(t.Context())) // the first run also records the command buffers
		start := time.Now()
		require.NoError(t, l.Run(t.Context()))
		wall := time.Since(start)
		gpu, err := l.Elapsed()
		require.NoError(t, err)
		assert.LessOrEqual(t, gpu, wall+wall/100)
		assert.Greater(t, gpu, wall/4, "the end of the kernel is timed, not its launch")
		list, err := l.StepTimes()
		if !profile {
			require.ErrorContains(t, err, "CommandListConfig.Profile is off")
			continue
		}
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, []string{"fill", "busy"}, []string{list[0].Name, list[1].Name})
		assert.Greater(t, list[1].Time, wall/4)
		assert.Less(t, list[0].Time, list[1].Time)
		assert.InDelta(t, float64(gpu), float64(list[0].Time+list[1].Time), 2*d.Caps().TimestampNanoseconds+2)
		assert.Equal(t, []float64{0, 4096, 3, 4}, []float64{list[0].Flops, list[0].Bytes, list[1].Flops, list[1].Bytes})
	}
	assert.Equal(t, busyResult(rounds), download(t, y.Range())[0])
}

// resident returns the resident memory of this process, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var size, pages int
	_, err = fmt.Fscan(bytes.NewReader(text), &size, &pages)
	require.NoError(t, err)
	runtime.GC()
	return pages * os.Getpagesize()
}

// TestGrowth repeats operations and checks the memory and the number of goroutines of the process.
func TestGrowth(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	d := openDevice(t, vk.Options{})
	k, b, l := newKernel(t, d, "mix", nil), newBuffer(t, d, "b", 4096), newList(t, d, vk.CommandListConfig{})
	binding := l.NewBinding("x", 4096)
	x := [2]*vk.Buffer{newBuffer(t, d, "x0", 4096), newBuffer(t, d, "x1", 4096)}
	require.NoError(t, l.Dispatch(mixDispatch(k, binding.Range(), binding.Range(), b.Range(), 3)))
	data := make([]byte, 4096)
	for name, c := range map[string]struct {
		times int
		limit int // bytes for all of them
		do    func(i int)
	}{
		"run": {1000, 1 << 20, func(i int) {
			require.NoError(t, l.Bind(binding, x[i%2].Range()))
			require.NoError(t, l.Run(t.Context()))
			require.NoError(t, second(l.Elapsed()))
		}},
		"transfer": {1000, 1 << 20, func(i int) {
			require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: x[i%2].Range(), Data: data}))
			require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: x[i%2].Range(), Data: data}))
		}},
		"command list": {500, 2 << 20, func(int) {
			l, err := d.NewCommandList(vk.CommandListConfig{Name: "short", Profile: true})
			require.NoError(t, err)
			require.NoError(t, l.Dispatch(mixDispatch(k, vk.Range{}, b.Range(), b.Range(), 3)))
			require.NoError(t, l.Run(t.Context()))
			closeAll(t, l)
		}},
		"buffer": {300, 1 << 20, func(int) {
			b, err := d.NewBuffer("short", vk.MaxSharedBytes+1)
			require.NoError(t, err)
			closeAll(t, b)
		}},
		"list": {50, 2 << 20, func(int) { require.NoError(t, second(vk.List())) }},
	} {
		t.Run(name, func(t *testing.T) {
			c.do(0)
			goroutines, least := runtime.NumGoroutine(), math.MaxInt
			for range 3 { // a cache grows once, a leak every time
				before := resident(t)
				for i := range c.times {
					c.do(i)
				}
				least = min(least, resident(t)-before)
			}
			t.Logf("%d bytes in %d operations", least, c.times)
			assert.True(t, raceDetector || least < c.limit, "memory grows")
			// Finalizers of the Go binding run in goroutines, which end soon.
			assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 /* for Eventually */ }, 5*time.Second, 10*time.Millisecond)
		})
	}
}

// Finish ends the recording, and reports what a first run would: nothing recorded, or a hazard.
func TestFinish(t *testing.T) {
	d := openDevice(t, vk.Options{})
	k, x, y := newKernel(t, d, "mix", nil), newBuffer(t, d, "x", 64), newBuffer(t, d, "y", 64)
	l := newList(t, d, vk.CommandListConfig{Name: "list"})
	assert.EqualError(t, l.Finish(), `vk: command list "list": Finish: nothing was recorded`)
	require.NoError(t, l.Dispatch(mixDispatch(k, x.Range(), x.Range(), y.Range(), 1)))
	require.NoError(t, l.Dispatch(mixDispatch(k, y.Range(), y.Range(), x.Range(), 2)))
	l.SkipBarrier(0)
	assert.ErrorContains(t, l.Finish(), "hazard: step 0 (mix) and step 1 (mix)")
	l.SkipBarrier(-1)
	l.Schedule()
	require.NoError(t, l.Finish())
	require.NoError(t, l.Finish(), "once more")
	assert.ErrorContains(t, l.Fill(x.Range(), 0), "recording ended")
	require.NoError(t, l.Run(t.Context()))
	require.NoError(t, l.Close())
	assert.ErrorIs(t, l.Finish(), vk.ErrClosed)
}
