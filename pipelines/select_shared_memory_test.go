package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/require"
)

// Results do not depend on uninitialised shared memory, which drivers do not clear. A selection fills it with the
// largest keys; the next one sorts more slots than it has entries.
func TestSelectUninitialisedSharedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	const rows = 64 // more workgroups than a CPU runs concurrently
	s, err := NewSelect(gputest.Device(t), SelectConfig{Sorted: true})
	require.NoError(t, err)
	defer s.Close()
	for _, size := range []struct{ n, k int }{{3, 2}, {600, 5}, {1023, 700}, {2000, 600}} {
		if gputest.Reduced() && size.n > 600 {
			continue
		}
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			c := selectCase{rows: rows, n: size.n, k: size.k, logits: func(i int) float32 { return -1 - float32(i*7919%10007) }}
			logits, mask := c.input()
			indices, valid, values := c.want(logits, mask, true)
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
				a.Scratch = guardedScratch(t, gpu, scratch)
			}
			first := a // writes the same ranges, so that the second runs after it
			first.Logits, first.N, first.Scratch = gpu.In("large", large), 1024, vk.Range{}
			gpu.Run(func(list *vk.CommandList) error { return firstError(s.Record(list, first), s.Record(list, a)) })
			assertSameSlots(t, "indices", indices, gpu.Int32("indices"))
			assertSameSlots(t, "valid", valid, gpu.Uint32("valid"))
			assertSameSlots(t, "values", values, gpu.Uint32("values"))
		})
	}
}
