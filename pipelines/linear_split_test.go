package pipelines

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A part of a split product without inputs reads nothing. x and w end at unmapped memory here: each is at the end of an
// allocation, and CPU drivers have mapped the allocation before it, which is freed, at the following addresses. A read
// past the end crashes the process there. On a GPU the test shows only that the sums are right.
func TestLinearSplitEmptyParts(t *testing.T) {
	const in, out, rows, split, size = 256, 16, 16, 64, 40 << 20
	for _, p := range linearPrecisions(t) {
		c := linearCase{LinearConfig: LinearConfig{In: in, Out: out, Precision: p, Split: split}, batch: 1, inRows: rows, rows: rows, outRows: rows}
		data := c.data()
		data.RoundOperands = p.round
		gpu := gputest.New(t)
		atEnd := func(bytes []byte) vk.Range {
			before, err := gpu.Dev.NewBuffer("before", size)
			require.NoError(t, err)
			b, err := gpu.Dev.NewBuffer("end", size)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, b.Close()) })
			require.NoError(t, before.Close())
			r := b.Range().Slice(size-uint64(len(bytes)), uint64(len(bytes)))
			require.NoError(t, gpu.Dev.Upload(t.Context(), vk.Transfer{Range: r, Data: bytes}))
			return r
		}
		args := LinearArgs{
			X: atEnd(rawBytes(data.X)), W: atEnd(rawBytes(p.encodeWeights(data.W, in))), Y: gpu.Out("y", 4*rows*out), Batch: 1, Rows: rows,
			Scratch: gpu.Out("scratch", int(LinearScratch(c.LinearConfig, rows))),
		}
		l := newLinear(t, gpu, c.LinearConfig, "")
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		want := ref.Linear(data)
		assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.Linear32(data), want, 1e-6)))
	}
}
