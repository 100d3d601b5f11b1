package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLayerNorm(t *testing.T) {
	for _, size := range []struct{ rows, c, period int }{
		{1, 1, 0}, {1, 3, 1}, {5, 4, 0}, {7, 31, 3}, {31, 32, 0}, {32, 33, 5}, {33, 48, 4}, {63, 64, 100}, {64, 127, 0}, {65, 128, 65},
		{13, 509, 0}, {101, 512, 7}, {3, 2048, 2}, {2, 4099, 1}, {70000, 4, 0}, {257, 4, 64},
	} {
		if testing.Short() && size.c != 31 && size.c != 33 && size.c != 512 && size.rows != 257 {
			continue // CPU drivers compile a kernel for each
		}
		t.Run(fmt.Sprintf("%dx%d_%d", size.rows, size.c, size.period), func(t *testing.T) {
			gpu := gputest.New(t)
			x := normal(1, size.rows*size.c)
			setSpecialRows(x, size.rows, size.c)
			r := ref.LayerNormArgs{X: x, Weight: normal(2, size.c), Bias: normal(3, size.c), Rows: size.rows, C: size.c, Period: size.period}
			n, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: size.c, Add: size.period > 0})
			require.NoError(t, err)
			defer n.Close()
			a := LayerNormArgs{
				X: gpu.In("x", x), Weight: gpu.In("weight", r.Weight), Bias: gpu.In("bias", r.Bias), Y: gpu.Out("y", 4*len(x)),
				Rows: size.rows, Period: size.period,
			}
			if size.period > 0 {
				r.Add = normal(4, size.period*size.c)
				a.Add = gpu.In("add", r.Add)
			}
			gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
			want := ref.LayerNorm(r)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.LayerNorm32(r), want, 1e-6)))
		})
	}
}

// setSpecialRows makes a row of zeros, one of equal values, one of large and one of small values.
func setSpecialRows(x []float32, rows, c int) {
	clear(x[:c])
	if rows < 5 {
		return
	}
	for i := range c {
		x[c+i] = 0.7
		x[2*c+i] *= 1e12
		x[3*c+i] *= 1e-4
	}
}

// A mean that is large compared with the deviation does not cost accuracy: the error is relative to the deviation. A
// plain float32 computation fails this bound, because its mean is off by several units in the last place.
func TestLayerNormLargeMean(t *testing.T) {
	for _, c := range []int{48, 509, 2048} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			gpu := gputest.New(t)
			const rows = 9
			r := ref.LayerNormArgs{X: normal(5, rows*c), Weight: make([]float32, c), Bias: make([]float32, c), Rows: rows, C: c}
			for i := range r.X {
				r.X[i] += 30000
			}
			for i := range c {
				r.Weight[i] = 1
			}
			n, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c})
			require.NoError(t, err)
			defer n.Close()
			a := LayerNormArgs{X: gpu.In("x", r.X), Weight: gpu.In("weight", r.Weight), Bias: gpu.In("bias", r.Bias), Y: gpu.Out("y", 4*len(r.X)), Rows: rows}
			gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), ref.LayerNorm(r)).Within(2e-6))
		})
	}
}

// A norm in place and one of some rows of a tensor have the same bits as one of separate ranges.
func TestLayerNormInPlaceAndSlice(t *testing.T) {
	for _, c := range []int{31, 32} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			gpu := gputest.New(t)
			const rows, skip = 11, 3
			x, weight, bias := normal(1, rows*c), normal(2, c), normal(3, c)
			n, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c})
			require.NoError(t, err)
			defer n.Close()
			a := LayerNormArgs{X: gpu.In("x", x), Weight: gpu.In("weight", weight), Bias: gpu.In("bias", bias), Y: gpu.Out("y", 4*len(x)), Rows: rows}
			inPlaceY := gpu.InOut("in place", x)
			inPlace, slice := a, a
			inPlace.X, inPlace.Y = inPlaceY, inPlaceY
			bytes := uint64(4 * c)
			slice.X, slice.Rows = a.X.Slice(skip*bytes, 2*bytes), 2
			slice.Y = gpu.Out("slice", 4*len(x)).Slice(skip*bytes, 2*bytes)
			gpu.Run(func(list *vk.CommandList) error {
				return firstError(n.Record(list, a), n.Record(list, inPlace), n.Record(list, slice))
			})
			y := gpu.Float32("y")
			assert.Equal(t, y, gpu.Float32("in place"))
			assert.Equal(t, y[skip*c:(skip+2)*c], gpu.Float32("slice")[skip*c:(skip+2)*c])
			for _, i := range []int{skip*c - 1, (skip + 2) * c} {
				assert.Equal(t, uint32(0xffffffff), gpu.Uint32("slice")[i], "written outside of the slice")
			}
		})
	}
}

func TestLayerNormBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, c := range []int{0, -1, 1 << 30} {
		_, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: c})
		assert.ErrorContains(t, err, fmt.Sprintf("pipelines: LayerNorm: C is %d, want 1 to", c))
	}
	big := gpu.In("big", make([]float32, 400))
	good := LayerNormArgs{X: gpu.In("x", normal(1, 40)), Weight: gpu.In("weight", normal(2, 8)), Bias: gpu.In("bias", normal(2, 8)),
		Add: gpu.In("add", normal(3, 16)), Y: gpu.Out("y", 160), Rows: 5, Period: 2}
	n, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: 8, Add: true})
	require.NoError(t, err)
	defer n.Close()
	assertRejected(t, gpu, good, n.Record, []badArgs[LayerNormArgs]{
		{"Rows is 0, want 1", func(a *LayerNormArgs) { a.Rows = 0 }},
		{"Period is 0, want 1", func(a *LayerNormArgs) { a.Period = 0 }},
		{"x is missing, want [Rows 5, C 8] f32, 160 bytes", func(a *LayerNormArgs) { a.X = vk.Range{} }},
		{"x has 1600 bytes, want [Rows 5, C 8] f32, 160 bytes", func(a *LayerNormArgs) { a.X = big }},
		{"x starts at byte 264 of its buffer, want a multiple of 16", func(a *LayerNormArgs) { a.X = big.Slice(8, 160) }},
		{"weight is missing, want [C 8] f32, 32 bytes", func(a *LayerNormArgs) { a.Weight = vk.Range{} }},
		{"bias has 1600 bytes, want [C 8] f32, 32 bytes", func(a *LayerNormArgs) { a.Bias = big }},
		{"add is missing, want [Period 2, C 8] f32, 64 bytes", func(a *LayerNormArgs) { a.Add = vk.Range{} }},
		{"add has 64 bytes, want [Period 3, C 8] f32, 96 bytes", func(a *LayerNormArgs) { a.Period = 3 }},
		{"y is missing, want", func(a *LayerNormArgs) { a.Y = vk.Range{} }},
	})
	plain, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: 8})
	require.NoError(t, err)
	defer plain.Close()
	assertRejected(t, gpu, good, plain.Record, []badArgs[LayerNormArgs]{
		{"add has 64 bytes and Period is 2, want neither", func(*LayerNormArgs) {}},
		{"add has 0 bytes and Period is 2, want neither", func(a *LayerNormArgs) { a.Add = vk.Range{} }},
	})
	odd, err := NewLayerNorm(gpu.Dev, LayerNormConfig{C: 5})
	require.NoError(t, err)
	defer odd.Close()
	five := LayerNormArgs{X: big.Slice(4, 40), Weight: big.Slice(0, 20), Bias: big.Slice(20, 20), Y: gpu.Out("five", 40), Rows: 2}
	assertRejected(t, gpu, five, odd.Record, []badArgs[LayerNormArgs]{
		{"x starts at byte 258 of its buffer, want a multiple of 4", func(a *LayerNormArgs) { a.X = big.Slice(2, 40) }},
	})
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())
	require.NoError(t, (*LayerNorm)(nil).Close())
	assertRejected(t, gpu, good, n.Record, []badArgs[LayerNormArgs]{{"closed", func(*LayerNormArgs) {}}})
}
