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

func TestRMSNorm(t *testing.T) {
	for _, size := range []struct{ rows, c int }{
		{1, 1}, {1, 3}, {5, 4}, {7, 31}, {31, 32}, {32, 33}, {33, 48}, {63, 64}, {64, 127}, {65, 128}, {13, 509}, {101, 512}, {3, 2048}, {2, 4099},
		{70000, 4},
	} {
		t.Run(fmt.Sprintf("%dx%d", size.rows, size.c), func(t *testing.T) {
			gpu := gputest.New(t)
			x, gamma := normal(1, size.rows*size.c), normal(2, size.c)
			clear(x[:size.c]) // the norm of a row of zeros is floored
			if size.rows > 2 {
				for i := range x[size.c : 2*size.c] {
					x[size.c+i] *= 1e15
				}
			}
			for i := 2 * size.c; i < len(x); i++ { // rows down to what is floored: they tell another epsilon from this one
				x[i] *= float32(math.Pow(10, -float64(i/size.c%16)))
			}
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: size.c})
			require.NoError(t, err)
			defer n.Close()
			a := RMSNormArgs{
				X: gpu.In("x", x), Gamma: gpu.In("gamma", gamma), Y: gpu.Out("y", 4*len(x)), Factors: gpu.Out("factors", 4*size.rows), Rows: size.rows,
			}
			gpu.Run(func(t *vk.CommandList) error { return n.Record(t, a) })
			want, naive := ref.RMSNorm(x, gamma, size.rows, size.c), ref.RMSNorm32(x, gamma, size.rows, size.c)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-6)))
			ones := make([]float32, size.c)
			for i := range ones {
				ones[i] = 1
			}
			y, f := ref.RMSNorm(x, ones, size.rows, size.c), gpu.Float32("factors")
			for r := range size.rows {
				for i := range size.c {
					v := float64(x[r*size.c+i]) * float64(f[r])
					assert.InDelta(t, y[r*size.c+i], v, 1e-5, "row %d", r)
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

// The factors alone need neither gamma nor y, and are the same bits.
func TestRMSNormFactors(t *testing.T) {
	gpu := gputest.New(t)
	const rows, c = 37, 96
	x := normal(3, rows*c)
	n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c})
	require.NoError(t, err)
	defer n.Close()
	a := RMSNormArgs{X: gpu.In("x", x), Factors: gpu.Out("alone", 4*rows), Rows: rows}
	b := RMSNormArgs{X: a.X, Gamma: gpu.In("gamma", normal(4, c)), Y: gpu.Out("y", 4*len(x)), Factors: gpu.Out("both", 4*rows), Rows: rows}
	gpu.Run(func(t *vk.CommandList) error {
		if err := n.Record(t, a); err != nil {
			return err
		}
		return n.Record(t, b)
	})
	assert.Equal(t, gpu.Float32("both"), gpu.Float32("alone"))
}

func TestRMSNormShifted(t *testing.T) {
	for _, c := range []int{1, 30, 32} {
		gpu, start := gputest.New(t), rowAlign(c)
		const rows = 11
		x, gamma := normal(1, rows*c), normal(2, c)
		n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c})
		require.NoError(t, err)
		defer n.Close()
		a := RMSNormArgs{X: inShifted(gpu, "x", x, start), Gamma: inShifted(gpu, "gamma", gamma, start),
			Y: outShifted(gpu, "y", rows*c, start), Factors: outShifted(gpu, "factors", rows, wordAlign), Rows: rows}
		gpu.Run(func(t *vk.CommandList) error { return n.Record(t, a) })
		want, naive := ref.RMSNorm(x, gamma, rows, c), ref.RMSNorm32(x, gamma, rows, c)
		assert.NoError(t, ref.MaxErr(unshifted(t, gpu, "y", start), want).Within(ref.Bound(naive, want, 1e-6)))
		for r, f := range unshifted(t, gpu, "factors", wordAlign) {
			sum := 0.0
			for _, v := range x[r*c : (r+1)*c] {
				sum += float64(v) * float64(v)
			}
			assert.InEpsilon(t, math.Sqrt(float64(c)/sum), f, 1e-5, "row %d of %d", r, c)
		}
	}
}

func TestRMSNormBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: 0})
	assert.ErrorContains(t, err, "C is 0, want 1")
	n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: 8})
	require.NoError(t, err)
	defer n.Close()
	x, gamma, y := gpu.In("x", normal(1, 40)), gpu.In("gamma", normal(2, 8)), gpu.Out("y", 160)
	good := RMSNormArgs{X: x, Gamma: gamma, Y: y, Rows: 5}
	for _, test := range []struct {
		name, want string
		change     func(*RMSNormArgs)
	}{
		{"rows", "Rows is 0, want 1", func(a *RMSNormArgs) { a.Rows = 0 }},
		{"x missing", "x is missing, want [Rows 5, C 8] f32, 160 bytes", func(a *RMSNormArgs) { a.X = vk.Range{} }},
		{"x short", "x has 156 bytes, want [Rows 5, C 8] f32, 160 bytes", func(a *RMSNormArgs) { a.X = x.Slice(0, 156) }},
		{"x odd", "x starts at byte 260 of its buffer, want a multiple of 16", func(a *RMSNormArgs) { a.X, a.Rows, a.Y = x.Slice(4, 32), 1, y.Slice(0, 32) }},
		{"gamma missing", "gamma and y go together", func(a *RMSNormArgs) { a.Gamma = vk.Range{} }},
		{"gamma long", "gamma has 160 bytes, want [C 8] f32, 32 bytes", func(a *RMSNormArgs) { a.Gamma = x }},
		{"no output", "y and factors are both missing", func(a *RMSNormArgs) { a.Y = vk.Range{} }},
		{"factors", "factors has 160 bytes, want [Rows 5] f32, 20 bytes", func(a *RMSNormArgs) { a.Factors = y }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := good
			test.change(&a)
			list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
			require.NoError(t, err)
			defer list.Close()
			assert.ErrorContains(t, n.Record(list, a), test.want)
		})
	}
	require.NoError(t, n.Close())
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "closed"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorIs(t, n.Record(list, good), vk.ErrClosed)
}

// Gathered rows are those that lists name, zeros where a slot is empty.
// The product of these three is 4 in 64 bits.
func TestRMSNormGatherTooMany(t *testing.T) {
	n := &RMSNorm{config: RMSNormConfig{C: 8, Gather: true}}
	err := n.check(RMSNormArgs{Items: 2147418113, Lists: 1718039348, Rows: 5, InRows: 1})
	assert.ErrorContains(t, err, "Items*Rows is 10737090565, want 1 to 2147483647")
	err = n.check(RMSNormArgs{Items: 5, Lists: 2147418113, Rows: 1718039348, InRows: 1})
	assert.ErrorContains(t, err, "Items*Rows is 8590196740, want 1 to 2147483647")
	err = n.check(RMSNormArgs{Items: 5, Lists: 2147418113, Rows: 171803934, InRows: 1})
	assert.ErrorContains(t, err, "Items*Lists*Rows is 1844674398781282710, want 1 to 2147483647")
}

func TestRMSNormGather(t *testing.T) {
	for _, p := range []DType{F32, F16, BF16} {
		for _, c := range []int{68, 7} {
			if p != F32 && c%4 != 0 {
				continue
			}
			const items, in, rows, lists = 2, 11, 9, 3
			x, gamma := normal(1, items*in*c), normal(2, c)
			gather, filled := make([]int32, items*lists*rows), make([]uint32, items*lists*rows)
			for i := range gather {
				gather[i], filled[i] = int32(i*5%in), uint32(i%4)
			}
			gather[3], gather[rows+2], gather[lists*rows+rows+4] = -1, in, math.MaxInt32
			gpu := gputest.New(t)
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c, Y: p, Gather: true})
			require.NoError(t, err)
			defer n.Close()
			a := RMSNormArgs{X: gpu.In("x", x), Gamma: gpu.In("gamma", gamma), Y: gpu.Out("y", items*rows*c*p.Size()), Rows: rows,
				Gather: gpu.In("gather", gather), Valid: gpu.In("filled", filled), Items: items, InRows: in, Lists: lists, List: 1}
			gpu.Run(func(t *vk.CommandList) error { return n.Record(t, a) })
			all := ref.RMSNorm(x, gamma, items*in, c)
			want := make([]float64, items*rows*c)
			naive := make([]float32, len(want))
			for slot := range items * rows {
				entry := slot/rows*lists*rows + rows + slot%rows
				if row := gather[entry]; filled[entry] != 0 && row >= 0 && row < in {
					copy(want[slot*c:][:c], all[(slot/rows*in+int(row))*c:])
				}
			}
			for i, v := range want {
				naive[i] = p.round(float32(v))
			}
			require.NoError(t, ref.MaxErr(floatsOf(p, gpu, "y"), want).Within(ref.Bound(naive, want, 1e-6)))
			for _, bad := range []struct {
				want   string
				change func(*RMSNormArgs)
			}{
				{"InRows is 0, want 1", func(a *RMSNormArgs) { a.InRows = 0 }},
				{"List is 3, want 0 to 2", func(a *RMSNormArgs) { a.List = 3 }},
				{"gather is missing, want [Items 2, Lists 3, Rows 9] i32", func(a *RMSNormArgs) { a.Gather = vk.Range{} }},
				{"filled has", func(a *RMSNormArgs) { a.Valid = a.Gamma }},
				{"factors has", func(a *RMSNormArgs) { a.Factors = a.Valid }},
			} {
				b := a
				bad.change(&b)
				assertRecordError(t, gpu, bad.want, func(t *vk.CommandList) error { return n.Record(t, b) })
			}
		}
	}
}
