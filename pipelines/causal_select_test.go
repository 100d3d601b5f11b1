package pipelines

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCausalSelect(t *testing.T) {
	ties := func(x []float32) { // many equal values, and both zeros
		for i := range x {
			x[i] = float32(math.Round(float64(x[i])))
			if i%2 == 0 && x[i] == 0 {
				x[i] = float32(math.Copysign(0, -1))
			}
		}
	}
	for _, test := range []struct {
		b, n, window, k int
		change          func([]float32)
	}{
		{1, 1, 1, 1, nil}, {2, 10, 1, 1, nil}, {2, 10, 3, 5, nil}, {3, 31, 8, 3, nil}, {2, 96, 32, 8, ties}, {2, 100, 32, 31, nil},
		{1, 700, 255, 7, nil}, {2, 1100, 256, 64, ties}, {1, 1100, 257, 300, nil}, {2, 3000, 1000, 1, ties}, {1, 2000, 600, 513, nil},
		{2, 40, 40, 4, nil}, {2, 40, 50, 4, nil}, {1, 64, 16, 4, func(x []float32) { clear(x) }},
		{1, 64, 16, 4, func(x []float32) { // ascending: every token of the next window passes
			for i := range x {
				x[i] = float32(i)
			}
		}},
		{1, 64, 16, 4, func(x []float32) { // descending: no token passes
			for i := range x {
				x[i] = -float32(i)
			}
		}},
		{1, 64, 16, 4, func(x []float32) { // NaN is never selected
			for i := 16; i < 64; i += 3 {
				x[i] = float32(math.NaN())
			}
		}},
	} {
		t.Run(fmt.Sprintf("%d_%d_%d_%d", test.b, test.n, test.window, test.k), func(t *testing.T) {
			gpu := gputest.New(t)
			logits := normal(3, test.b*test.n)
			if test.change != nil {
				test.change(logits)
			}
			s, err := NewCausalSelect(gpu.Dev, CausalSelectConfig{})
			require.NoError(t, err)
			defer s.Close()
			topK, err := NewSelect(gpu.Dev, SelectConfig{})
			require.NoError(t, err)
			defer topK.Close()
			windows := (test.n + test.window - 1) / test.window
			slots := 4 * test.b * windows * test.k
			a := CausalSelectArgs{
				Logits: gpu.In("logits", logits), Values: gpu.Out("values", slots), Valid: gpu.Out("valid", slots), Indices: gpu.Out("indices", slots),
				QueryValid: gpu.Out("query valid", slots), Thresholds: gpu.Out("thresholds", 4*test.b*windows), B: test.b, N: test.n, Window: test.window, K: test.k,
			}
			perWindow := SelectArgs{
				Logits: a.Logits, Indices: gpu.Out("top k", slots), Valid: a.Valid, Values: a.Values, Rows: test.b, N: test.n, K: test.k, BlockSize: test.window,
			}
			gpu.Run(func(list *vk.CommandList) error { return firstError(topK.Record(list, perWindow), s.Record(list, a)) })
			indices, valid := ref.CausalSelect(logits, test.b, test.n, test.window, test.k)
			assert.Equal(t, indices, gpu.Int32("indices"))
			for i, v := range gpu.Uint32("query valid") {
				require.Equal(t, uint32(valid[i]), v, "slot %d", i)
			}
			for i, threshold := range gpu.Float32("thresholds") {
				require.False(t, math.IsNaN(float64(threshold)))
				for slot := i * test.k; slot < (i+1)*test.k; slot++ {
					if valid[slot] == 1 && test.window > test.k {
						require.GreaterOrEqual(t, logits[i/windows*test.n+int(indices[slot])], threshold)
					}
				}
			}
		})
	}
}

func TestCausalSelectBadInput(t *testing.T) {
	gpu := gputest.New(t)
	s, err := NewCausalSelect(gpu.Dev, CausalSelectConfig{})
	require.NoError(t, err)
	defer s.Close()
	logits, values, out := gpu.In("logits", normal(1, 20)), gpu.In("values", normal(2, 12)), gpu.Out("out", 48)
	good := CausalSelectArgs{Logits: logits, Values: values, Valid: values, Indices: out, QueryValid: gpu.Out("query valid", 48), B: 2, N: 10, Window: 4, K: 2}
	assertRejected(t, gpu, good, s.Record, []badArgs[CausalSelectArgs]{
		{"B is 0, want 1", func(a *CausalSelectArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *CausalSelectArgs) { a.N = 0 }},
		{"Window is 0, want 1", func(a *CausalSelectArgs) { a.Window = 0 }},
		{"K is -2, want 1", func(a *CausalSelectArgs) { a.K = -2 }},
		{"logits has 48 bytes, want [B 2, N 10] f32, 80 bytes", func(a *CausalSelectArgs) { a.Logits = values }},
		{"values is missing, want [B 2, M 3, K 2] f32, 48 bytes", func(a *CausalSelectArgs) { a.Values = vk.Range{} }},
		{"valid has 80 bytes, want [B 2, M 3, K 2] u32", func(a *CausalSelectArgs) { a.Valid = logits }},
		{"indices is missing, want [B 2, M 3, K 2] i32", func(a *CausalSelectArgs) { a.Indices = vk.Range{} }},
		{"query valid is missing, want [B 2, M 3, K 2] u32", func(a *CausalSelectArgs) { a.QueryValid = vk.Range{} }},
		{"thresholds has 48 bytes, want [B 2, M 3] f32, 24 bytes", func(a *CausalSelectArgs) { a.Thresholds = values }},
	})
}
