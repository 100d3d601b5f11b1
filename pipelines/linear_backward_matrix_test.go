package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testMatrix runs the case in all 16-bit precisions with every tile that fits, and compares with the CPU reference. All
// tiles must give the same bits.
func (c weightGradient) testMatrix(t *testing.T) {
	dev := gputest.Device(t)
	for _, c.Precision = range linearPrecisions(t) {
		dy, x, base := normal(1, c.batch*c.rows*c.out), normal(2, c.batch*c.rows*c.in), []float32(nil)
		for i := range dy { // the scales of rows differ
			dy[i] *= float32(math.Ldexp(1, i/c.out%7*3-9))
		}
		if c.add {
			base = normal(3, c.batch*c.in*c.out)
		}
		if c.DY16 {
			dy = c.Precision.roundAll(dy)
		}
		if c.X16 {
			x = c.Precision.roundAll(x)
		}
		want, naive := c.reference(dy, x, base)
		l, err := NewLinearBackward(dev, LinearBackwardConfig{In: c.in, Out: c.out, Precision: c.Precision})
		require.NoError(t, err)
		require.NoError(t, l.Close())
		var first []float32
		for i, tile := range linearBackwardTiles {
			if dev.Caps().CPU && i != cpuBackwardTile && (tile.rows > 32 && (testing.Short() || c.in != 136) || tile.rows > 64 && !tile.lowRegisters()) {
				continue // CPU drivers compile large tiles for minutes
			}
			if !tile.fitsWith(limitsOf(dev), l.matrix, tile.backwardShared(l.matrix)) || tile.dense && !(c.X16 && c.DY16) {
				continue
			}
			got := c.runTile(t, i, false, 0, dy, x, base)
			require.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6)), "%v %v", c.Precision, tile)
			if first == nil {
				first = got
			}
			require.Equal(t, first, got, "%v %v: the bits depend on the tile", c.Precision, tile)
		}
		require.NotNil(t, first)
	}
}

func TestLinearBackwardMatrix(t *testing.T) {
	both := LinearBackwardConfig{X16: true, DY16: true}
	for i, c := range []weightGradient{
		{batch: 1, rows: 64, in: 64, out: 64, LinearBackwardConfig: both},
		{batch: 2, rows: 67, in: 136, out: 72, add: true, LinearBackwardConfig: both},
		{batch: 1, rows: 1, in: 1, out: 1},
		{batch: 3, rows: 33, in: 7, out: 24, add: true, LinearBackwardConfig: LinearBackwardConfig{DY16: true}},
		{batch: 2, rows: 31, in: 16, out: 5, LinearBackwardConfig: LinearBackwardConfig{X16: true}},
		{batch: 1, rows: 130, in: 20, out: 18, add: true},
		{batch: 2, rows: 1025, in: 8, out: 24, add: true, LinearBackwardConfig: both},
		{batch: 1, rows: 17 * 1024, in: 8, out: 8, LinearBackwardConfig: both},
	} {
		if testing.Short() && i%3 == 2 {
			continue
		}
		t.Run(fmt.Sprintf("%d items of %d rows, %d to %d, %+v", c.batch, c.rows, c.in, c.out, c.LinearBackwardConfig), c.testMatrix)
	}
}

// The bits of an item do not depend on the batch, on its position, or on the division into dispatches. Large operands give
// infinities, not NaN: rows past the last one are zeros on both sides.
func TestLinearBackwardMatrixBits(t *testing.T) {
	for _, p := range linearPrecisions(t) {
		one := weightGradient{batch: 1, rows: 1100, in: 40, out: 24, LinearBackwardConfig: LinearBackwardConfig{Precision: p, X16: true, DY16: true}}
		three, dy, x := one, normal(1, one.rows*one.out), normal(2, one.rows*one.in)
		three.batch = 3
		all := three.run(t, false, 1, slices.Concat(normal(3, len(dy)), dy, dy), slices.Concat(normal(4, len(x)), x, x), nil)
		want := one.run(t, false, 0, dy, x, nil)
		assert.Equal(t, want, all[len(want):2*len(want)])
		assert.Equal(t, want, all[2*len(want):])

		large := weightGradient{batch: 1, rows: 3, in: 8, out: 8, LinearBackwardConfig: one.LinearBackwardConfig}
		dy, x = slices.Repeat([]float32{1}, 24), slices.Repeat([]float32{65000}, 24)
		dy[23] = float32(math.Inf(1))
		for i, v := range large.run(t, false, 0, dy, x, nil) {
			if i/8 == 7 {
				assert.EqualValues(t, math.Inf(1), v, i)
			} else {
				assert.EqualValues(t, 3*p.round(65000), v, i)
			}
		}
	}
}

// The large tile where it makes enough workgroups, tiles of their own for devices with few registers, and none that exceeds
// the device.
func TestLinearBackwardTilesOfChips(t *testing.T) {
	sizes := []struct {
		batch, rows, in, out int
		operands16           bool
	}{{2, 32768, 512, 256, true}, {2, 32768, 512, 256, false}, {2, 1024, 512, 2048, true}, {1, 1024, 512, 512, true}, {1, 64, 64, 64, false}}
	tuned, few := []string{"128x128x64", "128x128x32", "128x128x64", "64x64x64", "64x64x64"}, "32x32x16-lowreg"
	xe2, cpu := []string{"128x128x32-lowreg", "64x64x32-lowreg", "128x128x32-lowreg", "64x64x32-lowreg", few}, slices.Repeat([]string{"16x16x32"}, len(sizes))
	want := map[string][]string{
		"dg2": {"64x64x32-lowreg", "64x64x32-lowreg", "64x64x32-lowreg", "64x64x32-lowreg", few},
		"lnl": xe2, "bmg": xe2, "ptl": xe2, "turing": tuned, "ampere": tuned, "h200": tuned, "navi31": tuned, "gfx1201": tuned, "strix1": tuned,
		"lavapipe4": cpu, "lavapipe": cpu,
	}
	got := map[string][]string{}
	for name, l := range chipLimits() {
		for _, p := range []DType{F16, BF16} {
			m, err := p.matrixShape(l.Caps)
			if err != nil {
				continue
			}
			var list []string
			for _, s := range sizes {
				c := LinearBackwardConfig{In: s.in, Out: s.out, Precision: p, X16: s.operands16, DY16: s.operands16}
				tile := linearBackwardTiles[defaultBackwardTile(l, m, c, LinearBackwardArgs{Batch: s.batch, Rows: s.rows})]
				assert.True(t, tile.fitsWith(l, m, tile.backwardShared(m)), "%s: %s", name, tile.name())
				list = append(list, tile.name())
			}
			got[name] = list
		}
	}
	assert.Equal(t, want, got)
}
