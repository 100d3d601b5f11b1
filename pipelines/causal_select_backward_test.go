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

func TestCausalSelectBackward(t *testing.T) {
	for _, test := range []struct {
		b, n, window, k int
		change          func([]float32)
	}{
		{1, 1, 1, 1, nil}, {2, 10, 1, 1, nil}, {2, 10, 3, 5, nil}, {3, 31, 8, 3, nil}, {2, 100, 32, 31, nil}, {1, 700, 255, 7, nil},
		{2, 1100, 256, 64, nil}, {1, 2000, 600, 513, nil}, {2, 40, 40, 4, nil}, {2, 40, 50, 4, nil},
		{2, 96, 32, 8, func(x []float32) { // ties: the gradient is largest at the threshold
			for i := range x {
				x[i] = float32(math.Round(float64(x[i])))
			}
		}},
		{2, 96, 16, 5, func(x []float32) { // from far above the threshold to the largest numbers
			for i := range x {
				x[i] *= []float32{1, 30, 1e30, 2e38 / 6}[i%4]
			}
		}},
		{2, 20, 4, 4, func(x []float32) { // windows of K tokens have no threshold, and CausalSelect writes this number
			for i := range x {
				x[i] = -3.4e38
			}
		}},
		{1, 64, 16, 4, func(x []float32) { // descending: no token passes
			for i := range x {
				x[i] = -float32(i)
			}
		}},
	} {
		t.Run(fmt.Sprintf("%d_%d_%d_%d", test.b, test.n, test.window, test.k), func(t *testing.T) {
			gpu := gputest.New(t)
			logits := normal(3, test.b*test.n)
			if test.change != nil {
				test.change(logits)
			}
			forward, err := NewCausalSelect(gpu.Dev, CausalSelectConfig{})
			require.NoError(t, err)
			defer forward.Close()
			topK, err := NewSelect(gpu.Dev, SelectConfig{})
			require.NoError(t, err)
			defer topK.Close()
			s, err := NewCausalSelectBackward(gpu.Dev, CausalSelectConfig{})
			require.NoError(t, err)
			defer s.Close()
			windows := (test.n + test.window - 1) / test.window
			slots := test.b * windows * test.k
			indices, valid := ref.CausalSelect(logits, test.b, test.n, test.window, test.k)
			dscores := scaled(normal(4, slots), 3)
			want := ref.CausalSelectBackward(logits, indices, valid, dscores, test.b, test.n, test.window, test.k)
			naive := ref.CausalSelectBackward32(logits, indices, valid, dscores, test.b, test.n, test.window, test.k)
			for i, v := range valid {
				if v == 0 {
					dscores[i] = float32(math.NaN()) // empty slots are not read
				}
			}
			a := CausalSelectArgs{
				Logits: gpu.In("logits", logits), Values: gpu.Out("values", 4*slots), Valid: gpu.Out("valid", 4*slots), Indices: gpu.Out("indices", 4*slots),
				QueryValid: gpu.Out("query valid", 4*slots), Thresholds: gpu.Out("thresholds", 4*test.b*windows), B: test.b, N: test.n, Window: test.window, K: test.k,
			}
			perWindow := SelectArgs{
				Logits: a.Logits, Indices: gpu.Out("top k", 4*slots), Valid: a.Valid, Values: a.Values, Rows: test.b, N: test.n, K: test.k, BlockSize: test.window,
			}
			back := CausalSelectBackwardArgs{
				Logits: a.Logits, Thresholds: a.Thresholds, Indices: a.Indices, QueryValid: a.QueryValid, DScores: gpu.In("dscores", dscores),
				DLogits: gpu.Out("dlogits", 4*test.b*test.n), B: test.b, N: test.n, Window: test.window, K: test.k,
			}
			inPlace := back
			inPlace.Logits = gpu.InOut("logits and dlogits", logits)
			inPlace.DLogits = inPlace.Logits
			gpu.Run(func(list *vk.CommandList) error {
				return firstError(topK.Record(list, perWindow), forward.Record(list, a), s.Record(list, back), s.Record(list, inPlace))
			})
			assert.NoError(t, ref.MaxErr(gpu.Float32("dlogits"), want).Within(ref.Bound(naive, want, 1e-6)))
			assert.Equal(t, gpu.Float32("dlogits"), gpu.Float32("logits and dlogits"))
			got := gpu.Float32("dlogits")
			for i, v := range want {
				if v == 0 { // not selected, or far above the threshold
					require.InDelta(t, 0, got[i], 1e-15, "element %d", i)
				}
			}
		})
	}
}

func TestCausalSelectBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	s, err := NewCausalSelectBackward(gpu.Dev, CausalSelectConfig{})
	require.NoError(t, err)
	logits, lists, thresholds, out := gpu.In("logits", normal(1, 20)), gpu.In("lists", normal(2, 12)), gpu.In("thresholds", normal(3, 6)), gpu.Out("out", 80)
	good := CausalSelectBackwardArgs{Logits: logits, Thresholds: thresholds, Indices: lists, QueryValid: lists, DScores: lists, DLogits: out, B: 2, N: 10, Window: 4, K: 2}
	assertRejected(t, gpu, good, s.Record, []badArgs[CausalSelectBackwardArgs]{
		{"B is 0, want 1", func(a *CausalSelectBackwardArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *CausalSelectBackwardArgs) { a.N = 0 }},
		{"Window is 0, want 1", func(a *CausalSelectBackwardArgs) { a.Window = 0 }},
		{"K is -2, want 1", func(a *CausalSelectBackwardArgs) { a.K = -2 }},
		{"logits has 48 bytes, want [B 2, N 10] f32, 80 bytes", func(a *CausalSelectBackwardArgs) { a.Logits = lists }},
		{"thresholds is missing, want [B 2, M 3] f32, 24 bytes", func(a *CausalSelectBackwardArgs) { a.Thresholds = vk.Range{} }},
		{"indices is missing, want [B 2, M 3, K 2] i32", func(a *CausalSelectBackwardArgs) { a.Indices = vk.Range{} }},
		{"query valid has 80 bytes, want [B 2, M 3, K 2] u32", func(a *CausalSelectBackwardArgs) { a.QueryValid = logits }},
		{"dscores is missing, want [B 2, M 3, K 2] f32", func(a *CausalSelectBackwardArgs) { a.DScores = vk.Range{} }},
		{"dlogits has 48 bytes, want [B 2, N 10] f32, 80 bytes", func(a *CausalSelectBackwardArgs) { a.DLogits = lists }},
	})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}
