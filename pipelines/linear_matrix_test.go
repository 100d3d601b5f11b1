package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// linearPrecisions returns the 16-bit precisions that the device supports. For others NewLinear must return an error
// that says what is missing.
func linearPrecisions(t *testing.T) []DType {
	dev := gputest.Device(t)
	var list []DType
	for _, p := range []DType{F16, BF16} {
		l, err := NewLinear(dev, LinearConfig{In: 8, Out: 8, Precision: p})
		if missing := p.Supported(dev.Caps()); missing != nil {
			require.ErrorIs(t, err, vk.ErrUnsupported)
			require.ErrorContains(t, err, missing.Error())
			continue
		}
		require.NoError(t, err)
		require.NoError(t, l.Close())
		list = append(list, p)
	}
	return list
}

// testMatrix runs the case in all 16-bit precisions with every tile that fits, and compares with the CPU reference. All
// tiles must give the same bits.
func (c linearCase) testMatrix(t *testing.T) {
	dev := gputest.Device(t)
	for _, c.Precision = range linearPrecisions(t) {
		p := c.Precision
		data := c.data()
		if c.X16 {
			data.X = p.roundAll(data.X)
		}
		if c.Y16 {
			data.Base = p.roundAll(data.Base)
		}
		data.RoundOperands = p.round
		want, naive := ref.Linear(data), ref.Linear32(data)
		if c.Y16 {
			naive = p.roundAll(naive)
		}
		var first []float32
		for _, tile := range linearMatrixTiles {
			m, err := p.matrixShape(dev.Caps())
			limits := limitsOf(dev)
			require.NoError(t, err)
			if dev.Caps().CPU && !tile.lowRegisters() && tile.rows*tile.cols*uint64(tile.inputs) > 8192 && (tile.rows > 32 || !c.Y16 || c.In != 128) {
				continue // CPU drivers compile large tiles for minutes
			}
			if dev.Caps().CPU && tile.lowRegisters() && tile.rows > 32 && (testing.Short() || c.In != 128) {
				continue
			}
			if !tile.fits(limits, m) || tile.dense && (c.Gather || !c.X16 || c.batch > 1 && c.inRows != c.rows) {
				continue
			}
			gpu := gputest.New(t)
			l, args := newLinear(t, gpu, c.LinearConfig, tile.name()), c.args(gpu, data)
			gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
			require.Len(t, gpu.StepNames(), 1+min(c.Split, 1), "one fused kernel, and one that adds parts")
			require.Contains(t, gpu.StepNames()[0], tile.kernel+"_"+p.String())
			y := decode(c.y(), gpu, "y")
			if c.minAlign {
				y = outputFrom(t, gpu, "y with margins", rowAlign(c.Out))
			}
			bound := ref.Bound(naive, want, 1e-6)
			if c.Norm {
				// A norm that differs in its last bit may round an operand to the neighbouring value: an error of one ULP times a weight.
				ulp := map[DType]float64{F16: 0x1p-10, BF16: 0x1p-7}[p]
				bound += ulp * 4 / math.Sqrt(float64(c.In)) // operands around 2, weights around 2 / sqrt(In)
			}
			require.NoError(t, ref.MaxErr(y, want).Within(bound), "%v %v", p, tile)
			if first == nil {
				first = y
			}
			require.Equal(t, first, y, "%v %v: the bits depend on the tile", p, tile)
		}
		require.NotNil(t, first)
	}
}

func TestLinearMatrix(t *testing.T) {
	all := linearAll
	for _, c := range []linearCase{
		{LinearConfig: LinearConfig{In: 128, Out: 128, X16: true, Y16: true}, rows: 256},
		{LinearConfig: LinearConfig{In: 72, Out: 136, X16: true, Y16: true}, rows: 131},
		{LinearConfig: LinearConfig{In: 72, Out: 68, X16: true}, rows: 65},
		{LinearConfig: LinearConfig{In: 46, Out: 34, X16: true, Y16: true}, rows: 33},
		{LinearConfig: LinearConfig{In: 64, Out: 64}, rows: 64},
		{LinearConfig: LinearConfig{In: 1, Out: 1}, rows: 1},
		{LinearConfig: LinearConfig{In: 37, Out: 35}, rows: 130},
		{LinearConfig: LinearConfig{In: 515, Out: 20, Norm: true, Y16: true}, rows: 70},
		{LinearConfig: LinearConfig{In: 96, Out: 40, X16: true, Bias: true, GELU: true, Y16: true}, rows: 64, batch: 2},
		{LinearConfig: LinearConfig{In: 80, Out: 40, X16: true, Gather: true, Valid: true, Y16: true}, rows: 67, batch: 2, inRows: 30, badIndices: true},
		{LinearConfig: LinearConfig{In: 64, Out: 128, X16: true, Bias: true, SkipBias: true, Residual: true}, rows: 140, batch: 2, inPlace: true},
		{LinearConfig: LinearConfig{In: 64, Out: 64, X16: true, Scatter: true, Score: true, Residual: true}, rows: 70, batch: 2, outRows: 100, inPlace: true},
		{LinearConfig: LinearConfig{In: 128, Out: 128, X16: true, Y16: true, TransposedW: true}, rows: 256},
		{LinearConfig: LinearConfig{In: 72, Out: 68, X16: true, Residual: true, TransposedW: true}, rows: 65, inPlace: true},
		{LinearConfig: LinearConfig{In: 37, Out: 35, TransposedW: true}, rows: 130, minAlign: true},
		{LinearConfig: LinearConfig{In: 1300, Out: 40, X16: true, Split: 3, TransposedW: true}, rows: 33},
		{LinearConfig: all, rows: 67, batch: 3, inRows: 300, outRows: 150},
		{LinearConfig: all, rows: 67, batch: 3, inRows: 300, outRows: 150, minAlign: true},
		{LinearConfig: LinearConfig{In: 1300, Out: 40, X16: true, Split: 3, Bias: true, GELU: true, Y16: true}, rows: 33},
		{LinearConfig: LinearConfig{In: 520, Out: 38, Split: 4, Norm: true, Gather: true, Score: true, Valid: true, Residual: true, Scatter: true}, rows: 20, batch: 2, inRows: 30, outRows: 40},
	} {
		if c.LinearConfig == all {
			c.In, c.Out = 50, 68
		}
		c.batch, c.inRows, c.outRows = max(c.batch, 1), max(c.inRows, c.rows*(1-int(specBool(c.Gather)))), max(c.outRows, c.rows)
		t.Run(fmt.Sprintf("%v x16 %t y16 %t", c, c.X16, c.Y16), c.testMatrix)
	}
}

// Small tiles with the code paths of large ones: a last iteration after the loop, results that are stored in several
// strips, and strips that are stored in several groups. CPU drivers compile large tiles for minutes.
func TestLinearMatrixStrips(t *testing.T) {
	defer func(list []linearTile) { linearMatrixTiles = list }(linearMatrixTiles)
	m, err := F16.matrixShape(gputest.Device(t).Caps())
	if err != nil {
		require.ErrorIs(t, err, vk.ErrUnsupported)
		return
	}
	// Wide stores a strip in groups.
	strips := linearTile{kernel: "linear_matrix", rows: 4 * uint64(m.M), cols: uint64(m.N), inputs: m.K, subgroupsM: 1, subgroupsN: 1}
	wide := linearTile{kernel: "linear_matrix", rows: 2 * uint64(m.M), cols: 6 * uint64(m.N), inputs: m.K, subgroupsM: 1, subgroupsN: 1}
	odd := linearTile{kernel: "linear_matrix", rows: 3 * uint64(m.M), cols: uint64(m.N), inputs: m.K, subgroupsM: 1, subgroupsN: 1}
	linearMatrixTiles = []linearTile{strips, wide, odd, linearMatrixTiles[cpuMatrixTile]}
	for _, c := range []linearCase{
		{LinearConfig: LinearConfig{In: 40, Out: 32, X16: true, Y16: true}, rows: 130},
		{LinearConfig: LinearConfig{In: 40, Out: 36, X16: true, Bias: true, SkipBias: true, Residual: true}, rows: 131, inPlace: true},
		{LinearConfig: LinearConfig{In: 37, Out: 35, GELU: true, Score: true, Residual: true, Scatter: true}, rows: 67, outRows: 90, inPlace: true},
		{LinearConfig: LinearConfig{In: 600, Out: 40, X16: true, Split: 4, Bias: true}, rows: 65},
	} {
		c.batch, c.inRows, c.outRows = 1, c.rows, max(c.outRows, c.rows)
		t.Run(fmt.Sprintf("%v", c), c.testMatrix)
	}
}

// The bits of a row do not depend on the other rows.
func TestLinearMatrixBits(t *testing.T) {
	for _, p := range linearPrecisions(t) {
		many := linearCase{LinearConfig: LinearConfig{In: 200, Out: 72, Precision: p, X16: true}, batch: 1, inRows: 150, rows: 150, outRows: 150}
		data := many.data()
		gpu := gputest.New(t)
		l, args := newLinear(t, gpu, many.LinearConfig, ""), many.args(gpu, data)
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		y := gpu.Float32("y")
		for _, slot := range []int{0, 1, 63, 64, 149} {
			one := data
			one.InRows, one.Rows, one.OutRows, one.X, one.Base = 1, 1, 1, data.X[slot*many.In:][:many.In], data.Base[:many.Out]
			gpu := gputest.New(t)
			args := many.args(gpu, one)
			gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
			assert.Equal(t, y[slot*many.Out:][:many.Out], gpu.Float32("y"), "slot %d", slot)
		}
	}
}

func TestLinearMatrixBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	for _, test := range []struct {
		c    LinearConfig
		want string
	}{
		{LinearConfig{In: 8, Out: 8, Precision: 3}, "Precision is i32, want f32, f16 or bf16"},
		{LinearConfig{In: 8, Out: 8, X16: true}, "X16 is true and Y16 false, want neither with Precision f32"},
		{LinearConfig{In: 8, Out: 8, Precision: F16, X16: true, Norm: true}, "X16 and Norm are true, want one of them"},
		{LinearConfig{In: 8, Out: 8, Split: 2}, "Split is 2 with Precision f32, want 0 to 64, with f32 0"},
		{LinearConfig{In: 8, Out: 8, Precision: F16, Split: 65}, "Split is 65"},
		{LinearConfig{In: 1 << 27, Out: 8, Precision: F16}, "In is 134217728, want 1 to 134217727"},
		{LinearConfig{In: 7, Out: 8, Precision: F16, X16: true}, "In is 7, want an even number with X16"},
		{LinearConfig{In: 8, Out: 7, Precision: BF16, Y16: true}, "Out is 7, want an even number with Y16"},
	} {
		_, err := NewLinear(dev, test.c)
		assert.ErrorContains(t, err, test.want)
	}
}

// Rows of parts, and vec4 of y, are counted in 32 bits.
func TestLinearSplitTooLarge(t *testing.T) {
	l := &Linear{config: LinearConfig{In: 8, Out: 1, Precision: F16, Split: 64}}
	a := LinearArgs{Batch: 1, Rows: 1 << 26, InRows: 1 << 26, OutRows: 1 << 26, Lists: 1}
	assert.ErrorContains(t, l.checkSizes("Linear", a), "Batch*Rows is 67108864 with Split 64 and Out 1, want Batch*Rows*Split and Batch*Rows*ceil(Out/4) of at most 2147483647")
	l.config.Split, l.config.Out = 2, 256
	assert.ErrorContains(t, l.checkSizes("Linear", a), "Batch*Rows is 67108864 with Split 2 and Out 256")
	l.config.Out = 64
	assert.NoError(t, l.checkSizes("Linear", a))
}

// The large tile for many rows, smaller ones that balance better for few, and none that exceeds the device.
func TestLinearDefaultMatrixTile(t *testing.T) {
	gpu, cpu := chipLimits()["h200"], chipLimits()["lavapipe"]
	m, small := vk.MatrixShape{M: 16, N: 16, K: 16}, vk.MatrixShape{M: 8, N: 8, K: 8}
	for _, test := range []struct {
		limits deviceLimits
		shape  vk.MatrixShape
		size   linearSize
		out    uint64
		x16    bool
		want   int
	}{
		{gpu, m, linearSize{rows: 65536, denseIn: true}, 512, true, 0},
		{gpu, m, linearSize{rows: 65536, denseIn: true}, 512, false, 1},
		{gpu, m, linearSize{rows: 65536, denseIn: false}, 512, true, 1},
		{gpu, m, linearSize{rows: 4096, denseIn: true}, 512, true, 0},
		{gpu, m, linearSize{rows: 3968, denseIn: true}, 512, true, 2},
		{gpu, m, linearSize{rows: 8192, denseIn: false}, 1024, true, 1},
		{gpu, m, linearSize{rows: 8064, denseIn: false}, 1024, true, 2},
		{gpu, m, linearSize{rows: 2048, denseIn: false}, 512, true, 2},
		{gpu, m, linearSize{rows: 1024, denseIn: false}, 512, true, 3},
		{gpu, m, linearSize{rows: 256, denseIn: true}, 1024, true, 3},
		{gpu, m, linearSize{rows: 64, denseIn: true}, 1024, true, 4},
		{cpu, small, linearSize{rows: 65536, denseIn: true}, 512, true, 5},
	} {
		assert.Equal(t, test.want, defaultMatrixTile(test.limits, test.shape, test.size, test.out, test.x16), "%+v", test)
	}
}

// Devices with few registers get tiles of their own, as large as their subgroups can hold; all others those of the H200.
func TestLinearMatrixTilesOfChips(t *testing.T) {
	const many = 65536
	sizes := []struct {
		slots, out uint64
		x16        bool
	}{{many, 512, true}, {many, 512, false}, {1024, 512, true}, {1024, 512, false}, {64, 512, true}, {many, 64, true}}
	tuned := []string{"128x128x64", "128x128x32", "32x64x128", "32x64x128", "32x16x256", "64x64x64"}
	xe2 := []string{"128x128x32-lowreg", "64x128x32-lowreg", "64x64x32-lowreg", "64x64x32-lowreg", "32x32x16-lowreg", "64x64x32-lowreg"}
	cpu := slices.Repeat([]string{"16x16x32"}, len(sizes))
	want := map[string][]string{
		"dg2": {"64x128x32-lowreg", "64x64x32-lowreg", "64x64x32-lowreg", "64x64x32-lowreg", "32x32x16-lowreg", "64x64x32-lowreg"},
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
				tile := linearMatrixTiles[defaultMatrixTile(l, m, linearSize{rows: s.slots, denseIn: true}, s.out, s.x16)]
				list = append(list, tile.name())
				assert.True(t, tile.fits(l, m), "%s: %s", name, tile.name())
			}
			got[name] = list
			assert.Equal(t, want[name], list, "%s %v", name, p)
		}
	}
	assert.Equal(t, want, got)
}

// Where the driver reports no spills, a tile whose sums take more than a quarter of the registers is not used, unless it is
// configured.
func TestLinearMatrixWithoutSpills(t *testing.T) {
	dev := gputest.Device(t)
	defer pretend.Chip(pretend.Chips()["dg2"])()
	size := linearSize{rows: 65536, denseIn: true, denseOut: true}
	for _, p := range linearPrecisions(t) {
		for tile, want := range map[string]string{"": "64x64x32-lowreg", "64x128x32-lowreg": "64x128x32-lowreg"} {
			l, err := NewLinear(dev, LinearConfig{In: 512, Out: 512, Precision: p, X16: true, Tile: tile})
			require.NoError(t, err)
			defer l.Close()
			selected := l.tiles()[l.selectTile(size)]
			got, err := l.withoutSpills(selected, size)
			require.NoError(t, err)
			if limitsOf(dev).PipelineStatistics {
				assert.Contains(t, []string{want, selected.name()}, got.name())
				continue
			}
			assert.Equal(t, "64x128x32-lowreg", selected.name())
			assert.Equal(t, want, got.name())
		}
	}
}

// The kernel for devices with few registers stores the sums of a subgroup in four steps at most.
func TestLinearLowRegisterSteps(t *testing.T) {
	for _, tile := range linearMatrixTiles {
		for _, m := range []vk.MatrixShape{{M: 8, N: 8, K: 8}, {M: 8, N: 16, K: 16}, {M: 16, N: 16, K: 16}} {
			if tile.lowRegisters() {
				assert.LessOrEqual(t, uint32(tile.rows)/tile.subgroupsM, 4*m.M, "%s: %v", tile.name(), m)
				assert.Less(t, tile.inputs/8, tile.subgroupsM*tile.subgroupsN*8, "%s: rows are loaded by several invocations", tile.name())
			}
		}
	}
}

// A device with few registers runs the kernel that is meant for it.
func TestLinearMatrixLowRegisters(t *testing.T) {
	for _, p := range linearPrecisions(t) {
		restore := pretend.Chip(pretend.Chips()["dg2"])
		c := linearCase{LinearConfig: LinearConfig{In: 40, Out: 36, Precision: p, GELU: true}, batch: 1, inRows: 33, rows: 33, outRows: 33}
		data := c.data()
		data.RoundOperands = p.round
		gpu := gputest.New(t)
		l, args := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, data)
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		restore()
		require.Contains(t, gpu.StepNames()[0], lowRegisterKernel+"_"+p.String()+" 32x32x16")
		want := ref.Linear(data)
		require.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.Linear32(data), want, 1e-6)))
	}
}

// Rows are dense if no index list selects them, no other rows lie between those of two items, and they are short enough
// for 32-bit offsets in a tile.
func TestLinearSize(t *testing.T) {
	a := LinearArgs{Batch: 2, Rows: 3, InRows: 3, OutRows: 3}
	for _, test := range []struct {
		c               LinearConfig
		inRows, outRows int
		want            linearSize
	}{
		{LinearConfig{In: 1<<24 - 1}, 3, 3, linearSize{rows: 6, denseIn: true, denseOut: true}},
		{LinearConfig{In: 1 << 24}, 3, 3, linearSize{rows: 6, denseIn: false, denseOut: true}},
		{LinearConfig{In: 8, Gather: true}, 3, 3, linearSize{rows: 6, denseIn: false, denseOut: true}},
		{LinearConfig{In: 8, Scatter: true}, 3, 3, linearSize{rows: 6, denseIn: true, denseOut: false}},
		{LinearConfig{In: 8}, 4, 3, linearSize{rows: 6, denseIn: false, denseOut: true}},
		{LinearConfig{In: 8}, 3, 4, linearSize{rows: 6, denseIn: true, denseOut: false}},
	} {
		a.InRows, a.OutRows = test.inRows, test.outRows
		assert.Equal(t, test.want, (&Linear{config: test.c}).size(a), "%+v", test)
	}
}

// Products with few tiles and many inputs are split, but not float32, short parts, or an unknown number of rows.
func TestLinearSplit(t *testing.T) {
	for _, test := range []struct {
		precision           DType
		rows, in, out, want int
	}{
		{F16, 16, 4096, 1024, 4}, {BF16, 16, 4096, 1024, 4}, {F16, 1, 4096, 1024, 4}, {F16, 32, 4096, 1024, 4}, // the heavy feed-forward layer of the ViT
		{F16, 33, 4096, 1024, 0}, {F16, 64, 2048, 1024, 0}, {F16, 64, 3072, 1024, 0}, // as many tiles as SMs
		{F16, 16, 4096, 2032, 2}, {F16, 16, 4096, 2033, 0},
		{F16, 16, 2048, 1024, 2}, {F16, 16, 2047, 1024, 0}, {F16, 16, 3072, 64, 3}, {F16, 1, 1024, 1000, 0}, {F16, 1, 1 << 20, 16, 64},
		{F32, 16, 4096, 1024, 0}, {F16, 0, 4096, 1024, 0},
	} {
		got := LinearSplit(test.precision, test.rows, test.in, test.out)
		assert.Equal(t, test.want, got, "%+v", test)
	}
	assert.Equal(t, [2]uint64{32, 16}, [2]uint64{linearMatrixTiles[fewRowsTile].rows, linearMatrixTiles[fewRowsTile].cols}, "the tile for few rows")
}

// Work is divided into shares of about equal size.
func TestEvenShare(t *testing.T) {
	for _, c := range [][3]uint64{{3072, 2980, 1536}, {3072, 3072, 3072}, {10, 3, 3}, {9, 4, 3}, {1, 5, 1}, {0, 1, 0}} {
		assert.Equal(t, c[2], evenShare(c[0], c[1]), c)
	}
}
