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
		if testing.Short() && size.c != 31 && size.c != 33 && size.c != 512 {
			continue // CPU drivers compile a kernel for each
		}
		t.Run(fmt.Sprintf("%dx%d", size.rows, size.c), func(t *testing.T) {
			gpu := gputest.New(t)
			x, gamma := normal(1, size.rows*size.c), normal(2, size.c)
			clear(x[:size.c]) // the length of a zero row is replaced by 1e-12
			if size.rows > 2 {
				for i := range x[size.c : 2*size.c] {
					x[size.c+i] *= 1e15
				}
			}
			for i := 2 * size.c; i < len(x); i++ { // lengths down to 1e-15, so that another minimum than 1e-12 fails
				x[i] *= float32(math.Pow(10, -float64(i/size.c%16)))
			}
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: size.c})
			require.NoError(t, err)
			defer n.Close()
			a := RMSNormArgs{
				X: gpu.In("x", x), Gamma: gpu.In("gamma", gamma), Y: gpu.Out("y", 4*len(x)), Factors: gpu.Out("factors", 4*size.rows), Rows: size.rows,
			}
			gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
			want, naive := ref.RMSNorm(x, gamma, size.rows, size.c), ref.RMSNorm32(x, gamma, size.rows, size.c)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-6)))

			// Rows times their factors are the rows normalised without gamma.
			ones := make([]float32, size.c)
			for i := range ones {
				ones[i] = 1
			}
			normalised, factors := ref.RMSNorm(x, ones, size.rows, size.c), gpu.Float32("factors")
			for r := range size.rows {
				for i := range size.c {
					got := float64(x[r*size.c+i]) * float64(factors[r])
					assert.InDelta(t, normalised[r*size.c+i], got, 1e-5, "row %d", r)
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

// Factors have the same bits with and without y.
func TestRMSNormFactors(t *testing.T) {
	gpu := gputest.New(t)
	const rows, c = 37, 96
	x := normal(3, rows*c)
	n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c})
	require.NoError(t, err)
	defer n.Close()
	factorsOnly := RMSNormArgs{X: gpu.In("x", x), Factors: gpu.Out("factors only", 4*rows), Rows: rows}
	both := RMSNormArgs{X: factorsOnly.X, Gamma: gpu.In("gamma", normal(4, c)), Y: gpu.Out("y", 4*len(x)), Factors: gpu.Out("factors", 4*rows), Rows: rows}
	gpu.Run(func(list *vk.CommandList) error { return firstError(n.Record(list, factorsOnly), n.Record(list, both)) })
	assert.Equal(t, gpu.Float32("factors"), gpu.Float32("factors only"))
}

// Ranges may start at any element that has the alignment of a row.
func TestRMSNormAtOffset(t *testing.T) {
	for _, c := range []int{1, 30, 32} {
		gpu, offset := gputest.New(t), rowAlign(c)
		const rows = 11
		x, gamma := normal(1, rows*c), normal(2, c)
		n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c})
		require.NoError(t, err)
		defer n.Close()
		a := RMSNormArgs{
			X: inputAt(gpu, "x", x, offset), Gamma: inputAt(gpu, "gamma", gamma, offset),
			Y: outputAt(gpu, "y", rows*c, offset), Factors: outputAt(gpu, "factors", rows, wordAlign), Rows: rows,
		}
		gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
		want, naive := ref.RMSNorm(x, gamma, rows, c), ref.RMSNorm32(x, gamma, rows, c)
		assert.NoError(t, ref.MaxErr(outputFrom(t, gpu, "y", offset), want).Within(ref.Bound(naive, want, 1e-6)))
		for r, factor := range outputFrom(t, gpu, "factors", wordAlign) {
			squares := 0.0
			for _, v := range x[r*c : (r+1)*c] {
				squares += float64(v) * float64(v)
			}
			assert.InEpsilon(t, math.Sqrt(float64(c)/squares), factor, 1e-5, "row %d of %d", r, c)
		}
	}
}

// Gathered rows are those that the selected list names; they are zero where valid is 0 or the index is out of range.
func TestRMSNormGather(t *testing.T) {
	for _, test := range []struct {
		y DType
		c int
	}{{F32, 68}, {F32, 7}, {F16, 68}, {BF16, 68}} {
		t.Run(fmt.Sprintf("%v_%d", test.y, test.c), func(t *testing.T) {
			const items, inRows, rows, lists, list = 2, 11, 9, 3, 1
			c := test.c
			x, gamma := normal(1, items*inRows*c), normal(2, c)
			gather, valid := make([]int32, items*lists*rows), make([]uint32, items*lists*rows)
			for i := range gather {
				gather[i], valid[i] = int32(i*5%inRows), uint32(i%4)
			}
			gather[3], gather[rows+2], gather[lists*rows+rows+4] = -1, inRows, math.MaxInt32
			gpu := gputest.New(t)
			n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: c, Y: test.y, Gather: true})
			require.NoError(t, err)
			defer n.Close()
			a := RMSNormArgs{
				X: gpu.In("x", x), Gamma: gpu.In("gamma", gamma), Y: gpu.Out("y", items*rows*c*test.y.Size()), Rows: rows,
				Gather: gpu.In("gather", gather), Valid: gpu.In("valid", valid), Items: items, InRows: inRows, Lists: lists, List: list,
			}
			gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })

			normalised := ref.RMSNorm(x, gamma, items*inRows, c)
			want := make([]float64, items*rows*c)
			naive := make([]float32, len(want))
			for item := range items {
				for r := range rows {
					slot := (item*lists+list)*rows + r
					if row := gather[slot]; valid[slot] != 0 && row >= 0 && row < inRows {
						copy(want[(item*rows+r)*c:][:c], normalised[(item*inRows+int(row))*c:])
					}
				}
			}
			for i, v := range want {
				naive[i] = test.y.round(float32(v))
			}
			require.NoError(t, ref.MaxErr(decode(test.y, gpu, "y"), want).Within(ref.Bound(naive, want, 1e-6)))

			assertRejected(t, gpu, a, n.Record, []badArgs[RMSNormArgs]{
				{"InRows is 0, want 1", func(a *RMSNormArgs) { a.InRows = 0 }},
				{"List is 3, want 0 to 2", func(a *RMSNormArgs) { a.List = 3 }},
				{"gather is missing, want [Items 2, Lists 3, Rows 9] i32", func(a *RMSNormArgs) { a.Gather = vk.Range{} }},
				{"valid has", func(a *RMSNormArgs) { a.Valid = a.Gamma }},
				{"factors has", func(a *RMSNormArgs) { a.Factors = a.Valid }},
			})
		})
	}
}

// Products are checked factor by factor. In 64-bit arithmetic, the three factors of the first case make 4.
func TestRMSNormGatherOverflow(t *testing.T) {
	n := &RMSNorm{config: RMSNormConfig{C: 8, Gather: true}}
	err := n.check(RMSNormArgs{Items: 2147418113, Lists: 1718039348, Rows: 5, InRows: 1})
	assert.ErrorContains(t, err, "Items*Rows is 10737090565, want 1 to 2147483647")
	err = n.check(RMSNormArgs{Items: 5, Lists: 2147418113, Rows: 1718039348, InRows: 1})
	assert.ErrorContains(t, err, "Items*Rows is 8590196740, want 1 to 2147483647")
	err = n.check(RMSNormArgs{Items: 5, Lists: 2147418113, Rows: 171803934, InRows: 1})
	assert.ErrorContains(t, err, "Items*Lists*Rows is 1844674398781282710, want 1 to 2147483647")
}

func TestRMSNormBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: 0})
	assert.ErrorContains(t, err, "C is 0, want 1")
	n, err := NewRMSNorm(gpu.Dev, RMSNormConfig{C: 8})
	require.NoError(t, err)
	defer n.Close()
	x, gamma, y := gpu.In("x", normal(1, 40)), gpu.In("gamma", normal(2, 8)), gpu.Out("y", 160)
	valid := RMSNormArgs{X: x, Gamma: gamma, Y: y, Rows: 5}
	assertRejected(t, gpu, valid, n.Record, []badArgs[RMSNormArgs]{
		{"Rows is 0, want 1", func(a *RMSNormArgs) { a.Rows = 0 }},
		{"x is missing, want [Rows 5, C 8] f32, 160 bytes", func(a *RMSNormArgs) { a.X = vk.Range{} }},
		{"x has 156 bytes, want [Rows 5, C 8] f32, 160 bytes", func(a *RMSNormArgs) { a.X = x.Slice(0, 156) }},
		{"x starts at byte 260 of its buffer, want a multiple of 16", func(a *RMSNormArgs) { a.X, a.Rows, a.Y = x.Slice(4, 32), 1, y.Slice(0, 32) }},
		{"gamma has 0 bytes and y 160, want both or neither", func(a *RMSNormArgs) { a.Gamma = vk.Range{} }},
		{"gamma has 160 bytes, want [C 8] f32, 32 bytes", func(a *RMSNormArgs) { a.Gamma = x }},
		{"y and factors are both missing", func(a *RMSNormArgs) { a.Y = vk.Range{} }},
		{"factors has 160 bytes, want [Rows 5] f32, 20 bytes", func(a *RMSNormArgs) { a.Factors = y }},
	})
	require.NoError(t, n.Close())
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "closed"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorIs(t, n.Record(list, valid), vk.ErrClosed)
}
