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
//	x [Batch, InRows, In] f32 in    w [Out, Columns(In)] in the Precision    y [Batch, OutRows, Out] f32 out
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
// With Precision F16 or BF16 the product runs on cooperative matrices: x, after the norm, and w have 16 bits, sums are float32. X16 and Y16
// say that x and y have numbers of the precision in memory too.
//
// The order of the sum is the same in all tiles: the bits of a row depend on that row, w and the config alone.
//
// Shaders: shaders/linear.comp, linear_matrix.comp, linear_cpu.comp. Reference: internal/ref.Linear.
type Linear struct {
	config  LinearConfig
	kernels kernelCache
	matrix  vk.MatrixShape // the cooperative matrix; zero for F32

	tile     int     // index in tiles(), -1: selected by size
	flops    float64 // linearFlops, but for tests; together too
	together uint64
}

// LinearConfig is baked into the kernel. A part that is false is left out, and its argument must be absent.
type LinearConfig struct {
	In, Out int

	Precision DType
	X16, Y16  bool // with F16 and BF16; In, or Out, is even then

	// With F16 and BF16, for few rows of many inputs: these are cut into so many parts, that are summed side by side and then added in order.
	// 0 and 1: they are not. LinearSplit says where it pays.
	Split int

	Bias     bool
	GELU     bool // exact, by erf
	Gather   bool
	Norm     bool // RMSNorm of the source row, with gamma
	Score    bool
	Valid    bool
	Residual bool
	Scatter  bool
	SkipBias bool // with Bias

	Tile string // one of ListLinearTiles, to measure it; "": selected by size
}

// LinearArgs is one product. It reads all ranges but Y, which it writes. Y overlaps no other range, but Residual may be the same range.
type LinearArgs struct {
	X, W     vk.Range
	Bias     vk.Range
	Gather   vk.Range // row of x in the same batch item; absent: slot r reads row r
	Gamma    vk.Range
	Score    vk.Range
	Valid    vk.Range // 0 or 1
	Residual vk.Range
	Scatter  vk.Range // row of y and of residual in the same batch item; absent: slot r writes row r
	SkipBias vk.Range // not 0: this row of y gets no bias
	Y        vk.Range
	Scratch  vk.Range // of LinearScratch bytes; absent without Split

	Batch   int
	InRows  int // rows of x an item; 0: Rows
	Rows    int // slots an item
	OutRows int // rows of y an item; 0: Rows
	Lists   int // lists of gather, score and filled an item; 0: 1. With more than one there is no Scatter
	List    int // which of them this product takes
}

// x and y are the precisions of the tensors.
func (c LinearConfig) x() DType {
	if c.X16 {
		return c.Precision
	}
	return F32
}

func (c LinearConfig) y() DType {
	if c.Y16 {
		return c.Precision
	}
	return F32
}

type linearPush struct{ slots, rows, inRows, outRows, lists, list, first, tiles uint32 }

var _ [32 - unsafe.Sizeof(linearPush{})]byte
var _ [unsafe.Sizeof(linearPush{}) - 32]byte

const (
	// linearFlops is the work of one dispatch at most, unless it has few tiles. Slow devices do 0.2 TFLOP/s, and some systems
	// stop work that takes two seconds.
	linearFlops = 1e11
	// linearTogether tiles stay in one dispatch however long they take: the last workgroups of a dispatch leave a GPU half idle.
	linearTogether = 1024
	// linearNear inputs have rows that the kernel finds from the first one of a tile, counted in 32 bits; with more each has an address of its own.
	linearNear = 1<<24 - 1
	// linearMostParts are the most of a split product.
	linearMostParts = 64
)

// NewLinear makes a product for a device. Its kernels are compiled when they are first recorded.
func NewLinear(dev *vk.Device, c LinearConfig) (*Linear, error) {
	const op = "Linear"
	for _, d := range []dim{{"In", c.In}, {"Out", c.Out}} {
		most := 1<<30 - 1 // the kernel counts the bytes of a row in 32 bits
		if c.Precision != F32 && d.name == "In" {
			most = 1<<27 - 1 // and 16 bytes at a time of the rows of a tile
		}
		if d.n < 1 || d.n > most {
			return nil, fmt.Errorf("pipelines: Linear: %s is %d, want 1 to %d", d.name, d.n, most)
		}
	}
	if err := c.Precision.checkPrecision(op); err != nil {
		return nil, err
	}
	switch {
	case c.SkipBias && !c.Bias:
		return nil, fmt.Errorf("pipelines: Linear: Unless is set and Bias is not, want both: there is no bias to leave out")
	case (c.X16 || c.Y16) && c.Precision == F32:
		return nil, fmt.Errorf("pipelines: Linear: X16 is %t and Y16 %t, want neither with Precision F32", c.X16, c.Y16)
	case c.Split < 0 || c.Split > linearMostParts || c.Split > 1 && c.Precision == F32:
		return nil, fmt.Errorf("pipelines: Linear: Split is %d with Precision %v, want 0 to %d, with F32 0", c.Split, c.Precision, linearMostParts)
	case c.X16 && c.Norm:
		return nil, fmt.Errorf("pipelines: Linear: X16 and Norm are set, want one of them: the norm reads float32")
	case c.X16 && c.In%2 != 0:
		return nil, fmt.Errorf("pipelines: Linear: In is %d, want an even number with X16", c.In)
	case c.Y16 && c.Out%2 != 0:
		return nil, fmt.Errorf("pipelines: Linear: Out is %d, want an even number with Y16", c.Out)
	}
	l := &Linear{config: c, kernels: kernelCache{dev: dev}, flops: linearFlops, together: linearTogether}
	var err error
	if l.matrix, err = c.Precision.matrixShape(dev.Caps()); err != nil {
		return nil, fmt.Errorf("pipelines: Linear: %w", err)
	}
	if l.tile, err = l.tileIndex(c.Tile); err != nil {
		return nil, err
	}
	return l, checkIterations(dev.Caps(), op, fmt.Sprintf("In of %d", c.In), c.In)
}

// Record adds the product to a tape: one dispatch, or several if it is very large.
func (l *Linear) Record(t *vk.CommandList, a LinearArgs) error {
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
	size := l.size(a)
	variant := l.tiles()[l.selectTile(size)]
	if variant.dense && !(size.dense && l.config.X16) {
		return fmt.Errorf("pipelines: Linear: Tile %s needs X16 and rows of x that follow each other", l.config.Tile)
	}
	split := uint64(max(l.config.Split, 1))
	all := ceilDiv(slots, variant.rows) * ceilDiv(out, variant.cols) * split
	if all > math.MaxInt32 { // the numbers of workgroups in a grid, which may have some more, fit 32 bits
		return fmt.Errorf("pipelines: Linear: %d slots by %d columns make %d tiles, want %d at most", slots, out, all, math.MaxInt32)
	}
	k, err := l.kernel(variant, size)
	if err != nil {
		return fmt.Errorf("pipelines: Linear: %w", err)
	}
	push := linearPush{slots: uint32(slots), rows: uint32(a.Rows), inRows: uint32(a.InRows), outRows: uint32(a.OutRows),
		lists: uint32(a.Lists), list: uint32(a.List)}
	last := push
	y, flops, bytes := a.Y, 2*float64(slots)*float64(l.config.In)*float64(out), l.bytes(a, slots)
	if split > 1 {
		y, bytes = a.Scratch, bytes+2*float64(a.Scratch.Size())
	}
	step := evenShare(all, max(uint64(l.flops/(2*float64(variant.rows*variant.cols)*float64(l.config.In))), l.together))
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
				vk.Read(a.Valid), vk.Read(a.Residual), vk.Read(a.Scatter), vk.Read(a.SkipBias), vk.Write(y)},
			Push:                  vk.Scalars(&push),
			Flops:                 share * flops,
			Bytes:                 share * bytes,
			IndependentOfPrevious: first > 0,
		})
		if err != nil {
			return err
		}
	}
	if split == 1 {
		return nil
	}
	return l.recordSum(t, a, last, size)
}

// size is what the choice of a tile depends on.
func (l *Linear) size(a LinearArgs) linearSize {
	return linearSize{
		slots:    uint64(a.Batch) * uint64(a.Rows),
		dense:    !l.config.Gather && (a.Batch == 1 || a.InRows == a.Rows) && l.config.In <= linearNear,
		straight: !l.config.Scatter && (a.Batch == 1 || a.OutRows == a.Rows),
	}
}

// recordSum adds the dispatch that adds the parts of a split product.
func (l *Linear) recordSum(t *vk.CommandList, a LinearArgs, push linearPush, s linearSize) error {
	k, err := l.sumKernel(s)
	if err != nil {
		return fmt.Errorf("pipelines: Linear: %w", err)
	}
	groups, err := vk.Grid(t.Device().Caps(), ceilDiv(s.slots*ceilDiv(uint64(l.config.Out), 4), 256))
	if err != nil {
		return fmt.Errorf("pipelines: Linear: %w", err)
	}
	return t.Dispatch(vk.Dispatch{Kernel: k, Groups: groups, Push: vk.Scalars(&push), Args: []vk.Access{
		vk.Read(a.Scratch), vk.Read(vk.Range{}), vk.Read(a.Bias), vk.Read(a.Gather), vk.Read(vk.Range{}), vk.Read(a.Score),
		vk.Read(a.Valid), vk.Read(a.Residual), vk.Read(a.Scatter), vk.Read(a.SkipBias), vk.Write(a.Y)}})
}

// LinearScratch is the scratch memory, in bytes, of a product of so many slots, batch times rows: 0 without Split.
func LinearScratch(c LinearConfig, slots int) uint64 {
	if c.Split <= 1 {
		return 0
	}
	return 4 * uint64(c.Split) * uint64(slots) * uint64(c.Out)
}

// bytes is the memory that a product must move: the rows that slots name, w, and the small things.
func (l *Linear) bytes(a LinearArgs, slots uint64) float64 {
	c := l.config
	columns := uint64(c.In*c.x().Size() + c.Out*c.y().Size())
	if c.Residual {
		columns += uint64(4 * c.Out)
	}
	rest := (a.Gather.Size() + a.Score.Size() + a.Valid.Size()) / uint64(a.Lists)
	for _, r := range []vk.Range{a.W, a.Bias, a.Gamma, a.Scatter, a.SkipBias} {
		rest += r.Size()
	}
	return float64(slots)*float64(columns) + float64(rest)
}

// checkSizes checks the numbers.
func (l *Linear) checkSizes(a LinearArgs) error {
	const op = "Linear"
	if err := checkPositive(op, dim{"Batch", a.Batch}, dim{"Rows", a.Rows}, dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows},
		dim{"Lists", a.Lists}); err != nil {
		return err
	}
	if err := checkPositive(op, dim{"Batch*Rows", a.Batch * a.Rows}, dim{"Batch*InRows", a.Batch * a.InRows},
		dim{"Batch*OutRows", a.Batch * a.OutRows}); err != nil {
		return err
	}
	if err := checkPositive(op, dim{"Batch*Lists*Rows", a.Batch * a.Rows * a.Lists}); err != nil {
		return err
	}
	if split := l.config.Split; split > 1 { // the kernels count rows of parts, and four columns at a time of the rows, in 32 bits
		slots := uint64(a.Batch) * uint64(a.Rows)
		if rows, pieces := slots*uint64(split), slots*ceilDiv(uint64(l.config.Out), 4); max(rows, pieces) > math.MaxInt32 {
			return fmt.Errorf("pipelines: Linear: %d slots in %d parts are %d rows, or %d pieces of 4 columns, want %d at most", slots, split, rows, pieces, math.MaxInt32)
		}
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
	columns := dim{"In", c.In}
	if c.Precision != F32 {
		columns = dim{"Columns(In)", c.Precision.Columns(c.In)}
	}
	inRows, outRows, list := dim{"InRows", a.InRows}, dim{"OutRows", a.OutRows}, []dim{batch, rows}
	if a.Lists > 1 {
		list = []dim{batch, {"Lists", a.Lists}, rows}
	}
	if c.Split > 1 {
		if err := checkTensor("Linear", "scratch", a.Scratch, rowAlign(c.Out), f32, dim{"Split", c.Split}, batch, rows, out); err != nil {
			return err
		}
	} else if !a.Scratch.IsZero() {
		return fmt.Errorf("pipelines: Linear: scratch has %d bytes, want none without Split", a.Scratch.Size())
	}
	for _, arg := range []struct {
		name    string
		on      bool
		r       vk.Range
		element element
		align   uint64
		shape   []dim
	}{
		{"x", true, a.X, c.x().element(), c.x().rowAlign(c.In), []dim{batch, inRows, in}},
		{"w", true, a.W, c.Precision.element(), c.Precision.rowAlign(columns.n), []dim{out, columns}},
		{"bias", c.Bias, a.Bias, f32, rowAlign(c.Out), []dim{out}},
		{"gather", c.Gather, a.Gather, i32, wordAlign, list},
		{"gamma", c.Norm, a.Gamma, f32, rowAlign(c.In), []dim{in}},
		{"score", c.Score, a.Score, f32, wordAlign, list},
		{"filled", c.Valid, a.Valid, u32, wordAlign, list},
		{"residual", c.Residual, a.Residual, f32, rowAlign(c.Out), []dim{batch, outRows, out}},
		{"scatter", c.Scatter, a.Scatter, i32, wordAlign, []dim{batch, rows}},
		{"unless", c.SkipBias, a.SkipBias, u32, wordAlign, []dim{batch, outRows}},
		{"y", true, a.Y, c.y().element(), c.y().rowAlign(c.Out), []dim{batch, outRows, out}},
	} {
		if err := checkPresence(arg.on, "Linear", arg.name, arg.r, arg.align, arg.element, arg.shape...); err != nil {
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
