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

func TestEmbed(t *testing.T) {
	for _, test := range []struct {
		rows, v, c  int
		bytes, wild bool
	}{
		{1, 1, 1, false, false}, {7, 5, 3, false, true}, {64, 256, 4, true, false}, {65, 100, 12, true, true}, {33, 1000, 31, false, true},
		{300, 256, 255, true, false}, {5, 9, 512, false, false}, {9, 3, 1028, false, true}, {70001, 256, 4, true, false}, {3, 300, 1031, true, false},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gpu := gputest.New(t)
			rng := rand.New(rand.NewPCG(1, uint64(test.rows)))
			ids, small := make([]int32, test.rows), make([]uint8, test.rows)
			for i := range ids {
				ids[i] = int32(rng.IntN(min(test.v, 256)))
				if test.wild && i%3 == 0 {
					ids[i] = []int32{-1, int32(test.v), math.MinInt32, math.MaxInt32}[i/3%4]
					if test.bytes {
						ids[i] = int32(test.v + i%50)
					}
				}
				small[i] = uint8(ids[i])
			}
			table := normal(2, test.v*test.c)
			e, err := NewEmbed(gpu.Dev, EmbedConfig{C: test.c, V: test.v, ByteIDs: test.bytes})
			require.NoError(t, err)
			defer e.Close()
			a := EmbedArgs{Table: gpu.In("table", table), Y: gpu.Out("y", 4*test.rows*test.c), InvalidIDs: gpu.InOut("bad", []uint32{0}), Rows: test.rows}
			if test.bytes {
				a.IDs = gpu.In("ids", small)
			} else {
				a.IDs = gpu.In("ids", ids)
			}
			gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
			want, bad := ref.Embed(ids, table, test.v, test.c)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(0))
			assert.Equal(t, []uint32{uint32(bad)}, gpu.Uint32("bad"))
		})
	}
}

func TestEmbedBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewEmbed(gpu.Dev, EmbedConfig{V: 3})
	assert.ErrorContains(t, err, "C is 0, want 1")
	_, err = NewEmbed(gpu.Dev, EmbedConfig{C: 3})
	assert.ErrorContains(t, err, "V is 0, want 1")
	e, err := NewEmbed(gpu.Dev, EmbedConfig{C: 4, V: 10})
	require.NoError(t, err)
	defer e.Close()
	ids, table, y, bad := gpu.In("ids", make([]int32, 3)), gpu.In("table", normal(1, 40)), gpu.Out("y", 48), gpu.InOut("bad", []uint32{0})
	good := EmbedArgs{IDs: ids, Table: table, Y: y, InvalidIDs: bad, Rows: 3}
	for _, test := range []struct {
		want   string
		change func(*EmbedArgs)
	}{
		{"Rows is 0, want 1", func(a *EmbedArgs) { a.Rows = 0 }},
		{"ids is missing, want [Rows 3] i32, 12 bytes", func(a *EmbedArgs) { a.IDs = vk.Range{} }},
		{"table has 48 bytes, want [V 10, C 4] f32, 160 bytes", func(a *EmbedArgs) { a.Table = y }},
		{"y has 160 bytes, want [Rows 3, C 4] f32, 48 bytes", func(a *EmbedArgs) { a.Y = table }},
		{"bad is missing", func(a *EmbedArgs) { a.InvalidIDs = vk.Range{} }},
		{"bad has 12 bytes, want [Counts 1] u32, 4 bytes", func(a *EmbedArgs) { a.InvalidIDs = ids }},
	} {
		a := good
		test.change(&a)
		assertRecordError(t, gpu, test.want, func(list *vk.CommandList) error { return e.Record(list, a) })
	}
}
