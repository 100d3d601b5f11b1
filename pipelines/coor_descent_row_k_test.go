package pipelines

import (
	"fmt"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
)

// Every row has a k of its own: fractions, more than the row has, and values outside of the range.
func TestCoorDescentRowK(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	limit := longestInRegisters(gputest.Device(t).Caps())
	ks := []float32{1, 0.25, 7.5, 1e6, 1e-9, 3e38} // the last two are clamped to 1e-6 and 1e30
	clamped := slices.Clone(ks)
	clamped[4], clamped[5] = 1e-6, 1e30
	for _, n := range []int{1, 7, 257, 4093, limit + 1} {
		for _, masked := range []bool{false, true} {
			for _, config := range []CoorDescentConfig{routerSchedule, topKSchedule} {
				if testing.Short() && (masked != (config == routerSchedule) || n != 257) {
					continue // all take 9 s
				}
				t.Run(fmt.Sprint(n, masked, config), func(t *testing.T) {
					rows := len(ks)
					gpu := gputest.New(t)
					d := openCoorDescent(t, gpu, config)
					logits := scaled(normal(uint64(n), rows*n), 3)
					indices := make([]int32, rows*2) // the first and the last entry
					for row := range rows {
						indices[2*row+1] = int32(n - 1)
					}
					a := CoorDescentArgs{
						Logits: gpu.In("logits", logits), Scores: gpu.Out("scores", 4*rows*n), RowK: gpu.In("k", ks), Rows: rows, N: n, Routes: 2,
						Indices: gpu.In("indices", indices), SelectedScores: gpu.Out("selected", 8*rows), Slots: 2,
					}
					if bytes := d.Scratch(rows, n, 0); bytes > 0 {
						a.Scratch = gpu.Out("scratch", int(bytes))
					}
					var mask []uint8
					if masked {
						itemMask := randomMask(uint64(n), rows/2*n)
						a.Mask = gpu.In("mask", itemMask)
						for row := range rows {
							mask = append(mask, itemMask[row/2*n:][:n]...)
						}
					}
					gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
					rc := ref.CoorDescentConfig{Iters: config.Iters, Eps: config.Eps, EpsInit: config.EpsInit, EpsDecay: max(config.EpsDecay, 0)}
					if rc.EpsDecay == 0 {
						rc.EpsDecay = 1
					}
					got := gpu.Float32("scores")
					want, naive := ref.CoorDescentRows(logits, mask, clamped, n, rc), ref.CoorDescentRows32(logits, mask, clamped, n, rc)
					assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6)))
					assert.Equal(t, ref.SelectedScores(got, indices, nil, rows, n, 2), gpu.Float32("selected"))
				})
			}
		}
	}
}

// A row has the bits that it has alone, with its k as the K of all rows.
func TestCoorDescentRowKBits(t *testing.T) {
	for _, n := range []int{500, longestInRegisters(gputest.Device(t).Caps()) + 5} {
		if testing.Short() && n > 500 {
			continue // takes 5 s
		}
		ks := []float32{2.5, 100}
		logits := normal(3, len(ks)*n)
		run := func(logits []float32, rows int, k float64, rowK []float32) []float32 {
			gpu := gputest.New(t)
			d := openCoorDescent(t, gpu, routerSchedule)
			a := CoorDescentArgs{Logits: gpu.In("logits", logits), Scores: gpu.Out("scores", 4*len(logits)), Rows: rows, N: n, K: k}
			if rowK != nil {
				a.RowK = gpu.In("k", rowK)
			}
			if bytes := d.Scratch(rows, n, 0); bytes > 0 {
				a.Scratch = gpu.Out("scratch", int(bytes))
			}
			gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
			return gpu.Float32("scores")
		}
		got := run(logits, len(ks), 0, ks)
		for row, k := range ks {
			assert.Equal(t, run(logits[row*n:][:n], 1, float64(k), nil), got[row*n:][:n])
		}
	}
}
