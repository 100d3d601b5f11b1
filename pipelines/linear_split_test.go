package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A part of a split product that has no inputs reads none. What it would read lies behind x and w, and here there is no memory: each is the
// end of an allocation, and what the allocation before it took, which CPU drivers have from the system at the addresses that follow, is given
// back. There a read ends the process; on a GPU it may, so that this test shows nothing there but that the sums are right.
func TestLinearSplitEmptyParts(t *testing.T) {
	const in, out, rows, split, far = 256, 16, 16, 64, 40 << 20
	for _, p := range precisions(t) {
		c := linearCase{LinearConfig: LinearConfig{In: in, Out: out, Precision: p, Split: split}, batch: 1, inRows: rows, rows: rows, outRows: rows}
		data := c.data()
		data.RoundOperands = p.round
		gpu := gputest.New(t)
		atEnd := func(bytes []byte) vk.Range {
			hole, err := gpu.Dev.NewBuffer("hole", far)
			require.NoError(t, err)
			b, err := gpu.Dev.NewBuffer("end", far)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, b.Close()) })
			require.NoError(t, hole.Close())
			r := b.Range().Slice(far-uint64(len(bytes)), uint64(len(bytes)))
			require.NoError(t, gpu.Dev.Upload(t.Context(), vk.Transfer{Range: r, Data: bytes}))
			return r
		}
		args := LinearArgs{
			X: atEnd(rawBytes(data.X)), W: atEnd(rawBytes(p.weights(data.W, in))), Y: gpu.Out("y", 4*rows*out), Batch: 1, Rows: rows,
			Scratch: gpu.Out("scratch", int(LinearScratch(c.LinearConfig, rows))),
		}
		l := openLinear(t, gpu, c.LinearConfig, -1)
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		want := ref.Linear(data)
		assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.Linear32(data), want, 1e-6)))
	}
}
