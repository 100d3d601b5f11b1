package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/go-gl/mathgl/mgl64"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// linearCase is a config with sizes. Its data is the same every time.
type linearCase struct {
	LinearConfig
	batch, inRows, rows, outRows int
	badIndices                   bool // empty slots have indices out of range instead of valid = 0
	inPlace                      bool // residual is y
	lists, list                  int
	minAlign                     bool // every range has no more than the alignment that it needs
	smallRows                    bool // rows of x have norms down to 0
}

var linearAll = LinearConfig{Bias: true, GELU: true, Gather: true, Norm: true, Score: true, Valid: true, Residual: true, Scatter: true,
	SkipBias: true}

func (c linearCase) String() string {
	name := fmt.Sprintf("%dx%d to %d, in %d by %d", c.batch, c.inRows, c.outRows, c.rows, c.In)
	for _, part := range []struct {
		on   bool
		name string
	}{{c.Bias, "bias"}, {c.GELU, "gelu"}, {c.Gather, "gather"}, {c.Norm, "norm"}, {c.Score, "score"}, {c.Valid, "valid"},
		{c.Residual, "residual"}, {c.Scatter, "scatter"}, {c.badIndices, "bad indices"}, {c.inPlace, "in place"},
		{c.SkipBias, "skip bias"}, {c.TransposedW, "transposed"}, {c.lists > 0, fmt.Sprintf("list %d of %d", c.list, c.lists)}, {c.minAlign, "minimum alignment"}} {
		if part.on {
			name += " " + part.name
		}
	}
	return fmt.Sprintf("%s, out %d", name, c.Out)
}

// data returns the arguments of the CPU reference.
func (c linearCase) data() ref.LinearArgs {
	r := rand.New(rand.NewPCG(7, 7))
	slots := c.batch * c.rows
	a := ref.LinearArgs{
		X: normal(11, c.batch*c.inRows*c.In), W: normal(12, c.Out*c.In), Batch: c.batch, InRows: c.inRows, Rows: c.rows, OutRows: c.outRows,
		In: c.In, Out: c.Out, GELU: c.GELU, Lists: c.lists, List: c.list, Base: normal(13, c.batch*c.outRows*c.Out),
	}
	for i := range a.X {
		if row := i / c.In; c.smallRows {
			a.X[i] *= float32(math.Pow(10, -float64(row%16))) * float32(specBool(row%16 < 15))
		}
	}
	for i := range a.W {
		a.W[i] *= float32(2 / math.Sqrt(float64(c.In)))
	}
	if c.Bias {
		a.Bias = normal(14, c.Out)
	}
	if c.Norm {
		a.Gamma = normal(15, c.In)
		clear(a.X[:c.In]) // a row of zeros: its norm is clamped
	}
	if c.Residual {
		a.Residual = normal(16, len(a.Base))
	}
	if c.inPlace {
		a.Residual = a.Base
	}
	for range c.batch {
		for _, to := range r.Perm(c.outRows)[:c.rows*int(specBool(c.Scatter))] {
			a.Scatter = append(a.Scatter, int32(to))
		}
	}
	for entry := range slots * max(c.lists, 1) {
		if c.Gather {
			a.Gather = append(a.Gather, int32(r.IntN(c.inRows)))
		}
		if c.Score {
			a.Score = append(a.Score, []float32{1, 0.25, 0, -1.5, 1}[entry%5])
		}
		if c.Valid {
			a.Valid = append(a.Valid, []uint8{1, 1, 0, 1, 1, 1, 0}[entry%7])
		}
	}
	for row := range c.batch * c.outRows * int(specBool(c.SkipBias)) {
		a.SkipBias = append(a.SkipBias, uint8(row%3%2))
	}
	if c.badIndices {
		a.Valid = a.Valid[:0:0]
		for slot := range slots * max(c.lists, 1) {
			a.Valid = append(a.Valid, uint8(min(slot%3, 1)))
		}
	}
	return a
}

// args uploads the data.
func (c linearCase) args(gpu *gputest.Harness, a ref.LinearArgs) LinearArgs {
	in := func(name string, data any, align uint64) vk.Range {
		if c.minAlign {
			return inputAt(gpu, name, data, align)
		}
		return gpu.In(name, data)
	}
	var scratch vk.Range
	if bytes := LinearScratch(c.LinearConfig, a.Batch*a.Rows); bytes > 0 {
		scratch = gpu.Out("scratch", int(bytes))
	}
	alignIn, alignOut := rowAlign(c.In), rowAlign(c.Out)
	w, columns := a.W, c.In
	if c.TransposedW {
		w, columns = make([]float32, len(a.W)), c.Out
		for i, v := range a.W {
			w[i%c.In*c.Out+i/c.In] = v
		}
	}
	args := LinearArgs{X: in("x", encode(c.x(), a.X), c.x().rowAlign(c.In)), W: in("w", c.Precision.encodeWeights(w, columns), c.Precision.rowAlign(c.Precision.Columns(columns))),
		Batch: a.Batch, InRows: a.InRows, Rows: a.Rows, OutRows: a.OutRows, Lists: a.Lists, List: a.List, Scratch: scratch}
	gather, scatter := append([]int32(nil), a.Gather...), append([]int32(nil), a.Scatter...)
	valid, skipBias := make([]uint32, len(a.Valid)), make([]uint32, len(a.SkipBias))
	for slot, v := range a.Valid {
		valid[slot] = uint32(v)
		if !c.badIndices || v != 0 {
			continue
		}
		valid[slot] = 1 // only the index makes it empty
		if bad := []int32{-1, math.MinInt32, int32(c.inRows), math.MaxInt32}[slot%4]; c.Gather && (!c.Scatter || slot%2 == 0) {
			gather[slot] = bad
		} else {
			scatter[slot] = max(bad, int32(c.outRows)) // out of range for both x and y
		}
	}
	for i, u := range a.SkipBias {
		skipBias[i] = uint32(u) << 31 // any word except 0
	}
	if args.Y = gpu.InOut("y", encode(c.y(), a.Base)); c.minAlign {
		args.Y = gpu.InOut("y with margins", withMargins(a.Base, alignOut)).Slice(alignOut, uint64(4*len(a.Base)))
	}
	if c.inPlace {
		args.Residual = args.Y
	}
	for _, part := range []struct {
		on    bool
		name  string
		data  any
		align uint64
		arg   *vk.Range
	}{
		{c.Bias, "bias", a.Bias, alignOut, &args.Bias}, {c.Gather, "gather", gather, wordAlign, &args.Gather}, {c.Norm, "gamma", a.Gamma, alignIn, &args.Gamma},
		{c.Score, "score", a.Score, wordAlign, &args.Score}, {c.Valid, "valid", valid, wordAlign, &args.Valid},
		{c.Scatter, "scatter", scatter, wordAlign, &args.Scatter}, {c.SkipBias, "skip bias", skipBias, wordAlign, &args.SkipBias},
		{c.Residual && !c.inPlace, "residual", a.Residual, alignOut, &args.Residual},
	} {
		if part.on {
			*part.arg = in(part.name, part.data, part.align)
		}
	}
	return args
}

// newLinear makes a product with a tile, "": the one that is selected by size.
func newLinear(t testing.TB, gpu *gputest.Harness, c LinearConfig, tile string) *Linear {
	t.Helper()
	c.Tile = tile
	l, err := NewLinear(gpu.Dev, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l
}

// test runs the case with every tile and compares with the CPU reference. All tiles must give the same bits.
func (c linearCase) test(t *testing.T) {
	data := c.data()
	want, naive := ref.Linear(data), ref.Linear32(data)
	var first []float32
	for i, tile := range linearTiles {
		if gputest.Device(t).Caps().CPU && i == (c.In+c.Out+c.rows)%2 {
			continue // CPU drivers compile each for seconds: every case omits one of the two GPU tiles
		}
		if testing.Short() && tile.rows == 128 {
			continue // CPU drivers compile it for 2 s; TestLinearBits runs it once
		}
		gpu := gputest.New(t)
		l, args := newLinear(t, gpu, c.LinearConfig, tile.name()), c.args(gpu, data)
		gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
		assert.Equal(t, []string{tile.kernel}, gpu.StepNames(), "one fused kernel")
		y := gpu.Float32("y")
		if c.minAlign {
			y = outputFrom(t, gpu, "y with margins", rowAlign(c.Out))
		}
		require.NoError(t, ref.MaxErr(y, want).Within(ref.Bound(naive, want, 1e-6)), tile.kernel)
		if first == nil {
			first = y
		}
		require.Equal(t, first, y, "%s: the bits depend on the tile", tile.kernel)
	}
}

func TestLinearSizes(t *testing.T) {
	sizes := []struct{ rows, in, out int }{
		{1, 1, 1}, {1, 512, 1}, {3, 1, 5}, {63, 15, 64}, {64, 16, 65}, {65, 17, 63}, {127, 31, 129}, {128, 32, 128}, {129, 33, 127}, {2, 509, 131},
		{131, 20, 130}, {257, 4, 36}, {61, 1030, 4},
	}
	if testing.Short() { // CPU drivers compile kernels for 30 s for all sizes
		sizes = []struct{ rows, in, out int }{{2, 509, 131}}
	}
	for i, s := range sizes {
		if gputest.Reduced() && !testing.Short() && i%2 == 1 { // all take a minute
			continue
		}
		c := linearCase{LinearConfig: LinearConfig{In: s.in, Out: s.out}, batch: 1, inRows: s.rows, rows: s.rows, outRows: s.rows}
		if !testing.Short() {
			t.Run(c.String(), c.test)
		}
		if s.rows > 63 && s.rows < 129 || s.in < 4 {
			continue // CPU drivers compile each for seconds
		}
		c.LinearConfig = linearAll
		c.In, c.Out, c.inRows, c.outRows = s.in, s.out, s.rows+3, s.rows+2
		t.Run(c.String(), c.test)
	}
}

// Every fused operation alone, then together. Sizes that are no multiple of 4 run only what reads or writes rows: CPU
// drivers compile each for seconds.
func TestLinearOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers; TestLinearSizes has all operations")
	}
	for _, s := range []struct{ in, out int }{{48, 36}, {37, 35}} {
		for _, c := range []linearCase{
			{LinearConfig: LinearConfig{Bias: true}},
			{LinearConfig: LinearConfig{GELU: true}},
			{LinearConfig: LinearConfig{Gather: true}, inRows: 11},
			{LinearConfig: LinearConfig{Norm: true}},
			{LinearConfig: LinearConfig{Score: true}},
			{LinearConfig: LinearConfig{Valid: true}},
			{LinearConfig: LinearConfig{Residual: true}},
			{LinearConfig: LinearConfig{Residual: true}, inPlace: true},
			{LinearConfig: LinearConfig{Scatter: true}, outRows: 200},
			{LinearConfig: LinearConfig{Bias: true, SkipBias: true}, outRows: 70},
			{LinearConfig: LinearConfig{Gather: true, Score: true, Valid: true}, inRows: 40, lists: 3, list: 1},
			{LinearConfig: LinearConfig{Gather: true, Valid: true}, inRows: 40, lists: 2, list: 1, badIndices: true},
			{LinearConfig: LinearConfig{Bias: true, Norm: true, GELU: true}, inRows: 71, outRows: 75},
			{LinearConfig: LinearConfig{Gather: true, Valid: true}, badIndices: true},
			{LinearConfig: LinearConfig{Scatter: true, Valid: true}, badIndices: true},
			{LinearConfig: LinearConfig{Gather: true, Scatter: true, Valid: true}, inRows: 30, badIndices: true},
			{LinearConfig: LinearConfig{Gather: true, Scatter: true, Score: true, Residual: true}, inRows: 400, outRows: 99, inPlace: true},
			{LinearConfig: linearAll, inRows: 300, outRows: 150},
			{LinearConfig: linearAll, inRows: 300, outRows: 150, inPlace: true},
			{LinearConfig: linearAll, inRows: 300, outRows: 150, minAlign: true},
		} {
			if part := c.LinearConfig; s.in%4 != 0 && part != linearAll && (gputest.Reduced() || part != (LinearConfig{Norm: true}) && part != (LinearConfig{Residual: true})) {
				continue // CPU drivers compile kernels for 25 s for all operations
			}
			c.In, c.Out, c.batch, c.rows = s.in, s.out, 3, 67
			c.inRows, c.outRows = max(c.inRows, c.rows*(1-int(specBool(c.Gather)))), max(c.outRows, c.rows)
			if c.inRows == 0 {
				c.inRows = c.rows
			}
			t.Run(c.String(), c.test)
		}
	}
}

// A list of empty slots leaves y unchanged.
func TestLinearEmptySlots(t *testing.T) {
	c := linearCase{LinearConfig: linearAll, batch: 2, inRows: 9, rows: 5, outRows: 7}
	c.In, c.Out = 8, 12
	data := c.data()
	clear(data.Valid)
	gpu := gputest.New(t)
	l, args := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, data)
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
	assert.Equal(t, data.Base, gpu.Float32("y"))
}

// mgl64 is an oracle that shares no code with the CPU reference.
func TestLinearOracle(t *testing.T) {
	const rows, in, out = 70, 45, 38
	c := linearCase{LinearConfig: LinearConfig{In: in, Out: out}, batch: 1, inRows: rows, rows: rows, outRows: rows}
	data := c.data()
	x, w := mgl64.NewMatrix(rows, in), mgl64.NewMatrix(out, in)
	for i, v := range data.X {
		x.Set(i/in, i%in, float64(v))
	}
	for i, v := range data.W {
		w.Set(i/in, i%in, float64(v))
	}
	product := x.MulMxN(nil, w.Transpose(nil))
	want := make([]float64, rows*out)
	for i := range want {
		want[i] = product.At(i/out, i%out)
	}
	assert.InDeltaSlice(t, want, ref.Linear(data), 1e-12)
	gpu := gputest.New(t)
	l, args := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, data)
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
	assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.Linear32(data), want, 1e-6)))
}

// GELU alone, over the whole range of its argument.
func TestLinearGELU(t *testing.T) {
	const rows = 40001
	c := linearCase{LinearConfig: LinearConfig{In: 1, Out: 1, GELU: true}, batch: 1, inRows: rows, rows: rows, outRows: rows}
	data := c.data()
	data.W[0] = 1
	for i := range data.X {
		data.X[i] = (float32(i) - 20000) / 2000
	}
	data.X[0], data.X[1], data.X[2], data.X[3] = -1e30, -1e4, -100, 0
	gpu := gputest.New(t)
	l, args := newLinear(t, gpu, c.LinearConfig, ""), c.args(gpu, data)
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, args) })
	y := gpu.Float32("y")
	for i, x := range data.X {
		want := 0.5 * float64(x) * math.Erfc(-float64(x)/math.Sqrt2)
		if !assert.InDelta(t, want, y[i], 2e-7*max(1, math.Abs(want)), "gelu(%v)", x) {
			return
		}
	}
}
