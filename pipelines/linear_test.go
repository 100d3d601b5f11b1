package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

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
	wild                         bool // empty slots have indices that name no row
	inPlace                      bool // residual is y
}

var linearAll = LinearConfig{Bias: true, GELU: true, Gather: true, Norm: true, Score: true, Filled: true, Residual: true, Scatter: true}

func (c linearCase) String() string {
	name := fmt.Sprintf("%dx%d to %d, in %d by %d", c.batch, c.inRows, c.outRows, c.rows, c.In)
	for _, part := range []struct {
		on   bool
		name string
	}{{c.Bias, "bias"}, {c.GELU, "gelu"}, {c.Gather, "gather"}, {c.Norm, "norm"}, {c.Score, "score"}, {c.Filled, "filled"},
		{c.Residual, "residual"}, {c.Scatter, "scatter"}, {c.wild, "wild"}, {c.inPlace, "in place"}} {
		if part.on {
			name += " " + part.name
		}
	}
	return fmt.Sprintf("%s, out %d", name, c.Out)
}

// data makes the arguments of the reference.
func (c linearCase) data() ref.LinearArgs {
	r := rand.New(rand.NewPCG(7, 7))
	slots := c.batch * c.rows
	a := ref.LinearArgs{
		X: normal(11, c.batch*c.inRows*c.In), W: normal(12, c.Out*c.In), Batch: c.batch, InRows: c.inRows, Rows: c.rows, OutRows: c.outRows,
		In: c.In, Out: c.Out, GELU: c.GELU, Base: normal(13, c.batch*c.outRows*c.Out),
	}
	for i := range a.W {
		a.W[i] *= float32(2 / math.Sqrt(float64(c.In)))
	}
	if c.Bias {
		a.Bias = normal(14, c.Out)
	}
	if c.Norm {
		a.Gamma = normal(15, c.In)
		clear(a.X[:c.In]) // the norm of a row of zeros is floored
	}
	if c.Residual {
		a.Residual = normal(16, len(a.Base))
	}
	if c.inPlace {
		a.Residual = a.Base
	}
	for item := range c.batch {
		to := r.Perm(c.outRows)
		for i := range c.rows {
			if c.Gather {
				a.Gather = append(a.Gather, int32(r.IntN(c.inRows)))
			}
			if c.Scatter {
				a.Scatter = append(a.Scatter, int32(to[i]))
			}
			slot := item*c.rows + i
			if c.Score {
				a.Score = append(a.Score, []float32{1, 0.25, 0, -1.5, 1}[slot%5])
			}
			if c.Filled {
				a.Filled = append(a.Filled, []uint8{1, 1, 0, 1, 1, 1, 0}[slot%7])
			}
		}
	}
	if c.wild {
		a.Filled = a.Filled[:0:0]
		for slot := range slots {
			a.Filled = append(a.Filled, uint8(min(slot%3, 1)))
		}
	}
	return a
}

// put puts the data on a bench.
func (c linearCase) put(lab *gputest.Lab, a ref.LinearArgs) LinearArgs {
	args := LinearArgs{X: lab.In("x", a.X), W: lab.In("w", a.W), Y: lab.InOut("y", a.Base), Batch: a.Batch, InRows: a.InRows, Rows: a.Rows, OutRows: a.OutRows}
	gather, scatter := append([]int32(nil), a.Gather...), append([]int32(nil), a.Scatter...)
	filled := make([]uint32, len(a.Filled))
	for slot, f := range a.Filled {
		filled[slot] = uint32(f)
		if !c.wild || f != 0 {
			continue
		}
		filled[slot] = 1 // the index alone makes it empty
		if bad := []int32{-1, math.MinInt32, int32(c.inRows), math.MaxInt32}[slot%4]; c.Gather && (!c.Scatter || slot%2 == 0) {
			gather[slot] = bad
		} else {
			scatter[slot] = max(bad, int32(c.outRows)) // at least as large as either
		}
	}
	if c.Bias {
		args.Bias = lab.In("bias", a.Bias)
	}
	if c.Gather {
		args.Gather = lab.In("gather", gather)
	}
	if c.Norm {
		args.Gamma = lab.In("gamma", a.Gamma)
	}
	if c.Score {
		args.Score = lab.In("score", a.Score)
	}
	if c.Filled {
		args.Filled = lab.In("filled", filled)
	}
	if c.Scatter {
		args.Scatter = lab.In("scatter", scatter)
	}
	switch {
	case c.inPlace:
		args.Residual = args.Y
	case c.Residual:
		args.Residual = lab.In("residual", a.Residual)
	}
	return args
}

// openLinear compiles a config, for one of the tiles or, with tile -1, for what the device gets.
func openLinear(t testing.TB, lab *gputest.Lab, c LinearConfig, tile int) *Linear {
	t.Helper()
	l, err := NewLinear(lab.Dev, c)
	if tile >= 0 {
		require.NoError(t, l.Close())
		l, err = newLinear(lab.Dev, c, func(uint64, uint64) int { return tile }, tile)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l
}

// test runs the case with every tile and compares with the reference; the tiles for GPUs must agree bit for bit.
func (c linearCase) test(t *testing.T) {
	data := c.data()
	want, naive := ref.Linear(data), ref.Linear32(data)
	var first []float32
	for tile, variant := range linearTiles {
		lab := gputest.Open(t)
		l, args := openLinear(t, lab, c.LinearConfig, tile), c.put(lab, data)
		lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
		assert.Equal(t, []string{variant.kernel}, lab.Dispatches(), "everything is fused")
		y := lab.Float32("y")
		require.NoError(t, ref.MaxErr(y, want).Within(ref.Bound(naive, want, 1e-6)), variant.kernel)
		switch tile {
		case 0:
			first = y
		case 1:
			require.Equal(t, first, y, "the bits depend on the tile")
		}
	}
}

func TestLinearSizes(t *testing.T) {
	for _, s := range []struct{ rows, in, out int }{
		{1, 1, 1}, {1, 512, 1}, {3, 1, 5}, {63, 15, 64}, {64, 16, 65}, {65, 17, 63}, {127, 31, 129}, {128, 32, 128}, {129, 33, 127}, {2, 509, 131},
		{131, 20, 130}, {257, 4, 36}, {61, 1030, 4},
	} {
		c := linearCase{LinearConfig: LinearConfig{In: s.in, Out: s.out}, batch: 1, inRows: s.rows, rows: s.rows, outRows: s.rows}
		t.Run(c.String(), c.test)
		if s.rows > 63 && s.rows < 129 || s.in < 4 {
			continue // compiling takes CPU drivers seconds
		}
		c.LinearConfig = linearAll
		c.In, c.Out, c.inRows, c.outRows = s.in, s.out, s.rows+3, s.rows+2
		t.Run(c.String(), c.test)
	}
}

// Every part alone, then together; where rows do not lie on vec4, only what reads or writes rows: compiling takes CPU drivers seconds.
func TestLinearParts(t *testing.T) {
	for _, s := range []struct{ in, out int }{{48, 36}, {37, 35}} {
		for _, c := range []linearCase{
			{LinearConfig: LinearConfig{Bias: true}},
			{LinearConfig: LinearConfig{GELU: true}},
			{LinearConfig: LinearConfig{Gather: true}, inRows: 11},
			{LinearConfig: LinearConfig{Norm: true}},
			{LinearConfig: LinearConfig{Score: true}},
			{LinearConfig: LinearConfig{Filled: true}},
			{LinearConfig: LinearConfig{Residual: true}},
			{LinearConfig: LinearConfig{Residual: true}, inPlace: true},
			{LinearConfig: LinearConfig{Scatter: true}, outRows: 200},
			{LinearConfig: LinearConfig{Bias: true, Norm: true, GELU: true}, inRows: 71, outRows: 75},
			{LinearConfig: LinearConfig{Gather: true, Filled: true}, wild: true},
			{LinearConfig: LinearConfig{Scatter: true, Filled: true}, wild: true},
			{LinearConfig: LinearConfig{Gather: true, Scatter: true, Filled: true}, inRows: 30, wild: true},
			{LinearConfig: LinearConfig{Gather: true, Scatter: true, Score: true, Residual: true}, inRows: 400, outRows: 99, inPlace: true},
			{LinearConfig: linearAll, inRows: 300, outRows: 150},
			{LinearConfig: linearAll, inRows: 300, outRows: 150, inPlace: true},
		} {
			if part := c.LinearConfig; s.in%4 != 0 && part != linearAll && part != (LinearConfig{Norm: true}) && part != (LinearConfig{Residual: true}) {
				continue
			}
			c.In, c.Out, c.batch, c.rows = s.in, s.out, 3, 67
			c.inRows, c.outRows = max(c.inRows, c.rows*(1-int(flag(c.Gather)))), max(c.outRows, c.rows)
			if c.inRows == 0 {
				c.inRows = c.rows
			}
			t.Run(c.String(), c.test)
		}
	}
}

// A slot list without a filled slot leaves y as it is.
func TestLinearNothingFilled(t *testing.T) {
	c := linearCase{LinearConfig: linearAll, batch: 2, inRows: 9, rows: 5, outRows: 7}
	c.In, c.Out = 8, 12
	data := c.data()
	clear(data.Filled)
	lab := gputest.Open(t)
	l, args := openLinear(t, lab, c.LinearConfig, -1), c.put(lab, data)
	lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
	assert.Equal(t, data.Base, lab.Float32("y"))
}

// mgl64 is an oracle that shares no code with the reference.
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
	lab := gputest.Open(t)
	l, args := openLinear(t, lab, c.LinearConfig, -1), c.put(lab, data)
	lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
	assert.NoError(t, ref.MaxErr(lab.Float32("y"), want).Within(ref.Bound(ref.Linear32(data), want, 1e-6)))
}

// The GELU alone, from one tail to the other.
func TestLinearGELU(t *testing.T) {
	const rows = 40001
	c := linearCase{LinearConfig: LinearConfig{In: 1, Out: 1, GELU: true}, batch: 1, inRows: rows, rows: rows, outRows: rows}
	data := c.data()
	data.W[0] = 1
	for i := range data.X {
		data.X[i] = (float32(i) - 20000) / 2000
	}
	data.X[0], data.X[1], data.X[2], data.X[3] = -1e30, -1e4, -100, 0
	lab := gputest.Open(t)
	l, args := openLinear(t, lab, c.LinearConfig, -1), c.put(lab, data)
	lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
	y := lab.Float32("y")
	for i, x := range data.X {
		want := 0.5 * float64(x) * math.Erfc(-float64(x)/math.Sqrt2)
		if !assert.InDelta(t, want, y[i], 2e-7*max(1, math.Abs(want)), "gelu(%v)", x) {
			return
		}
	}
}

// The bits of a row are the same alone, at another place, in another batch, and with other rows around it.
func TestLinearBits(t *testing.T) {
	for tile, variant := range linearTiles {
		for _, s := range []struct{ in, out int }{{512, 132}, {67, 69}} {
			t.Run(fmt.Sprintf("%s, in %d, out %d", variant.kernel, s.in, s.out), func(t *testing.T) { linearBits(t, tile, s.in, s.out) })
		}
	}
}

func linearBits(t *testing.T, tile, in, out int) {
	many := linearCase{LinearConfig: linearAll, batch: 2, inRows: 211, rows: 141, outRows: 150}
	many.In, many.Out = in, out
	data := many.data()
	for i := range data.Score {
		data.Score[i], data.Filled[i] = 0.75, 1
	}
	lab := gputest.Open(t)
	l, args := openLinear(t, lab, many.LinearConfig, tile), many.put(lab, data)
	lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
	y := lab.Float32("y")
	for _, slot := range []int{0, 1, 63, 64, 130, 141, 281} {
		item := slot / many.rows
		from, to := item*many.inRows+int(data.Gather[slot]), item*many.outRows+int(data.Scatter[slot])
		one := data
		one.Batch, one.InRows, one.Rows, one.OutRows = 1, 1, 1, 1
		one.X, one.Gather, one.Scatter, one.Score, one.Filled = data.X[from*in:][:in], []int32{0}, []int32{0}, data.Score[:1], data.Filled[:1]
		one.Residual, one.Base = data.Residual[to*out:][:out], data.Base[:out]
		lab := gputest.Open(t)
		args := many.put(lab, one)
		lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
		assert.Equal(t, y[to*out:][:out], lab.Float32("y"), "slot %d", slot)
	}
}

// A product that would take too long for one dispatch takes several, with the same bits.
func TestLinearInPieces(t *testing.T) {
	c := linearCase{LinearConfig: linearAll, batch: 1, inRows: 300, rows: 290, outRows: 300}
	c.In, c.Out = 24, 200
	data := c.data()
	var whole []float32
	for _, test := range []struct {
		flops    float64
		together uint64
		pieces   int
	}{{1e12, 1, 1}, {1, 100, 1}, {1, 20, 1}, {1, 19, 2}, {2 * 64 * 64 * 24 * 7, 1, 3}, {1, 1, 20}} {
		lab := gputest.Open(t)
		l, args := openLinear(t, lab, c.LinearConfig, 1), c.put(lab, data)
		l.flops, l.together = test.flops, test.together
		lab.Run(func(tape *vk.Tape) error { return l.Record(tape, args) })
		assert.Len(t, lab.Dispatches(), test.pieces)
		if whole == nil {
			whole = lab.Float32("y")
		}
		assert.Equal(t, whole, lab.Float32("y"), "%d pieces", test.pieces)
	}
}

func TestLinearTile(t *testing.T) {
	for _, test := range []struct {
		rows, out uint64
		side      uint64
	}{
		{65536, 256, 128}, {65536, 512, 128}, {4096, 4096, 128}, {2048, 2048, 128}, {2048, 512, 64}, {1024, 2048, 64}, {1, 1, 64}, {65536, 64, 64},
		{65536, 1, 64}, {65536, 65, 128}, {65536, 320, 64}, {65536, 1088, 128}, {1 << 31, 1 << 30, 128},
	} {
		assert.Equal(t, test.side, linearTiles[linearTile(test.rows, test.out)].rows, "%d by %d", test.rows, test.out)
	}
}

// Rows of x and of y may lie beyond 4 GiB.
func TestLinearFarRows(t *testing.T) {
	dev := gputest.Device(t)
	const in, out, rows, far = 512, 256, 3, 4300000 // 8.8 and 4.4 GB
	budget, used := dev.MemoryBudget()
	if need := uint64(far*(in+out)*4) + 1<<30; budget < used+need {
		t.Skipf("the device has %d of %d bytes left, the test takes %d", budget-used, budget, need)
	}
	gputest.Count()
	c := linearCase{LinearConfig: LinearConfig{In: in, Out: out, Gather: true, Scatter: true, Residual: true}, batch: 1, inRows: rows, rows: rows, outRows: rows}
	data := c.data()
	want := ref.Linear(data)
	at := []int32{5, far / 2, far - 1}
	l, err := NewLinear(dev, c.LinearConfig)
	require.NoError(t, err)
	defer l.Close()
	buffer := func(name string, size uint64) vk.Range {
		b, err := dev.NewBuffer(name, size)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, b.Close()) })
		return b.Range()
	}
	x, y, w, index := buffer("x", far*in*4), buffer("y", far*out*4), buffer("w", in*out*4), buffer("index", rows*4)
	// The data's rows, by the data's own indices, go to the far places.
	moved := make([]int32, rows)
	transfers := []vk.Transfer{{Range: w, Data: vk.Bytes(data.W)}}
	for slot := range rows {
		moved[slot] = at[slot]
		from, to := int(data.Gather[slot]), int(data.Scatter[slot])
		transfers = append(transfers,
			vk.Transfer{Range: x.Slice(uint64(at[slot])*in*4, in*4), Data: vk.Bytes(data.X[from*in:][:in])},
			vk.Transfer{Range: y.Slice(uint64(at[slot])*out*4, out*4), Data: vk.Bytes(data.Residual[to*out:][:out])})
	}
	transfers = append(transfers, vk.Transfer{Range: index, Data: vk.Bytes(moved)})
	require.NoError(t, dev.Upload(transfers...))
	tape, err := dev.NewTape(vk.TapeConfig{Name: "far"})
	require.NoError(t, err)
	defer tape.Close()
	require.NoError(t, l.Record(tape, LinearArgs{X: x, W: w, Gather: index, Scatter: index, Residual: y, Y: y, Batch: 1, InRows: far, Rows: rows, OutRows: far}))
	require.NoError(t, tape.Run())
	for slot := range rows {
		got, to := make([]float32, out), int(data.Scatter[slot])
		require.NoError(t, dev.Download(vk.Transfer{Range: y.Slice(uint64(at[slot])*out*4, out*4), Data: vk.Bytes(got)}))
		assert.NoError(t, ref.MaxErr(got, want[to*out:][:out]).Within(1e-5))
	}
}

func TestLinearBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	for want, c := range map[string]LinearConfig{
		"Linear: In is 0, want 1 to 1073741823":           {Out: 1},
		"Linear: Out is -1, want 1 to 1073741823":         {In: 1, Out: -1},
		"Linear: In is 1073741824, want 1 to 1073741823":  {In: 1 << 30, Out: 1},
		"Linear: Out is 1073741824, want 1 to 1073741823": {In: 1, Out: 1 << 30},
	} {
		_, err := NewLinear(dev, c)
		assert.ErrorContains(t, err, want)
	}
}

func TestLinearBadInput(t *testing.T) {
	lab := gputest.Open(t)
	c := linearCase{LinearConfig: linearAll, batch: 2, inRows: 6, rows: 4, outRows: 5}
	c.In, c.Out = 8, 12
	l, good := openLinear(t, lab, c.LinearConfig, -1), c.put(lab, c.data())
	bare := openLinear(t, lab, LinearConfig{In: 8, Out: 12}, -1)
	plain := LinearArgs{X: good.X, W: good.W, Y: lab.Out("plain", 2*6*12*4), Batch: 2, InRows: 6, Rows: 6, OutRows: 6}
	for _, test := range []struct {
		want   string
		change func(*LinearArgs)
	}{
		{"Batch is 0, want 1", func(a *LinearArgs) { a.Batch = 0 }},
		{"Rows is -1, want 1", func(a *LinearArgs) { a.Rows = -1 }},
		{"InRows is -2, want 1", func(a *LinearArgs) { a.InRows = -2 }},
		{"OutRows is 3000000000, want 1", func(a *LinearArgs) { a.OutRows = 3e9 }},
		{"Batch*Rows is 4000000000, want 1", func(a *LinearArgs) { a.Batch, a.Rows = 2e9, 2 }},
		{"Batch*InRows is 4000000000, want 1", func(a *LinearArgs) { a.InRows = 2e9 }},
		{"Batch*OutRows is 4000000000, want 1", func(a *LinearArgs) { a.OutRows = 2e9 }},
		{"x has 384 bytes, want [Batch 2, InRows 4, In 8] f32, 256 bytes", func(a *LinearArgs) { a.InRows = 0 }},
		{"y has 480 bytes, want [Batch 2, OutRows 4, Out 12] f32, 384 bytes", func(a *LinearArgs) { a.OutRows, a.Residual = 0, a.Residual.Slice(0, 384) }},
		{"x is missing, want [Batch 2, InRows 6, In 8] f32, 384 bytes", func(a *LinearArgs) { a.X = vk.Range{} }},
		{"w has 380 bytes, want [Out 12, In 8] f32, 384 bytes", func(a *LinearArgs) { a.W = a.W.Slice(0, 380) }},
		{"bias is missing, want [Out 12] f32, 48 bytes", func(a *LinearArgs) { a.Bias = vk.Range{} }},
		{"gather has 28 bytes, want [Batch 2, Rows 4] i32, 32 bytes", func(a *LinearArgs) { a.Gather = a.Gather.Slice(0, 28) }},
		{"gamma is missing, want [In 8] f32, 32 bytes", func(a *LinearArgs) { a.Gamma = vk.Range{} }},
		{"score is missing, want [Batch 2, Rows 4] f32, 32 bytes", func(a *LinearArgs) { a.Score = vk.Range{} }},
		{"filled is missing, want [Batch 2, Rows 4] u32, 32 bytes", func(a *LinearArgs) { a.Filled = vk.Range{} }},
		{"residual is missing, want [Batch 2, OutRows 5, Out 12] f32, 480 bytes", func(a *LinearArgs) { a.Residual = vk.Range{} }},
		{"scatter is missing, want [Batch 2, Rows 4] i32, 32 bytes", func(a *LinearArgs) { a.Scatter = vk.Range{} }},
		{"y is missing, want [Batch 2, OutRows 5, Out 12] f32, 480 bytes", func(a *LinearArgs) { a.Y = vk.Range{} }},
		{"y starts at byte 260 of its buffer, want a multiple of 16", func(a *LinearArgs) { a.Y = lab.Out("odd", 484).Slice(4, 480) }},
	} {
		t.Run(test.want, func(t *testing.T) {
			assert.ErrorContains(t, linearError(t, lab, l, good, test.change), "pipelines: Linear: "+test.want)
		})
	}
	for _, test := range []struct {
		want   string
		change func(*LinearArgs)
	}{
		{"InRows is 6, want at least Rows 7 where there is no gather", func(a *LinearArgs) { a.Rows, a.OutRows = 7, 7 }},
		{"OutRows is 5, want at least Rows 6 where there is no scatter", func(a *LinearArgs) { a.OutRows = 5 }},
		{"bias has 48 bytes, want none", func(a *LinearArgs) { a.Bias = good.Bias }},
		{"gather has 32 bytes, want none", func(a *LinearArgs) { a.Gather = good.Gather }},
		{"gamma has 32 bytes, want none", func(a *LinearArgs) { a.Gamma = good.Gamma }},
		{"score has 32 bytes, want none", func(a *LinearArgs) { a.Score = good.Score }},
		{"filled has 32 bytes, want none", func(a *LinearArgs) { a.Filled = good.Filled }},
		{"residual has 480 bytes, want none", func(a *LinearArgs) { a.Residual = good.Residual }},
		{"scatter has 32 bytes, want none", func(a *LinearArgs) { a.Scatter = good.Scatter }},
	} {
		t.Run(test.want, func(t *testing.T) {
			assert.ErrorContains(t, linearError(t, lab, bare, plain, test.change), "pipelines: Linear: "+test.want)
		})
	}
	assert.NoError(t, linearError(t, lab, l, good, func(*LinearArgs) {}))
	require.NoError(t, l.Close())
	assert.ErrorIs(t, linearError(t, lab, l, good, func(*LinearArgs) {}), vk.ErrClosed)
	assert.NoError(t, (*Linear)(nil).Close())
}

func linearError(t *testing.T, lab *gputest.Lab, l *Linear, a LinearArgs, change func(*LinearArgs)) error {
	t.Helper()
	change(&a)
	tape, err := lab.Dev.NewTape(vk.TapeConfig{Name: "bad"})
	require.NoError(t, err)
	defer tape.Close()
	return l.Record(tape, a)
}

// BenchmarkLinear times the products of the models' layers, with every tile.
func BenchmarkLinear(b *testing.B) {
	dev := gputest.Device(b)
	for _, c := range []LinearConfig{{In: 512, Out: 256, Norm: true, Bias: true, GELU: true}, {In: 512, Out: 512}, {In: 256, Out: 512, Bias: true}, {In: 512, Out: 2048}, {In: 2048, Out: 512}, {In: 4096, Out: 4096}} {
		for _, rows := range []int{1024, 2048, 4096, 65536} {
			flops := 2 * float64(rows) * float64(c.In) * float64(c.Out)
			if dev.Caps().CPU && flops > 5e9 || flops > 3e11 {
				continue
			}
			for tile, variant := range linearTiles {
				b.Run(fmt.Sprintf("%dx%dx%d/%s", rows, c.Out, c.In, variant.kernel), func(b *testing.B) {
					lab := gputest.Open(b)
					l, args := openLinear(b, lab, c, tile), LinearArgs{Batch: 1, Rows: rows}
					args.X, args.W = lab.In("x", normal(1, rows*c.In)), lab.In("w", normal(2, c.In*c.Out))
					args.Y = lab.Out("y", rows*c.Out*4)
					if c.Bias {
						args.Bias = lab.In("bias", normal(3, c.Out))
					}
					if c.Norm {
						args.Gamma = lab.In("gamma", normal(4, c.In))
					}
					linearTime(b, lab, l, args, flops)
				})
			}
		}
	}
}

// linearTime runs many products in one tape, so that clocks rise and the submit does not count.
func linearTime(b *testing.B, lab *gputest.Lab, l *Linear, args LinearArgs, flops float64) {
	tape, err := lab.Dev.NewTape(vk.TapeConfig{Name: b.Name()})
	require.NoError(b, err)
	defer tape.Close()
	repeat := 1
	if !lab.Dev.Caps().CPU {
		repeat = max(1, int(4e11/flops))
	}
	for range repeat {
		require.NoError(b, l.Record(tape, args))
	}
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
		require.NoError(b, tape.Run())
	}
	for b.Loop() {
		require.NoError(b, tape.Run())
	}
	b.ReportMetric(flops*float64(repeat)*float64(b.N)/b.Elapsed().Seconds()/1e12, "TFLOP/s")
	b.ReportMetric(0, "ns/op")
}
