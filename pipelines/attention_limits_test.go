package pipelines

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Attention with elements that are not finite, large, or at a threshold. One head, one item.

const limitsDim = 16

// runWindow returns the attention of n tokens. Data has their queries, keys and values [n, 3, limitsDim].
func runWindow(t *testing.T, w *WindowAttention, n int, data []float32) []float32 {
	t.Helper()
	p, gpu := w.config.Precision, gputest.New(t)
	a := WindowAttentionArgs{QKV: gpu.In("qkv", encode(p, data)), Y: gpu.Out("y", p.Size()*n*limitsDim), Items: 1, N: n}
	gpu.Run(func(t *vk.CommandList) error { return w.Record(t, a) })
	return decode(p, gpu, "y")
}

// forAllKernels runs a test for each precision with the kernel for GPUs and the kernel for CPU drivers.
func forAllKernels(t *testing.T, c WindowAttentionConfig, test func(t *testing.T, w *WindowAttention)) {
	for _, p := range append(windowPrecisions(t), F32) {
		bothKernels(t, p.String(), func(t *testing.T, gpuKernel bool) {
			c.Heads, c.DimHead, c.Precision = 1, limitsDim, p
			w, err := NewWindowAttention(gputest.Device(t), c)
			require.NoError(t, err)
			defer w.Close()
			w.kernels.gpuKernel = gpuKernel
			test(t, w)
		})
	}
}

// A token that is NaN or infinite changes no bit of the tokens that do not attend to it.
func TestWindowAttentionMasksNaN(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	const n, d, window, bad = 64, limitsDim, 8, 40
	for _, causal := range []bool{true, false} {
		if testing.Short() && !causal {
			continue // CPU drivers compile kernels for 2 s
		}
		forAllKernels(t, WindowAttentionConfig{Window: window, Causal: causal}, func(t *testing.T, w *WindowAttention) {
			run := func(value float64) []float32 {
				qkv := normal(1, n*3*d)
				for i := range 3 * d {
					qkv[bad*3*d+i] = float32(value)
				}
				return runWindow(t, w, n, qkv)
			}
			good := run(0.5)
			for _, value := range []float64{math.NaN(), math.Inf(1)} {
				got := run(value)
				for i := range n {
					attends := max(i-bad, bad-i) <= window
					if causal {
						attends = bad <= i && i < 48+window
					}
					if !attends {
						require.Equal(t, good[i*d:][:d], got[i*d:][:d], "token %d, %v", i, value)
					}
				}
			}
		})
	}
}

// An element of a value that is NaN or infinite changes no bit of the tokens that do not attend to it, and the result
// of those that do.
func TestWindowAttentionMasksValue(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 4 s on CPU drivers")
	}
	const d = limitsDim
	for _, size := range []struct{ window, n, bad, cols int }{
		{8, 64, 40, d},
		{64, 200, 100, 2}, // a tile has no masked key for some subgroups
	} {
		forAllKernels(t, WindowAttentionConfig{Window: size.window}, func(t *testing.T, w *WindowAttention) {
			run := func(col int, value float64) []float32 {
				qkv := normal(1, size.n*3*d)
				qkv[size.bad*3*d+2*d+col] = float32(value)
				return runWindow(t, w, size.n, qkv)
			}
			good := run(0, 0.5)
			for col := range size.cols {
				for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
					got := run(col, value)
					for i := range size.n {
						if max(i-size.bad, size.bad-i) > size.window {
							require.Equal(t, good[i*d:][:d], got[i*d:][:d], "token %d, %v in column %d", i, value, col)
						} else { // it may be replaced by the largest finite number
							require.NotEqual(t, good[i*d+col], got[i*d+col], "token %d, %v in column %d", i, value, col)
						}
					}
				}
			}
		})
	}
}

// A NaN in a query, or in a key that it attends to, makes the result NaN.
func TestWindowAttentionPropagatesNaN(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	const n, d, bad, window = 64, limitsDim, 40, 8
	forAllKernels(t, WindowAttentionConfig{Window: window}, func(t *testing.T, w *WindowAttention) {
		for part := range 2 {
			qkv := normal(1, n*3*d)
			qkv[bad*3*d+part*d+3] = float32(math.NaN())
			for i, v := range runWindow(t, w, n, qkv) {
				reach := []int{0, window}[part]
				require.Equal(t, max(i/d-bad, bad-i/d) <= reach, math.IsNaN(float64(v)), "part %d, token %d: %v", part, i/d, v)
			}
		}
	})
}

// Scores so large that their product with the scale has an error above 1: the weights follow from exact differences
// nevertheless.
func TestWindowAttentionLargeScores(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	const d, window = limitsDim, 4
	forAllKernels(t, WindowAttentionConfig{Window: window}, func(t *testing.T, w *WindowAttention) {
		p := w.config.Precision
		for _, size := range map[DType][]float32{F16: {1000, 6000, 60000}, BF16: {60000, 1e10, 1e13}, F32: {60000, 1e10}}[p] {
			for _, n := range []int{1, 9} {
				for seed := range uint64(4) {
					data := normal(seed, n*3*d)
					for i := range data {
						if i/d%3 == 2 {
							data[i] = float32(1 + i/d/3)
						} else {
							data[i] = p.round(size * (0.9 + 0.02*min(max(data[i], -4), 4)))
						}
					}
					want := ref.WindowAttention(ref.WindowAttentionArgs{QKV: data, B: 1, N: n, Heads: 1, DimHead: d, Window: window})
					got := runWindow(t, w, n, data)
					for i := range want {
						require.InDelta(t, want[i], got[i], 0.3, "%g, %d tokens, seed %d, token %d", size, n, seed, i/d)
					}
				}
			}
		}
	})
}

// Infinite scores, and those beyond the bound, are clamped to the bound with their sign: a result is the mean of the
// values with positive scores.
func TestWindowAttentionClampedScores(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	const n, d, window = 9, limitsDim, 4
	forAllKernels(t, WindowAttentionConfig{Window: window}, func(t *testing.T, w *WindowAttention) {
		if w.config.Precision == F16 {
			return // its scores cannot be that large
		}
		for _, sign := range []float32{1, -1} {
			data := normal(1, n*3*d)
			for i := range data {
				switch i / d % 3 {
				case 0:
					data[i] = sign * 3e19
				case 1:
					data[i] = 3e19 * (1 - 2*float32(i/d/3%2)) // alternating signs
				case 2:
					data[i] = float32(i / d / 3)
				}
			}
			for i, v := range runWindow(t, w, n, data) {
				sum, count := 0, 0
				for token := max(i/d-window, 0); token <= min(i/d+window, n-1); token++ {
					if (token%2 == 0) == (sign > 0) {
						sum, count = sum+token, count+1
					}
				}
				require.InDelta(t, float64(sum)/float64(count), v, 0.02, "sign %v, token %d", sign, i/d)
			}
		}
	})
}

// A score near the threshold above which the running maximum of a row is updated: whether it is must not depend on
// other rows. Token 0 has this score in its second tile; token 1, in the same matrix, has a large or a small score
// there.
func TestWindowAttentionThreshold(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	const n, d = 48, limitsDim
	forAllKernels(t, WindowAttentionConfig{Window: 100}, func(t *testing.T, w *WindowAttention) {
		p := w.config.Precision
		scale := math.Log2E / math.Sqrt(d)
		for _, first := range []float64{-2.9399786, -1.7, -0.6180339} {
			for step := -8; step <= 8; step++ {
				run := func(other float32) []float32 {
					data := make([]float32, n*3*d)
					row := func(token, part int) []float32 { return data[(3*token+part)*d:][:d] }
					q := row(0, 0)
					q[0], q[1], q[2] = 1, 0x1p-8, 0x1p-16
					set := func(token int, score float64) { // as the sum of three 16-bit products
						for i := range 3 {
							v := p.round(float32(score / float64(q[i])))
							row(token, 1)[i], score = v, score-float64(v)*float64(q[i])
						}
					}
					row(1, 0)[4], row(17, 1)[4] = other, 1
					for token := range n {
						set(token, first-3)
					}
					set(0, first)
					set(16, first+8/scale+float64(step)*0x1p-20)
					for token := 32; token < n; token++ { // small weights, whose rounding depends on the running maximum
						set(token, first-13.3/scale)
						for i := range d {
							row(token, 2)[i] = 60000
						}
					}
					return runWindow(t, w, n, data)[:d]
				}
				assert.Equal(t, run(0), run(1000), "%v, step %d", first, step)
			}
		}
	})
}
