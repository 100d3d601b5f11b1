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
	coarse := func(x []float32) { // many ties, and both zeros
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
		{1, 1, 1, 1, nil}, {2, 10, 1, 1, nil}, {2, 10, 3, 5, nil}, {3, 31, 8, 3, nil}, {2, 96, 32, 8, coarse}, {2, 100, 32, 31, nil},
		{1, 700, 255, 7, nil}, {2, 1100, 256, 64, coarse}, {1, 1100, 257, 300, nil}, {2, 3000, 1000, 1, coarse}, {1, 2000, 600, 513, nil},
		{2, 40, 40, 4, nil}, {2, 40, 50, 4, nil}, {1, 64, 16, 4, func(x []float32) { clear(x) }},
		{1, 64, 16, 4, func(x []float32) { // rising: all of the next window pass
			for i := range x {
				x[i] = float32(i)
			}
		}},
		{1, 64, 16, 4, func(x []float32) { // falling: none does
			for i := range x {
				x[i] = -float32(i)
			}
		}},
		{1, 64, 16, 4, func(x []float32) { // NaN is never chosen
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
			plain, err := NewSelect(gpu.Dev, SelectConfig{})
			require.NoError(t, err)
			defer plain.Close()
			windows := (test.n + test.window - 1) / test.window
			slots := 4 * test.b * windows * test.k
			a := CausalSelectArgs{
				Logits: gpu.In("logits", logits), Values: gpu.Out("values", slots), Valid: gpu.Out("filled", slots), Indices: gpu.Out("indices", slots),
				QueryValid: gpu.Out("chosen", slots), Thresholds: gpu.Out("thresholds", 4*test.b*windows), B: test.b, N: test.n, Window: test.window, K: test.k,
			}
			first := SelectArgs{
				Logits: a.Logits, Indices: gpu.Out("plain", slots), Valid: a.Valid, Values: a.Values, Rows: test.b, N: test.n, K: test.k, BlockSize: test.window,
			}
			gpu.Run(func(list *vk.CommandList) error {
				if err := plain.Record(list, first); err != nil {
					return err
				}
				return s.Record(list, a)
			})
			indices, filled := ref.CausalSelect(logits, test.b, test.n, test.window, test.k)
			assert.Equal(t, indices, gpu.Int32("indices"))
			for i, c := range gpu.Uint32("chosen") {
				require.Equal(t, uint32(filled[i]), c, "slot %d", i)
			}
			for i, threshold := range gpu.Float32("thresholds") {
				require.False(t, math.IsNaN(float64(threshold)))
				for slot := i * test.k; slot < (i+1)*test.k; slot++ {
					if filled[slot] == 1 && test.window > test.k {
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
	good := CausalSelectArgs{Logits: logits, Values: values, Valid: values, Indices: out, QueryValid: gpu.Out("chosen", 48), B: 2, N: 10, Window: 4, K: 2}
	for _, test := range []struct {
		want   string
		change func(*CausalSelectArgs)
	}{
		{"B is 0, want 1", func(a *CausalSelectArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *CausalSelectArgs) { a.N = 0 }},
		{"Window is 0, want 1", func(a *CausalSelectArgs) { a.Window = 0 }},
		{"K is -2, want 1", func(a *CausalSelectArgs) { a.K = -2 }},
		{"logits has 48 bytes, want [B 2, N 10] f32, 80 bytes", func(a *CausalSelectArgs) { a.Logits = values }},
		{"values is missing, want [B 2, M 3, K 2] f32, 48 bytes", func(a *CausalSelectArgs) { a.Values = vk.Range{} }},
		{"filled has 80 bytes, want [B 2, M 3, K 2] u32", func(a *CausalSelectArgs) { a.Valid = logits }},
		{"indices is missing, want [B 2, M 3, K 2] i32", func(a *CausalSelectArgs) { a.Indices = vk.Range{} }},
		{"chosen is missing, want [B 2, M 3, K 2] u32", func(a *CausalSelectArgs) { a.QueryValid = vk.Range{} }},
		{"thresholds has 48 bytes, want [B 2, M 3] f32, 24 bytes", func(a *CausalSelectArgs) { a.Thresholds = values }},
	} {
		a := good
		test.change(&a)
		assertRecordError(t, gpu, test.want, func(list *vk.CommandList) error { return s.Record(list, a) })
	}
}
