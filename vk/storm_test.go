package vk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/require"
)

// stressRound makes a kernel, buffers and a command list, runs them, checks the result and closes everything.
func stressRound(d *vk.Device, code []byte, r *rand.Rand) (err error) {
	var made []closer
	defer func() {
		for _, c := range slices.Backward(made) {
			if e := c.Close(); err == nil {
				err = e
			}
		}
	}()
	add := r.Uint32()
	k, err := d.NewKernel(vk.KernelConfig{Name: fmt.Sprint("storm ", add), Code: slices.Clone(code), Spec: map[uint32]uint32{0: mixWidth, 1: add}})
	if err != nil {
		return err
	}
	made = append(made, k)
	n := 1 + r.IntN(3000)
	var b [3]*vk.Buffer
	for i := range b {
		if b[i], err = d.NewBuffer(fmt.Sprint("storm ", i), uint64(4*n)); err != nil {
			return err
		}
		made = append(made, b[i])
	}
	l, err := d.NewCommandList(vk.CommandListConfig{Name: "storm", Profile: r.IntN(2) == 0, BarrierEverywhere: r.IntN(2) == 0})
	if err != nil {
		return err
	}
	made = append(made, l)
	binding, steps := l.NewBinding("x", uint64(4*n)), 1+r.IntN(20)
	for i := range steps {
		run := mixDispatch(k, binding.Range(), b[1].Range(), b[1].Range(), uint32(i))
		run.Flops = r.Float64() * vk.SegmentFlops
		if err := l.Dispatch(run); err != nil {
			return err
		}
	}
	return stressRuns(d, l, binding, b, n, steps, add, r)
}

// stressRuns runs a list of stressRound a few times, with two buffers bound alternately.
func stressRuns(d *vk.Device, l *vk.CommandList, binding *vk.Binding, b [3]*vk.Buffer, n, steps int, add uint32, r *rand.Rand) error {
	for run := range 3 {
		x, y, got := randomWords(r.Uint64(), n), randomWords(r.Uint64(), n), make([]uint32, n)
		in := b[run%2*2].Range()
		if err := l.Bind(binding, in); err != nil {
			return err
		}
		if err := d.Upload(context.TODO(), vk.Transfer{Range: in, Data: vk.Bytes(x)}, vk.Transfer{Range: b[1].Range(), Data: vk.Bytes(y)}); err != nil {
			return err
		}
		if err := l.Submit(context.TODO()); err != nil {
			return err
		}
		for i := range steps {
			mixReference(y, x, y, uint32(i), add)
		}
		if err := l.Wait(context.TODO()); err != nil {
			return err
		}
		if err := d.Download(context.TODO(), vk.Transfer{Range: b[1].Range(), Data: vk.Bytes(got)}); err != nil {
			return err
		}
		if !slices.Equal(y, got) {
			return fmt.Errorf("%d elements, %d steps, run %d: wrong result", n, steps, run)
		}
		if _, err := l.Elapsed(); err != nil {
			return err
		}
	}
	return nil
}

// TestStorm is a stress test: several goroutines make, use and close all kinds of objects, on a shared device and on
// devices of their own, while another one runs the garbage collector without pause. `make storm` runs it with freed C
// memory overwritten and with cgo pointer checks.
func TestStorm(t *testing.T) {
	shared, code := openDevice(t, vk.Options{}), spv(t, "mix")
	stop, collected := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				collected <- n
				return
			default:
				runtime.GC()
			}
		}
	}()
	rounds, workers := 36, 3
	if testing.Short() {
		rounds, workers = 6, 2
	}
	var group sync.WaitGroup
	var done atomic.Int64
	end := time.Now().Add(15 * time.Second) // a slow machine does fewer rounds
	for w := range workers {
		group.Add(2)
		go func() {
			defer group.Done()
			r := rand.New(rand.NewPCG(uint64(w), 11))
			for range rounds {
				if time.Now().After(end) {
					return
				}
				if err := stressRound(shared, code, r); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		}()
		go func() {
			defer group.Done()
			r := rand.New(rand.NewPCG(uint64(w), 12))
			for range rounds / 6 {
				if time.Now().After(end) {
					return
				}
				if err := stressDevice(code, r); err != nil {
					t.Error(err)
					return
				}
				done.Add(2)
			}
		}()
	}
	group.Wait()
	close(stop)
	gcs := <-collected
	t.Logf("%d rounds, %d garbage collections", done.Load(), gcs)
	require.Equal(t, vk.DeviceStats{}, openObjects(shared))
	require.Greater(t, gcs, 10)
	require.Greater(t, done.Load(), int64(2*workers))
}

// stressDevice opens a device, does two rounds on it and closes it.
func stressDevice(code []byte, r *rand.Rand) (err error) {
	d, err := vk.Open(vk.Options{CacheDir: "-"})
	if err != nil {
		return err
	}
	gputest.CountCase()
	defer func() {
		if e := d.Close(); err == nil {
			err = e
		}
	}()
	for range 2 {
		if err := stressRound(d, code, r); err != nil {
			return err
		}
	}
	return nil
}
