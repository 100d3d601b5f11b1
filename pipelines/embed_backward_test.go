package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tokenIDs returns ids below v. Every second id is 0, and with outside every third one is outside of the vocabulary.
func tokenIDs(count, v int, byteIDs, outside bool) []int32 {
	rng := rand.New(rand.NewPCG(1, uint64(count)))
	limit := v
	if byteIDs {
		limit = min(v, 256)
	}
	ids := make([]int32, count)
	for i := range ids {
		if i%2 == 0 {
			ids[i] = int32(rng.IntN(limit))
		}
		if outside && i%3 == 0 {
			ids[i] = []int32{-1, int32(v), math.MinInt32, math.MaxInt32, int32(v + 1)}[i/3%5]
			if byteIDs {
				ids[i] = min(int32(v+i%50), 255)
			}
		}
	}
	return ids
}

// idRange makes an input of ids, as bytes or words.
func idRange(gpu *gputest.Harness, name string, ids []int32, byteIDs bool) vk.Range {
	if !byteIDs {
		return gpu.In(name, ids)
	}
	list := make([]uint8, len(ids))
	for i, id := range ids {
		list[i] = uint8(id)
	}
	return gpu.In(name, list)
}

func TestEmbedBackward(t *testing.T) {
	for _, test := range []struct {
		items, n, v, c   int
		byteIDs, outside bool
	}{
		{1, 1, 1, 1, false, false}, {2, 7, 5, 3, false, true}, {3, 255, 256, 4, true, false}, {2, 256, 255, 31, true, true}, {2, 257, 257, 33, false, true},
		{1, 1500, 256, 132, true, false}, {2, 700, 1, 128, true, true}, {3, 100, 1031, 6, false, true}, {2, 900, 2051, 5, false, true}, {1, 300, 65536, 2, false, true}, {2, 37, 512, 260, false, false},
	} {
		for _, add := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v add %v", test, add), func(t *testing.T) {
				if testing.Short() && (test.n != 257 || add) && (test.n != 1500 || !add) { // the latter has bytes, 750 of them zeros, and rows of vec4
					t.Skip("CPU drivers compile two kernels for each")
				}
				gpu := gputest.New(t)
				e, err := NewEmbedBackward(gpu.Dev, EmbedBackwardConfig{C: test.c, V: test.v, ByteIDs: test.byteIDs, Add: add})
				require.NoError(t, err)
				defer e.Close()
				ids, dy := tokenIDs(test.items*test.n, test.v, test.byteIDs, test.outside), normal(2, test.items*test.n*test.c)
				size := test.v * test.c
				a := EmbedBackwardArgs{
					IDs: idRange(gpu, "ids", ids, test.byteIDs), DY: gpu.In("dy", dy), Items: test.items, N: test.n,
					Scratch: gpu.Out("scratch", int(EmbedBackwardScratch(test.items, test.n, test.v))),
				}
				base := make([]float32, test.items*size)
				if add {
					base = normal(3, test.items*size)
					a.DTable = gpu.InOut("dtable", base)
				} else {
					a.DTable = gpu.Out("dtable", 4*test.items*size)
				}
				gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
				got := gpu.Float32("dtable")
				for item := range test.items {
					itemIDs, itemDy := ids[item*test.n:(item+1)*test.n], dy[item*test.n*test.c:(item+1)*test.n*test.c]
					want, naive := ref.EmbedBackward(itemIDs, itemDy, test.v, test.c), ref.EmbedBackward32(itemIDs, itemDy, test.v, test.c)
					for i, v := range base[item*size : (item+1)*size] {
						want[i] += float64(v)
						naive[i] += v
					}
					assert.NoError(t, ref.MaxErr(got[item*size:(item+1)*size], want).Within(ref.Bound(naive, want, 1e-6)), "item %d", item)
				}
			})
		}
	}
}

// The gradient of an item has the same bits wherever the item is, and in a batch of one.
func TestEmbedBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	const items, n, v, c = 3, 1001, 300, 36
	ids, dy := tokenIDs(n, v, false, true), normal(2, n*c)
	run := func(items int) []float32 {
		gpu := gputest.New(t)
		e, err := NewEmbedBackward(gpu.Dev, EmbedBackwardConfig{C: c, V: v})
		require.NoError(t, err)
		defer e.Close()
		var allIDs []int32
		var allDy []float32
		for range items {
			allIDs, allDy = append(allIDs, ids...), append(allDy, dy...)
		}
		a := EmbedBackwardArgs{
			IDs: gpu.In("ids", allIDs), DY: gpu.In("dy", allDy), DTable: gpu.Out("dtable", 4*items*v*c), Items: items, N: n,
			Scratch: gpu.Out("scratch", int(EmbedBackwardScratch(items, n, v))),
		}
		gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
		return gpu.Float32("dtable")
	}
	alone, all := run(1), run(items)
	for item := range items {
		assert.Equal(t, alone, all[item*v*c:(item+1)*v*c], "item %d", item)
	}
}

func TestEmbedBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]EmbedBackwardConfig{"C is 0, want 1": {V: 3}, "V is 0, want 1": {C: 3}, "V is 268435457, want 1 to 268435456": {C: 3, V: 1<<28 + 1}} {
		_, err := NewEmbedBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	e, err := NewEmbedBackward(gpu.Dev, EmbedBackwardConfig{C: 4, V: 10})
	require.NoError(t, err)
	ids, dy, dtable, scratch := gpu.In("ids", make([]int32, 6)), gpu.In("dy", normal(1, 24)), gpu.Out("dtable", 320), gpu.Out("scratch", 184)
	good := EmbedBackwardArgs{IDs: ids, DY: dy, DTable: dtable, Scratch: scratch, Items: 2, N: 3}
	assertRejected(t, gpu, good, e.Record, []badArgs[EmbedBackwardArgs]{
		{"Items is 0, want 1", func(a *EmbedBackwardArgs) { a.Items = 0 }},
		{"N is -1, want 1", func(a *EmbedBackwardArgs) { a.N = -1 }},
		{"Items*V is 4294967300, want 1", func(a *EmbedBackwardArgs) { a.Items, a.N = 429496730, 1 }},
		{"ids is missing, want [Items 2, N 3] i32, 24 bytes", func(a *EmbedBackwardArgs) { a.IDs = vk.Range{} }},
		{"dy has 24 bytes, want [Items 2, N 3, C 4] f32, 96 bytes", func(a *EmbedBackwardArgs) { a.DY = ids }},
		{"dtable has 96 bytes, want [Items 2, V 10, C 4] f32, 320 bytes", func(a *EmbedBackwardArgs) { a.DTable = dy }},
		{"scratch has 320 bytes, want EmbedBackwardScratch, 184 bytes", func(a *EmbedBackwardArgs) { a.Scratch = dtable }},
	})
	if gpu.Dev.Caps().CPU {
		const n = 500000
		long := EmbedBackwardArgs{
			IDs: gpu.In("long ids", make([]int32, n)), DY: gpu.In("long dy", make([]float32, 4*n)), DTable: dtable.Slice(0, 160), Items: 1, N: n,
			Scratch: gpu.Out("long scratch", int(EmbedBackwardScratch(1, n, 10))),
		}
		assertRecordError(t, gpu, "an item of 500000 tokens needs 129426 loop iterations", func(list *vk.CommandList) error { return e.Record(list, long) })
	}
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
}
