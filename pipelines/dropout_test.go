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

func TestDropout(t *testing.T) {
	for _, test := range []struct {
		count int
		first uint64
		rate  float64
		layer uint32
		item  uint64
		from  uint32 // number of the first item
	}{
		{1, 0, 0.5, 0, 0, 0}, {3, 0, 0.1, 1, 0, 9}, {4, 4, 0.9, 2, 8, 0}, {5, 3, 0.5, 3, 4, 1}, {2, 1, 0.5, 1 << 31, 0, 0}, {1023, 8, 0.1, 4, 100, 3},
		{1024, 0, 0.2, 5, 1024, 7}, {1025, 2, 0.3, 6, 0, 0}, {70001, 0, 0.1, 7, 1 << 32, 1<<31 - 1}, {70001, 1<<34 - 4096, 1.0 / 3, 8, 0, 0},
		{5003, 1<<34 - 6, 0.25, 9, 1 << 20, 1 << 20}, {1000, 1 << 62, 0.5, 10, 1 << 33, 1<<29 - 3}, {1000, 0, 0, 11, 0, 0}, {1000, 0, 1 - 0x1p-32, 12, 0, 0},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			gpu := gputest.New(t)
			d, err := NewDropout(gpu.Dev, DropoutConfig{})
			require.NoError(t, err)
			defer d.Close()
			r := ref.DropoutArgs{X: normal(1, test.count), Seed: 0xfedcba9876543210, Step: 0x87654321, Layer: test.layer, First: test.first + test.item*uint64(test.from), Rate: test.rate}
			want, naive := ref.Dropout(r), ref.Dropout32(r)
			for i, v := range want {
				if v == 0 {
					r.X[i] = float32(math.NaN()) // what is dropped has no part in the result
				}
			}
			align := uint64(vec4Align)
			if test.first%4 != 0 {
				align = wordAlign
			}
			a := DropoutArgs{
				X: inputAt(gpu, "x", r.X, align), Y: outputAt(gpu, "y", test.count, align), State: gpu.In("state", []uint32{0x76543210, 0xfedcba98, 0x87654321, test.from}),
				Count: test.count, First: test.first, Rate: test.rate, Layer: test.layer, Item: test.item,
			}
			inPlace := a
			inPlace.X = gpu.InOut("x and y", r.X)
			inPlace.Y = inPlace.X
			gpu.Run(func(list *vk.CommandList) error { return firstError(d.Record(list, a), d.Record(list, inPlace)) })
			got := outputFrom(t, gpu, "y", align)
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-7)))
			assert.Equal(t, got, gpu.Float32("x and y"))
			for i, v := range want {
				require.Equal(t, v == 0, got[i] == 0, "element %d", i)
			}
		})
	}
}

// An element is kept if its word is at least the rate: at the rate of a word itself, and not just above.
func TestDropoutThreshold(t *testing.T) {
	gpu := gputest.New(t)
	d, err := NewDropout(gpu.Dev, DropoutConfig{})
	require.NoError(t, err)
	defer d.Close()
	word := ref.Philox([4]uint32{1, 2, 0, 0}, [2]uint32{3, 4})[0]
	x, state := gpu.In("x", []float32{1}), gpu.In("state", []uint32{3, 4, 1, 0})
	rates := map[string]float64{"at": float64(word) * 0x1p-32, "above": (float64(word) + 1.0/1024) * 0x1p-32, "below": (float64(word) - 1.0/1024) * 0x1p-32}
	y := map[string]vk.Range{}
	for name := range rates {
		y[name] = gpu.Out("y "+name, 4)
	}
	gpu.Run(func(list *vk.CommandList) error {
		for name, rate := range rates {
			if err := d.Record(list, DropoutArgs{X: x, Y: y[name], State: state, Count: 1, Rate: rate, Layer: 2}); err != nil {
				return err
			}
		}
		return nil
	})
	assert.NotEqual(t, []float32{0}, gpu.Float32("y at"))
	assert.NotEqual(t, []float32{0}, gpu.Float32("y below"))
	assert.Equal(t, []float32{0}, gpu.Float32("y above"))
}

func TestDropoutBadInput(t *testing.T) {
	gpu := gputest.New(t)
	d, err := NewDropout(gpu.Dev, DropoutConfig{})
	require.NoError(t, err)
	x, y, state := gpu.In("x", normal(1, 12)), gpu.Out("y", 48), gpu.In("state", make([]uint32, 4))
	good := DropoutArgs{X: x, Y: y, State: state, Count: 12, Rate: 0.1}
	assertRejected(t, gpu, good, d.Record, []badArgs[DropoutArgs]{
		{"Count is 0, want 1", func(a *DropoutArgs) { a.Count = 0 }},
		{"Rate is -0.1, want 0 to 1 - 2^-32", func(a *DropoutArgs) { a.Rate = -0.1 }},
		{"Rate is 1, want 0 to 1 - 2^-32", func(a *DropoutArgs) { a.Rate = 1 }},
		{"Rate is NaN, want 0 to 1 - 2^-32", func(a *DropoutArgs) { a.Rate = math.NaN() }},
		{"First is 9223372036854775809, want at most 2^63", func(a *DropoutArgs) { a.First = 1<<63 + 1 }},
		{"Item is 6, want a multiple of 4", func(a *DropoutArgs) { a.Item = 6 }},
		{"Item is 8589934596, want a multiple of 4, at most 2^33", func(a *DropoutArgs) { a.Item = 1<<33 + 4 }},
		{"x has 16 bytes, want [Count 12] f32, 48 bytes", func(a *DropoutArgs) { a.X = state }},
		{"y is missing, want [Count 12] f32, 48 bytes", func(a *DropoutArgs) { a.Y = vk.Range{} }},
		{"x starts at byte 260 of its buffer, want a multiple of 16", func(a *DropoutArgs) { a.X, a.Y, a.Count = x.Slice(4, 16), y.Slice(0, 16), 4 }},
		{"state has 48 bytes, want [Words 4] u32, 16 bytes", func(a *DropoutArgs) { a.State = x }},
	})
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
}
