package pipelines

import (
	"cmp"
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

// rotaryCase is a config with sizes. Its data is the same every time.
type rotaryCase struct {
	RotaryConfig
	lists, rows, routes, route, first int

	table                 int // positions of the table
	positions, valid, toY bool
	slice                 int // elements before the first head that are not part of x, which starts and ends inside of rows
}

func (c rotaryCase) String() string {
	return fmt.Sprintf("%d of %d, strides %d %d, %d lists of %d, route %d of %d, from %d, %t %t %t %d", c.Heads, c.DimHead, c.Stride, c.HeadStride,
		c.lists, c.rows, c.route, c.routes, c.first, c.positions, c.valid, c.toY, c.slice)
}

// data returns the arguments of the CPU reference. Some positions are not in the table.
func (c rotaryCase) data() ref.RotaryArgs {
	r := rand.New(rand.NewPCG(3, uint64(c.rows)))
	a := ref.RotaryArgs{Heads: c.Heads, DimHead: c.DimHead, Stride: c.Stride, HeadStride: c.HeadStride, Lists: c.lists, Rows: c.rows,
		Routes: c.routes, Route: c.route, First: c.first, Limit: (c.table + 255) / 256 * 256}
	headStride := cmp.Or(c.HeadStride, c.DimHead)
	stride := cmp.Or(c.Stride, c.Heads*headStride)
	elements := c.lists * c.rows * stride
	if c.slice > 0 {
		elements -= stride - (c.Heads-1)*headStride - c.DimHead
	}
	a.X = normal(1, elements)
	for slot := range c.lists * c.rows * max(c.routes, 1) {
		if c.positions {
			bad := []int32{-1, math.MinInt32, math.MaxInt32, int32(a.Limit)}
			position := int32(r.IntN(a.Limit))
			switch {
			case slot%7 == 3:
				position = bad[slot/7%4]
			case slot%7 == 4:
				position = int32(a.Limit - 1)
			}
			a.Positions = append(a.Positions, position)
		}
		if c.valid {
			a.Valid = append(a.Valid, []uint8{1, 1, 0, 1, 0}[slot%5])
		}
	}
	return a
}

// run rotates on the device.
func (c rotaryCase) run(t *testing.T, a ref.RotaryArgs) []float32 {
	t.Helper()
	gpu := gputest.New(t)
	r, err := NewRotary(gpu.Dev, c.RotaryConfig)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	args := RotaryArgs{Table: gpu.In("table", RotaryTable(c.table, c.DimHead)), Lists: c.lists, Rows: c.rows, Routes: c.routes, Route: c.route, First: c.first}
	before := normal(2, c.slice)
	whole := append(before, a.X...)
	part := func(r vk.Range) vk.Range { return r.Slice(4*uint64(c.slice), 4*uint64(len(a.X))) }
	out := "x"
	if c.toY {
		out = "y" // starts with the contents of x, so that unchanged elements are equal
		args.X, args.Y = part(gpu.In("x", whole)), part(gpu.InOut("y", whole))
	} else {
		args.X = part(gpu.InOut("x", whole))
	}
	// Lists have the alignment of 4 bytes that they need.
	if c.positions {
		args.Positions = gpu.In("positions", append([]int32{0}, a.Positions...)).Slice(4, 4*uint64(len(a.Positions)))
	}
	if c.valid {
		valid := []uint32{0}
		for i, v := range a.Valid {
			valid = append(valid, uint32(v)<<(i%32)) // any word except 0
		}
		args.Valid = gpu.In("valid", valid).Slice(4, 4*uint64(len(a.Valid)))
	}
	gpu.Run(func(list *vk.CommandList) error { return r.Record(list, args) })
	got := gpu.Float32(out)
	assert.Equal(t, before, got[:c.slice])
	return got[c.slice:]
}

func TestRotary(t *testing.T) {
	for _, c := range []rotaryCase{
		{RotaryConfig: RotaryConfig{Heads: 1, DimHead: 2}, lists: 1, rows: 1, table: 1},
		{RotaryConfig: RotaryConfig{Heads: 1, DimHead: 2}, lists: 1, rows: 255, table: 256},
		{RotaryConfig: RotaryConfig{Heads: 1, DimHead: 8}, lists: 1, rows: 257, first: 1000, table: 1257},
		{RotaryConfig: RotaryConfig{Heads: 8, DimHead: 64}, lists: 2, rows: 31, table: 31},
		{RotaryConfig: RotaryConfig{Heads: 5, DimHead: 24}, lists: 2, rows: 37, first: 999800, table: 1000000},
		{RotaryConfig: RotaryConfig{Heads: 4, DimHead: 16}, lists: 3, rows: 33, table: 1 << 20, positions: true, valid: true},
		{RotaryConfig: RotaryConfig{Heads: 3, DimHead: 6}, lists: 3, rows: 17, routes: 2, route: 1, table: 300, positions: true, valid: true},
		{RotaryConfig: RotaryConfig{Heads: 2, DimHead: 10}, lists: 2, rows: 67, routes: 4, route: 2, table: 1000, positions: true},
		{RotaryConfig: RotaryConfig{Heads: 2, DimHead: 12}, lists: 2, rows: 67, first: 5, table: 1000, valid: true, toY: true},
		{RotaryConfig: RotaryConfig{Heads: 9, DimHead: 128}, lists: 2, rows: 11, table: 1000, positions: true, valid: true, toY: true},
		{RotaryConfig: RotaryConfig{Heads: 4, DimHead: 16, Stride: 128, HeadStride: 32}, lists: 2, rows: 19, table: 500, positions: true, valid: true},
		{RotaryConfig: RotaryConfig{Heads: 4, DimHead: 16, Stride: 130, HeadStride: 32}, lists: 2, rows: 19, table: 500, positions: true, slice: 3},
		{RotaryConfig: RotaryConfig{Heads: 3, DimHead: 8, Stride: 72}, lists: 2, rows: 19, table: 500, valid: true, slice: 24},
		{RotaryConfig: RotaryConfig{Heads: 3, DimHead: 8, HeadStride: 12}, lists: 2, rows: 19, table: 500, toY: true},
		{RotaryConfig: RotaryConfig{Heads: 300, DimHead: 32}, lists: 1, rows: 3, table: 3},
		{RotaryConfig: RotaryConfig{Heads: 1, DimHead: 1030}, lists: 1, rows: 5, table: 5},
		{RotaryConfig: RotaryConfig{Heads: 1, DimHead: 258}, lists: 1, rows: 65600, table: 65600}, // more workgroups than many devices allow in x
	} {
		if gputest.Reduced() && c.table != 256 && c.table != 300 && c.table != 500 {
			continue // CPU drivers compile kernels for 4 s for all cases
		}
		t.Run(c.String(), func(t *testing.T) {
			a := c.data()
			got, want, naive := c.run(t, a), ref.Rotary(a), ref.Rotary32(a)
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 2e-7)))
			for i, x := range a.X {
				if want[i] == float64(x) { // an empty slot, a gap between heads, or position 0
					require.Equal(t, x, got[i], "element %d must be unchanged", i)
				}
			}
		})
	}
}

// The bits do not depend on whether positions are computed or in memory, on whether the rotation is in place, or on the
// other lists.
func TestRotaryBits(t *testing.T) {
	c := rotaryCase{RotaryConfig: RotaryConfig{Heads: 6, DimHead: 40}, lists: 3, rows: 29, first: 70000, table: 70100}
	a := c.data()
	first := c.run(t, a)
	for range c.lists {
		for r := range c.rows {
			a.Positions = append(a.Positions, int32(c.first+r))
		}
	}
	c.first, a.First, c.positions = 0, 0, true
	assert.Equal(t, first, c.run(t, a))
	c.toY = true
	assert.Equal(t, first, c.run(t, a))
	// Another table, and other positions of one list: the other lists do not change.
	c.table = 1 << 19
	for i := range c.rows {
		a.Positions[c.rows+i] = int32(11 * i)
	}
	got, row := c.run(t, a), c.Heads*c.DimHead
	assert.Equal(t, first[:c.rows*row], got[:c.rows*row])
	assert.NotEqual(t, first[c.rows*row:][:c.rows*row], got[c.rows*row:][:c.rows*row])
	assert.Equal(t, first[2*c.rows*row:], got[2*c.rows*row:])
}

// The error of a sum of angles is a few units in the last place of 1 at any position.
func TestRotaryTable(t *testing.T) {
	const dimHead, half = 64, 32
	table := RotaryTable(1<<20, dimHead)
	require.Len(t, table, (256+4096)*dimHead)
	for _, position := range []int{0, 1, 255, 256, 257, 65535, 99999, 1000000, 1<<20 - 1} {
		lo, hi := table[position%256*dimHead:], table[(256+position/256)*dimHead:]
		for d := range half {
			angle := float64(position) * math.Pow(10000, -float64(d)/half)
			cos, sin := lo[d]*hi[d]-lo[half+d]*hi[half+d], lo[half+d]*hi[d]+lo[d]*hi[half+d]
			assert.InDelta(t, math.Cos(angle), cos, 2e-7, "position %d, pair %d", position, d)
			assert.InDelta(t, math.Sin(angle), sin, 2e-7, "position %d, pair %d", position, d)
		}
	}
	assert.Len(t, RotaryTable(1, 2), 257*2)
	assert.Len(t, RotaryTable(256, 2), 257*2)
	assert.Len(t, RotaryTable(257, 2), 258*2)
	for _, bad := range [][2]int{{0, 8}, {-1, 8}, {5, 0}, {5, 7}, {5, -2}} {
		assert.Nil(t, RotaryTable(bad[0], bad[1]))
	}
}

func TestRotaryBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	for want, c := range map[string]RotaryConfig{
		"Heads is 0, want 1":                                                  {DimHead: 8},
		"DimHead is -2, want 1":                                               {Heads: 1, DimHead: -2},
		"DimHead is 0, want 1":                                                {Heads: 1},
		"DimHead is 7, want an even number":                                   {Heads: 1, DimHead: 7},
		"HeadStride is -1, want 1":                                            {Heads: 1, DimHead: 8, HeadStride: -1},
		"HeadStride is 7, want at least DimHead 8":                            {Heads: 1, DimHead: 8, HeadStride: 7},
		"Stride is 23, want 24 (for all heads) to 1073741823":                 {Heads: 3, DimHead: 8, Stride: 23},
		"Stride is -8, want 8 (for all heads) to 1073741823":                  {Heads: 1, DimHead: 8, Stride: -8},
		"Stride is 1073741824, want 8 (for all heads) to 1073741823":          {Heads: 1, DimHead: 8, Stride: 1 << 30},
		"Stride is 1073741824, want 1073741824 (for all heads) to 1073741823": {Heads: 1 << 27, DimHead: 8},
	} {
		_, err := NewRotary(dev, c)
		assert.ErrorContains(t, err, "pipelines: Rotary: "+want)
	}
}

func TestRotaryBadInput(t *testing.T) {
	gpu := gputest.New(t)
	r, err := NewRotary(gpu.Dev, RotaryConfig{Heads: 2, DimHead: 8, Stride: 20})
	require.NoError(t, err)
	defer r.Close()
	big := gpu.InOut("big", make([]float32, 4000))
	good := RotaryArgs{X: gpu.InOut("x", make([]float32, 2*3*20)), Positions: gpu.In("positions", make([]int32, 12)),
		Valid: gpu.In("valid", make([]uint32, 12)), Table: gpu.In("table", RotaryTable(300, 8)), Lists: 2, Rows: 3, Routes: 2}
	assertRejected(t, gpu, good, r.Record, []badArgs[RotaryArgs]{
		{"Lists is 0, want 1", func(a *RotaryArgs) { a.Lists = 0 }},
		{"Rows is -3, want 1", func(a *RotaryArgs) { a.Rows = -3 }},
		{"Routes is -1, want 1", func(a *RotaryArgs) { a.Routes = -1 }},
		{"Route is 2, want 0 to 1", func(a *RotaryArgs) { a.Route = 2 }},
		{"Route is -1, want 0 to 1", func(a *RotaryArgs) { a.Route = -1 }},
		{"Lists*Rows is 4294967296, want 1", func(a *RotaryArgs) { a.Lists, a.Rows = 1<<16, 1<<16 }},
		{"Lists*Routes*Rows is 4294967296, want 1", func(a *RotaryArgs) { a.Lists, a.Rows, a.Routes = 1<<15, 1<<15, 4 }},
		{"x is missing, want [Lists 2, Rows 3, Stride 20] f32, 480 bytes", func(a *RotaryArgs) { a.X = vk.Range{} }},
		{"x has 460 bytes, want [Lists 2, Rows 3, Stride 20] f32, 464 to 480 bytes", func(a *RotaryArgs) { a.X = big.Slice(0, 460) }},
		{"x has 484 bytes, want [Lists 2, Rows 3, Stride 20] f32, 464 to 480 bytes", func(a *RotaryArgs) { a.X = big.Slice(0, 484) }},
		{"x starts at byte 268 of its buffer, want a multiple of 16", func(a *RotaryArgs) { a.X = big.Slice(12, 480) }},
		{"y has 460 bytes, want [Lists 2, Rows 3, Stride 20] f32, 464 to 480 bytes", func(a *RotaryArgs) { a.Y = big.Slice(0, 460) }},
		{"y starts at byte 260 of its buffer, want a multiple of 16", func(a *RotaryArgs) { a.Y = big.Slice(4, 480) }},
		{"positions has 44 bytes, want [Lists 2, Routes 2, Rows 3] i32, 48 bytes", func(a *RotaryArgs) { a.Positions = a.Positions.Slice(0, 44) }},
		{"positions starts at byte 258 of its buffer, want a multiple of 4", func(a *RotaryArgs) { a.Positions = big.Slice(2, 48) }},
		{"valid has 24 bytes, want [Lists 2, Routes 2, Rows 3] u32, 48 bytes", func(a *RotaryArgs) { a.Valid = a.Valid.Slice(0, 24) }},
		{"valid starts at byte 257 of its buffer, want a multiple of 4", func(a *RotaryArgs) { a.Valid = big.Slice(1, 48) }},
		{"table is missing, want [256 + ceil(positions / 256), 2, 4] f32", func(a *RotaryArgs) { a.Table = vk.Range{} }},
		{"table has 8192 bytes, want [256 + ceil(positions / 256), 2, 4] f32", func(a *RotaryArgs) { a.Table = big.Slice(0, 8192) }},
		{"table has 8228 bytes, want [256", func(a *RotaryArgs) { a.Table = big.Slice(0, 8228) }},
		{"table starts at byte 264", func(a *RotaryArgs) { a.Table = big.Slice(8, 8224) }},
		{"First is 1, want 0 with positions", func(a *RotaryArgs) { a.First = 1 }},
		{"First is -1, want 0 to 509: the table has 512 positions, a list has 3 rows", func(a *RotaryArgs) { a.Positions, a.First = vk.Range{}, -1 }},
		{"First is 510, want 0 to 509", func(a *RotaryArgs) { a.Positions, a.First = vk.Range{}, 510 }},
	})
	good.Y = big.Slice(0, 464)
	good.Positions, good.First = vk.Range{}, 509
	gpu.Run(func(list *vk.CommandList) error { return r.Record(list, good) })
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.NoError(t, (*Rotary)(nil).Close())
	assertRejected(t, gpu, good, r.Record, []badArgs[RotaryArgs]{{"closed", func(*RotaryArgs) {}}})
}

// 16-bit rows are rotated in float32 and rounded once.
func TestRotary16Bit(t *testing.T) {
	c := rotaryCase{RotaryConfig: RotaryConfig{Heads: 3, DimHead: 24}, lists: 2, rows: 37, table: 300}
	a := c.data()
	for _, p := range []DType{F16, BF16} {
		a.X = p.roundAll(a.X)
		want, naive := ref.Rotary(a), p.roundAll(ref.Rotary32(a))
		gpu := gputest.New(t)
		r, err := NewRotary(gpu.Dev, RotaryConfig{Heads: 3, DimHead: 24, Precision: p})
		require.NoError(t, err)
		defer r.Close()
		args := RotaryArgs{X: gpu.InOut("x", encode(p, a.X)), Table: gpu.In("table", RotaryTable(300, 24)), Lists: 2, Rows: 37}
		gpu.Run(func(t *vk.CommandList) error { return r.Record(t, args) })
		assert.NoError(t, ref.MaxErr(decode(p, gpu, "x"), want).Within(ref.Bound(naive, want, 1e-6)), p)
	}
	for _, bad := range []RotaryConfig{{Heads: 1, DimHead: 12, Precision: F16}, {Heads: 1, DimHead: 8, Stride: 10, Precision: BF16}} {
		_, err := NewRotary(gputest.Device(t), bad)
		assert.ErrorContains(t, err, "want multiples of 8, 4 and 4 with Precision")
	}
	_, err := NewRotary(gputest.Device(t), RotaryConfig{Heads: 1, DimHead: 8, Precision: 5})
	assert.ErrorContains(t, err, "want f32, f16 or bf16")
}
