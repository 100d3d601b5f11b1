package vk_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/require"
)

// independentSteps returns a list of independent steps that read one binding.
func independentSteps(b *testing.B, d *vk.Device, k *vk.Kernel, steps int) (*vk.CommandList, *vk.Binding) {
	l := newList(b, d, vk.CommandListConfig{})
	binding := l.NewBinding("x", 256)
	for i := range steps {
		y := newBuffer(b, d, "y", 256)
		x := binding.Range()
		require.NoError(b, l.Dispatch(mixDispatch(k, x, x, y.Range(), uint32(i))))
	}
	return l, binding
}

// BenchmarkRun measures the time of a call beyond its GPU time, for lists of small steps: with the same memory in every
// run, with two sets of memory alternately, and with a set whose command buffers must be recorded.
func BenchmarkRun(b *testing.B) {
	for _, steps := range []int{1, 40, 1000} {
		for _, how := range []string{"same", "alternate", "new"} {
			b.Run(fmt.Sprintf("%d steps/%s", steps, how), func(b *testing.B) {
				d := openDevice(b, vk.Options{})
				l, binding := independentSteps(b, d, newKernel(b, d, "mix", nil), steps)
				x := newBuffer(b, d, "x", 1<<20)
				sets := map[string]int{"same": 1, "alternate": 2, "new": 3}[how]
				run := func(i int) {
					if err := l.Bind(binding, x.Range().Slice(uint64(i%sets)*256, 256)); err != nil {
						b.Fatal(err)
					}
					if err := l.Run(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				for i := range 6 {
					run(i)
				}
				before, gpu, start := d.Stats().CommandBufferWrites, time.Duration(0), time.Now()
				b.ResetTimer()
				for i := range b.N {
					run(i)
					t, err := l.Elapsed()
					if err != nil {
						b.Fatal(err)
					}
					gpu += t
				}
				b.StopTimer()
				b.ReportMetric(float64((time.Since(start)-gpu).Microseconds())/float64(b.N), "us-beyond-gpu/op")
				b.ReportMetric(float64(d.Stats().CommandBufferWrites-before)/float64(b.N), "writes/op")
			})
		}
	}
}

// BenchmarkEncode measures the time to record a command buffer, without a run.
func BenchmarkEncode(b *testing.B) {
	for _, steps := range []int{40, 1000} {
		b.Run(fmt.Sprintf("%d steps", steps), func(b *testing.B) {
			d := openDevice(b, vk.Options{})
			l, binding := independentSteps(b, d, newKernel(b, d, "mix", nil), steps)
			require.NoError(b, l.Bind(binding, newBuffer(b, d, "x", 256).Range()))
			require.NoError(b, l.Run(b.Context()))
			b.ResetTimer()
			for range b.N {
				if err := l.Encode(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*steps), "ns/step")
		})
	}
}

// BenchmarkSchedule measures the time to schedule the steps and to check the schedule.
func BenchmarkSchedule(b *testing.B) {
	for _, steps := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("%d steps", steps), func(b *testing.B) {
			d := openDevice(b, vk.Options{})
			k, l := newKernel(b, d, "mix", nil), newList(b, d, vk.CommandListConfig{})
			x := newBuffer(b, d, "x", 1<<20).Range()
			for i := range steps { // blocks of one workspace, used many times
				at := func(i int) vk.Range { return x.Slice(uint64(i%50)*16384, 16384) }
				require.NoError(b, l.Dispatch(mixDispatch(k, at(7*i), at(i+1), at(3*i+2), uint32(i))))
			}
			b.ResetTimer()
			for range b.N {
				l.Schedule()
				if err := l.CheckHazards(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
