package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Linear multiplies rows by a matrix, with a fused way in (row gather, RMSNorm) and a fused way out (bias, GELU, score, residual,
// scatter).
//
//	x [Batch, InRows, In] f32 in    w [Out, In] f32 in    y [Batch, OutRows, Out] f32 out
//	bias [Out] f32 in    gamma [In] f32 in    residual [Batch, OutRows, Out] f32 in
//	gather [Batch, Lists, Rows] i32 in    score [Batch, Lists, Rows] f32 in    filled [Batch, Lists, Rows] u32 in
//	scatter [Batch, Rows] i32 in    unless [Batch, OutRows] u32 in
//	v[r, o]          = sum_i norm(x[gather[r]])[i] * w[o, i] + bias[o]
//	y[scatter[r], o] = gelu(v[r, o]) * score[r] + residual[scatter[r], o]
//
// A slot r is empty, and writes nothing, if its filled word or its score is 0, or if its index of gather or scatter names no row.
// No two other slots of a batch item may name the same row of y: which of them wins would be chance. Rows of y that no slot names keep
// what they hold. With unless, the bias is added only to rows of y whose word of it is 0.
//
// Of several lists, those of a router's routes, a product takes one.
//
// The sum runs over i = 0, 1, .. In-1 whatever the tile: the bits of a row depend on that row, w and the config alone.
//
// Shader: shaders/linear.comp. Reference: internal/ref.Linear.
type Linear struct {
	config  LinearConfig
	kernels kernels

	tile     func(rows, out uint64) int // which of linearTiles: a pure function of sizes
	flops    float64                    // linearFlops, but for tests; together too
	together uint64
}

// LinearConfig is baked into the kernel. A part that is false is left out, and its argument must be absent.
type LinearConfig struct {
	In, Out  int
	Bias     bool
	GELU     bool // exact, by erf
	Gather   bool
	Norm     bool // RMSNorm of the source row, with gamma
	Score    bool
	Filled   bool
	Residual bool
	Scatter  bool
	Unless   bool // with Bias
}

// LinearArgs is one product. It reads all ranges but Y, which it writes. Y overlaps no other range, but Residual may be the same range.
type LinearArgs struct {
	X, W     vk.Range
	Bias     vk.Range
	Gather   vk.Range // row of x in the same batch item; absent: slot r reads row r
	Gamma    vk.Range
	Score    vk.Range
	Filled   vk.Range // 0 or 1
	Residual vk.Range
	Scatter  vk.Range // row of y and of residual in the same batch item; absent: slot r writes row r
	Unless   vk.Range // not 0: this row of y gets no bias
	Y        vk.Range

	Batch   int
	InRows  int // rows of x an item; 0: Rows
	Rows    int // slots an item
	OutRows int // rows of y an item; 0: Rows
	Lists   int // lists of gather, score and filled an item; 0: 1. With more than one there is no Scatter
	List    int // which of them this product takes
}

type linearPush struct{ slots, rows, inRows, outRows, lists, list, first, tiles uint32 }

var _ [32 - unsafe.Sizeof(linearPush{})]byte
var _ [unsafe.Sizeof(linearPush{}) - 32]byte

// linearTiles are the variants of the kernel: a workgroup computes a tile of y of so many rows and columns. All give the same bits.
var linearTiles = [...]struct {
	kernel     string
	rows, cols uint64
}{{"linear", 128, 128}, {"linear_64", 64, 64}, {"linear_cpu", 64, 8}}

const (
	// linearMany workgroups of the large tile keep a large GPU, of 132 processors, busy. With fewer, small tiles spread better.
	linearMany = 128
	// linearFlops is the work of one dispatch at most, unless it has few tiles. Slow devices do 0.2 TFLOP/s, and some systems
	// stop work that takes two seconds.
	linearFlops = 5e10
	// linearTogether tiles stay in one dispatch however long they take: the last workgroups of a dispatch leave a GPU half idle.
	linearTogether = 1024
)

// NewLinear makes a product for a device. Its kernels are compiled when they are first recorded.
func NewLinear(dev *vk.Device, c LinearConfig) (*Linear, error) {
	if !dev.Caps().CPU {
		return newLinear(dev, c, linearTile)
	}
	l, err := newLinear(dev, c, func(uint64, uint64) int { return 2 })
	if err != nil {
		return nil, err
	}
	if err := turns(dev.Caps(), "Linear", fmt.Sprintf("In of %d", c.In), c.In); err != nil {
		return nil, err
	}
	return l, nil
}

// newLinear chooses among linearTiles by tile.
func newLinear(dev *vk.Device, c LinearConfig, tile func(rows, out uint64) int) (*Linear, error) {
	for _, d := range []dim{{"In", c.In}, {"Out", c.Out}} {
		if d.n < 1 || d.n >= 1<<30 { // the kernel counts the bytes of a row in 32 bits
			return nil, fmt.Errorf("pipelines: Linear: %s is %d, want 1 to %d", d.name, d.n, 1<<30-1)
		}
	}
	if c.Unless && !c.Bias {
		return nil, fmt.Errorf("pipelines: Linear: Unless is set and Bias is not, want both: there is no bias to leave out")
	}
	return &Linear{config: c, kernels: kernels{dev: dev}, tile: tile, flops: linearFlops, together: linearTogether}, nil
}

// kernel is the kernel of one of linearTiles.
func (l *Linear) kernel(tile int) (*vk.Kernel, error) {
	c := l.config
	spec := map[uint32]uint32{0: uint32(c.In), 1: uint32(c.Out)}
	for i, on := range []bool{c.Bias, c.GELU, c.Gather, c.Norm, c.Score, c.Filled, c.Residual, c.Scatter, c.Unless} {
		spec[uint32(2+i)] = flag(on)
	}
	name := linearTiles[tile].kernel
	return l.kernels.get(name, name, false, spec)
}

// linearTile chooses a tile on a GPU for a product of rows by out: the small one where the large ones are too few, or would hang over the edge
// by more than an eighth.
func linearTile(rows, out uint64) int {
	large, small := tiles(rows, 128)*tiles(out, 128), tiles(rows, 64)*tiles(out, 64)
	if large < linearMany || large*4*8 > small*9 {
		return 1
	}
	return 0
}

// tiles is how many tiles cover n elements.
func tiles(n, side uint64) uint64 { return (n + side - 1) / side }

// Record adds the product to a tape: one dispatch, or several if it is very large.
func (l *Linear) Record(t *vk.Tape, a LinearArgs) error {
	if a.InRows == 0 {
		a.InRows = a.Rows
	}
	if a.OutRows == 0 {
		a.OutRows = a.Rows
	}
	if a.Lists == 0 {
		a.Lists = 1
	}
	if err := l.check(a); err != nil {
		return err
	}
	slots, out := uint64(a.Batch)*uint64(a.Rows), uint64(l.config.Out)
	choice := l.tile(slots, out)
	variant := linearTiles[choice]
	all := tiles(slots, variant.rows) * tiles(out, variant.cols)
	if all > math.MaxInt32 { // the numbers of workgroups in a grid, which may have some more, fit 32 bits
		return fmt.Errorf("pipelines: Linear: %d slots by %d columns make %d tiles, want %d at most", slots, out, all, math.MaxInt32)
	}
	k, err := l.kernel(choice)
	if err != nil {
		return fmt.Errorf("pipelines: Linear: %w", err)
	}
	push := linearPush{slots: uint32(slots), rows: uint32(a.Rows), inRows: uint32(a.InRows), outRows: uint32(a.OutRows),
		lists: uint32(a.Lists), list: uint32(a.List)}
	step := max(uint64(l.flops/(2*float64(variant.rows*variant.cols)*float64(l.config.In))), l.together)
	for first := uint64(0); first < all; first += step {
		n := min(step, all-first)
		share := float64(n) / float64(all)
		groups, err := vk.Grid(t.Device().Caps(), n)
		if err != nil {
			return fmt.Errorf("pipelines: Linear: %w", err)
		}
		push.first, push.tiles = uint32(first), uint32(first+n)
		err = t.Dispatch(vk.Dispatch{
			Kernel: k,
			Groups: groups,
			Args: []vk.Access{vk.Read(a.X), vk.Read(a.W), vk.Read(a.Bias), vk.Read(a.Gather), vk.Read(a.Gamma), vk.Read(a.Score),
				vk.Read(a.Filled), vk.Read(a.Residual), vk.Read(a.Scatter), vk.Read(a.Unless), vk.Write(a.Y)},
			Push:  vk.Scalars(&push),
			Flops: share * 2 * float64(slots) * float64(l.config.In) * float64(out),
			Bytes: share * l.bytes(a, slots),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bytes is the memory that a product must move: the rows that slots name, w, and the small things.
func (l *Linear) bytes(a LinearArgs, slots uint64) float64 {
	c := l.config
	columns := uint64(c.In + c.Out)
	if c.Residual {
		columns += uint64(c.Out)
	}
	rest := (a.Gather.Size() + a.Score.Size() + a.Filled.Size()) / uint64(a.Lists)
	for _, r := range []vk.Range{a.W, a.Bias, a.Gamma, a.Scatter, a.Unless} {
		rest += r.Size()
	}
	return 4*float64(slots)*float64(columns) + float64(rest)
}

// checkSizes checks the numbers.
func (l *Linear) checkSizes(a LinearArgs) error {
	const op = "Linear"
	if err := positive(op, dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows},
		dim{"Lists", a.Lists}); err != nil {
		return err
	}
	if err := positive(op, dim{"Batch*Rows", a.Batch * a.Rows}, dim{"Batch*InRows", a.Batch * a.InRows},
		dim{"Batch*OutRows", a.Batch * a.OutRows}); err != nil {
		return err
	}
	if err := positive(op, dim{"Batch*Lists*Rows", a.Batch * a.Rows * a.Lists}); err != nil {
		return err
	}
	switch {
	case a.List < 0 || a.List >= a.Lists:
		return fmt.Errorf("pipelines: Linear: List is %d, want 0 to %d", a.List, a.Lists-1)
	case a.Lists > 1 && l.config.Scatter:
		return fmt.Errorf("pipelines: Linear: Lists is %d, want 1 with a scatter", a.Lists)
	case !l.config.Gather && a.InRows < a.Rows:
		return fmt.Errorf("pipelines: Linear: InRows is %d, want at least Rows %d where there is no gather", a.InRows, a.Rows)
	case !l.config.Scatter && a.OutRows < a.Rows:
		return fmt.Errorf("pipelines: Linear: OutRows is %d, want at least Rows %d where there is no scatter", a.OutRows, a.Rows)
	}
	return nil
}

// check compares the arguments with the config and the sizes.
func (l *Linear) check(a LinearArgs) error {
	if err := l.checkSizes(a); err != nil {
		return err
	}
	c := l.config
	batch, rows, in, out := dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"In", c.In}, dim{"Out", c.Out}
	inRows, outRows, list := dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows}, []dim{batch, rows}
	if a.Lists > 1 {
		list = []dim{batch, {"Lists", a.Lists}, rows}
	}
	for _, arg := range []struct {
		name  string
		on    bool
		r     vk.Range
		kind  string
		start uint64
		shape []dim
	}{
		{"x", true, a.X, "f32", rowsOf(c.In), []dim{batch, inRows, in}},
		{"w", true, a.W, "f32", rowsOf(c.In), []dim{out, in}},
		{"bias", c.Bias, a.Bias, "f32", rowsOf(c.Out), []dim{out}},
		{"gather", c.Gather, a.Gather, "i32", words, list},
		{"gamma", c.Norm, a.Gamma, "f32", rowsOf(c.In), []dim{in}},
		{"score", c.Score, a.Score, "f32", words, list},
		{"filled", c.Filled, a.Filled, "u32", words, list},
		{"residual", c.Residual, a.Residual, "f32", rowsOf(c.Out), []dim{batch, outRows, out}},
		{"scatter", c.Scatter, a.Scatter, "i32", words, []dim{batch, rows}},
		{"unless", c.Unless, a.Unless, "u32", words, []dim{batch, outRows}},
		{"y", true, a.Y, "f32", rowsOf(c.Out), []dim{batch, outRows, out}},
	} {
		if !arg.on && !arg.r.IsZero() {
			return fmt.Errorf("pipelines: Linear: %s has %d bytes, want none: the config leaves it out", arg.name, arg.r.Size())
		}
		if !arg.on {
			continue
		}
		bytes := uint64(4)
		for _, d := range arg.shape {
			bytes *= uint64(d.n)
		}
		if err := needAt(arg.start, "Linear", arg.name, arg.r, bytes, shape(arg.shape...)+" "+arg.kind); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the kernels.
func (l *Linear) Close() error {
	if l == nil {
		return nil
	}
	return l.kernels.close()
}
