package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/require"
)

// What an earlier dispatch left in shared memory is in nobody's result: a selection that fills it with the largest keys comes before one whose
// sorts take more slots than it has entries. Drivers, of CPUs too, hand shared memory on as it is.
func TestSelectStaleSharedMemory(t *testing.T) {
	const rows = 64 // more than run at once on a CPU
	s, err := NewSelect(gputest.Device(t), SelectConfig{Sorted: true})
	require.NoError(t, err)
	defer s.Close()
	for _, size := range []struct{ n, k int }{{3, 2}, {600, 5}, {1023, 700}, {2000, 600}} {
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			c := selectCase{rows: rows, n: size.n, k: size.k, logits: func(i int) float32 { return -1 - float32(i*7919%10007) }}
			logits, mask := c.input()
			indices, filled, values := c.want(logits, mask, true)
			gpu := gputest.New(t)
			large := make([]float32, rows*1024)
			for i := range large {
				large[i] = 1e30
			}
			bytes := 4 * rows * size.k
			a := SelectArgs{
				Logits: gpu.In("logits", logits), Indices: gpu.Out("indices", bytes), Valid: gpu.Out("valid", bytes), Values: gpu.Out("values", bytes),
				Rows: rows, N: size.n, K: size.k,
			}
			if scratch := s.Scratch(rows, size.n, size.k, 0); scratch > 0 {
				a.Scratch = selectMemory(t, gpu, scratch)
			}
			first := a // its results are in the way of the second one's, which so comes after it
			first.Logits, first.N, first.Scratch = gpu.In("large", large), 1024, vk.Range{}
			gpu.Run(func(list *vk.CommandList) error {
				if err := s.Record(list, first); err != nil {
					return err
				}
				return s.Record(list, a)
			})
			same(t, "indices", indices, gpu.Int32("indices"))
			same(t, "filled", filled, gpu.Uint32("valid"))
			same(t, "values", values, gpu.Uint32("values"))
		})
	}
}
