package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The bits of a row do not depend on its position, on its batch, or on the other rows.
func TestLinearBits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 9 s")
	}
	for _, tile := range linearTiles {
		for _, s := range []struct{ in, out int }{{512, 132}, {67, 69}, {64, 1}} {
			if gputest.Reduced() && s.in > 67 {
				continue // CPU drivers compile kernels for 20 s
			}
			t.Run(fmt.Sprintf("%s, in %d, out %d", tile.kernel, s.in, s.out), func(t *testing.T) { testLinearBits(t, tile.name(), s.in, s.out) })
		}
	}
}

func testLinearBits(t *testing.T, tile string, in, out int) {
	many := linearCase{LinearConfig: linearAll, batch: 2, inRows: 211, rows: 141, outRows: 150}
	many.In, many.Out = in, out
	data := many.data()
	for i := range data.Score {
		data.Score[i], data.Valid[i] = 0.75, 1
	}
	gpu := gputest.New(t)
	l, args := newLinear(t, gpu, many.LinearConfig, tile), many.args(gpu, data)
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
	y := gpu.Float32("y")
	for _, slot := range []int{0, 1, 63, 64, 130, 141, 281} {
		item := slot / many.rows
		from, to := item*many.inRows+int(data.Gather[slot]), item*many.outRows+int(data.Scatter[slot])
		one := data
		one.Batch, one.InRows, one.Rows, one.OutRows = 1, 1, 1, 1
		one.X, one.Gather, one.Scatter, one.Score = data.X[from*in:][:in], []int32{0}, []int32{0}, data.Score[:1]
		one.Valid, one.Residual, one.Base, one.SkipBias = data.Valid[:1], data.Residual[to*out:][:out], data.Base[:out], data.SkipBias[to:][:1]
		gpu := gputest.New(t)
		args := many.args(gpu, one)
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		assert.Equal(t, y[to*out:][:out], gpu.Float32("y"), "slot %d", slot)
	}
}

// A product that takes too long for one dispatch is divided into several, with the same bits.
func TestLinearManyDispatches(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a large tile for 2 s on CPU drivers")
	}
	c := linearCase{LinearConfig: linearAll, batch: 1, inRows: 300, rows: 290, outRows: 300}
	c.In, c.Out = 24, 200
	data := c.data()
	var whole []float32
	for _, test := range []struct {
		maxFlops   float64
		minTiles   uint64
		dispatches int
	}{{1e12, 1, 1}, {1, 100, 1}, {1, 20, 1}, {1, 19, 2}, {2 * 64 * 64 * 24 * 7, 1, 3}, {1, 1, 20}} {
		gpu := gputest.New(t)
		l, args := newLinear(t, gpu, c.LinearConfig, linearTiles[1].name()), c.args(gpu, data)
		l.maxFlops, l.minTiles = test.maxFlops, test.minTiles
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		assert.Len(t, gpu.StepNames(), test.dispatches)
		if whole == nil {
			whole = gpu.Float32("y")
		}
		assert.Equal(t, whole, gpu.Float32("y"), "%d dispatches", test.dispatches)
	}
}

func TestLinearDefaultTile(t *testing.T) {
	for _, test := range []struct {
		rows, out uint64
		side      uint64
	}{
		{65536, 256, 128}, {65536, 512, 128}, {4096, 4096, 128}, {2048, 2048, 128}, {4096, 512, 128}, {1024, 2048, 128},
		{2048, 512, 64}, {1024, 1024, 64}, {1, 1, 64}, {65536, 64, 64},
		{65536, 1, 64}, {65536, 65, 128}, {65536, 320, 64}, {65536, 1088, 128}, {1 << 31, 1 << 30, 128},
	} {
		for chip, l := range chipLimits() {
			tile := linearTiles[defaultFloatTile(l, test.rows, test.out)]
			switch chip {
			case "lavapipe", "lavapipe4":
				assert.Equal(t, "linear_cpu", tile.kernel, chip)
			case "kepler", "turing", "ampere", "h200", "vega10", "navi21", "navi31", "gfx1201", "strix1":
				assert.Equal(t, test.side, tile.rows, "%s, %d by %d", chip, test.rows, test.out)
			default:
				assert.EqualValues(t, 64, tile.rows, "%s has too few registers for 128 sums per invocation", chip)
			}
			l.MaxSharedBytes = 16 << 10
			if tile := linearTiles[defaultFloatTile(l, test.rows, test.out)]; !l.CPU {
				assert.EqualValues(t, 128, tile.rows, "%s with 16 KiB of shared memory", chip)
			}
		}
	}
}

// Equal rows and equal columns give the same bits at every position of a tile: the compiler must not contract some of
// the sums differently.
func TestLinearPositions(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 20 s on CPU drivers")
	}
	const rows, period = 205, 8
	for _, c := range []LinearConfig{
		{In: 67, Out: 69, Score: true, Residual: true}, {In: 67, Out: 69, GELU: true, Residual: true},
		{In: 67, Out: 69, Norm: true, Residual: true}, {In: 96, Out: 132, Score: true, Residual: true},
		{In: 96, Out: 132, Norm: true, GELU: true, Score: true, Residual: true},
	} {
		if gputest.Reduced() && !c.Score {
			continue // CPU drivers compile kernels for 5 s for each
		}
		test := linearCase{LinearConfig: c, batch: 1, inRows: rows, rows: rows, outRows: rows}
		data := test.data()
		copy(data.X, data.X[c.In:][:c.In]) // the first row is zeros where there is a norm
		for i := range data.X {
			data.X[i] = data.X[i%c.In]
		}
		for i := range data.W {
			data.W[i] = data.W[i%(period*c.In)]
		}
		for i := range data.Bias {
			data.Bias[i] = data.Bias[i%period]
		}
		for i := range data.Residual {
			data.Residual[i] = data.Residual[i%c.Out%period]
		}
		for i := range data.Score {
			data.Score[i] = 0.7777
		}
		t.Run(test.String(), func(t *testing.T) {
			var first []float32
			for i, tile := range linearTiles {
				gpu := gputest.New(t)
				l, args := newLinear(t, gpu, c, tile.name()), test.args(gpu, data)
				gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
				y := gpu.Float32("y")
				if i == 0 {
					first = y[:period]
				}
				for j, v := range y {
					require.Equal(t, first[j%c.Out%period], v, "%s: row %d, column %d", tile.kernel, j/c.Out, j%c.Out)
				}
			}
		})
	}
}

// Rows of x with norms from 1 down to less than the epsilon of the norm, and a row of zeros: another epsilon would give
// other results.
func TestLinearSmallRows(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	c := linearCase{LinearConfig: LinearConfig{In: 64, Out: 40, Norm: true}, batch: 1, inRows: 32, rows: 32, outRows: 32, smallRows: true}
	t.Run("float32", c.test)
	t.Run("16-bit", c.testMatrix)
}
