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
		rows, v, c          int
		byteIDs, outOfRange bool
	}{
		{1, 1, 1, false, false}, {7, 5, 3, false, true}, {64, 256, 4, true, false}, {65, 100, 12, true, true}, {33, 1000, 31, false, true},
		{300, 256, 255, true, false}, {5, 9, 512, false, false}, {9, 3, 1028, false, true}, {70001, 256, 4, true, false}, {3, 300, 1031, true, false},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gpu := gputest.New(t)
			rng := rand.New(rand.NewPCG(1, uint64(test.rows)))
			ids, byteIDs := make([]int32, test.rows), make([]uint8, test.rows)
			for i := range ids {
				ids[i] = int32(rng.IntN(min(test.v, 256)))
				if test.outOfRange && i%3 == 0 {
					ids[i] = []int32{-1, int32(test.v), math.MinInt32, math.MaxInt32}[i/3%4]
					if test.byteIDs {
						ids[i] = int32(test.v + i%50)
					}
				}
				byteIDs[i] = uint8(ids[i])
			}
			table := normal(2, test.v*test.c)
			e, err := NewEmbed(gpu.Dev, EmbedConfig{C: test.c, V: test.v, ByteIDs: test.byteIDs})
			require.NoError(t, err)
			defer e.Close()
			a := EmbedArgs{Table: gpu.In("table", table), Y: gpu.Out("y", 4*test.rows*test.c), InvalidIDs: gpu.InOut("invalid ids", []uint32{0}), Rows: test.rows}
			if test.byteIDs {
				a.IDs = gpu.In("ids", byteIDs)
			} else {
				a.IDs = gpu.In("ids", ids)
			}
			gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
			want, invalid := ref.Embed(ids, table, test.v, test.c)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(0))
			assert.Equal(t, []uint32{uint32(invalid)}, gpu.Uint32("invalid ids"))
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
	ids, table, y, invalid := gpu.In("ids", make([]int32, 3)), gpu.In("table", normal(1, 40)), gpu.Out("y", 48), gpu.InOut("invalid ids", []uint32{0})
	good := EmbedArgs{IDs: ids, Table: table, Y: y, InvalidIDs: invalid, Rows: 3}
	assertRejected(t, gpu, good, e.Record, []badArgs[EmbedArgs]{
		{"Rows is 0, want 1", func(a *EmbedArgs) { a.Rows = 0 }},
		{"ids is missing, want [Rows 3] i32, 12 bytes", func(a *EmbedArgs) { a.IDs = vk.Range{} }},
		{"table has 48 bytes, want [V 10, C 4] f32, 160 bytes", func(a *EmbedArgs) { a.Table = y }},
		{"y has 160 bytes, want [Rows 3, C 4] f32, 48 bytes", func(a *EmbedArgs) { a.Y = table }},
		{"invalid ids is missing", func(a *EmbedArgs) { a.InvalidIDs = vk.Range{} }},
		{"invalid ids has 12 bytes, want [Counts 1] u32, 4 bytes", func(a *EmbedArgs) { a.InvalidIDs = ids }},
	})
}
