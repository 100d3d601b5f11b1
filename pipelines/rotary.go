package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Rotary turns pairs of a head's elements by an angle that grows with the row's position: in place, or on the way to another tensor.
//
//	x [Lists, Rows] rows of Stride floats f32 in    y the same f32 out, optional: absent, x is rotated in place
//	positions [Lists, Routes, Rows] i32 in, optional    filled [Lists, Routes, Rows] u32 in, optional
//	table f32 in: what RotaryTable makes
//	y[d]       = x[d] cos - x[d + D/2] sin    for each of Heads heads of D floats, HeadStride apart,
//	y[d + D/2] = x[d + D/2] cos + x[d] sin    d in 0 .. D/2-1 and the angle position * 10000^(-2d/D)
//
// Strides choose a part of a wider row: the keys of [Rows, H, 2, D] are Stride 2HD, HeadStride 2D. Nothing else of x or y is touched;
// the last row may end with its last head, so that such a part may be a slice. A slot is empty, and its row is left alone, if its filled
// word is 0 or if the table has not got its position.
//
// Shader: shaders/rotary.comp. Reference: internal/ref.Rotary. Source: arXiv 2104.09864.
type Rotary struct {
	c      RotaryConfig
	vec4   bool
	cols   uint32
	kernel *vk.Kernel
}

// RotaryConfig is baked into the kernel.
type RotaryConfig struct {
	Heads      int
	DimHead    int // even
	Stride     int // floats from row to row; 0: what the heads take, Heads * HeadStride
	HeadStride int // floats from head to head; 0: DimHead

	Precision DType // of x and y; with 16 bits DimHead is a multiple of 8, the strides of 4
}

// RotaryArgs is one dispatch. It reads all ranges but Y; it writes Y, or X if there is no Y.
type RotaryArgs struct {
	X         vk.Range // [Lists, Rows, Stride], the last row at least up to its last head
	Y         vk.Range // the same; absent: X
	Positions vk.Range // [Lists, Routes, Rows]; absent: row r of a list has position First + r
	Valid     vk.Range // [Lists, Routes, Rows] 0 or 1; absent: every slot is filled
	Table     vk.Range // RotaryTable of this DimHead

	Lists, Rows int
	Routes      int // lists side by side in Positions and Filled; 0: 1
	Route       int // which of them X belongs to
	First       int // 0 where there are Positions
}

// RotaryTable is what a Rotary reads: cosines and sines of the positions 0 .. positions-1, rounded up to whole 256.
//
//	[256 + ceil(positions / 256), 2, dimHead / 2]: row lo < 256 has the cosines, then the sines, of position lo; row 256 + hi those
//	of position 256 * hi
//
// It takes 1.1 MB for a million positions of a head of 64. They come from float64, and their sums by angle addition are off by 2e-7 at
// most, at any position. Nil if positions is less than 1, or dimHead not an even number from 2 on.
func RotaryTable(positions, dimHead int) []float32 {
	length := RotaryTableLen(positions, dimHead)
	if length == 0 {
		return nil
	}
	half, table := dimHead/2, make([]float32, length)
	for row := range length / dimHead {
		position := row
		if row >= rotaryLow {
			position = (row - rotaryLow) * rotaryLow
		}
		for d := range half {
			sin, cos := math.Sincos(float64(position) * math.Pow(10000, -2*float64(d)/float64(dimHead)))
			table[row*dimHead+d], table[row*dimHead+half+d] = float32(cos), float32(sin)
		}
	}
	return table
}

// RotaryTableLen is how many floats RotaryTable makes.
func RotaryTableLen(positions, dimHead int) int {
	if positions < 1 || dimHead < 2 || dimHead%2 != 0 {
		return 0
	}
	return (rotaryLow + (positions-1)/rotaryLow + 1) * dimHead
}

const (
	rotaryLow   = 256 // rows of the table for the low part of a position
	rotaryHeads = 4   // that a thread turns
)

type rotaryPush struct{ slots, rows, routes, route, first, limit uint32 }

var _ [24 - unsafe.Sizeof(rotaryPush{})]byte
var _ [unsafe.Sizeof(rotaryPush{}) - 24]byte

// NewRotary compiles the kernel for a device.
func NewRotary(dev *vk.Device, c RotaryConfig) (*Rotary, error) {
	const op = "Rotary"
	if c.HeadStride == 0 {
		c.HeadStride = c.DimHead
	}
	if err := checkPositive(op, dim{"Heads", c.Heads}, dim{"DimHead", c.DimHead}, dim{"HeadStride", c.HeadStride}); err != nil {
		return nil, err
	}
	if c.Stride == 0 {
		c.Stride = c.Heads * c.HeadStride
	}
	switch {
	case c.DimHead%2 != 0:
		return nil, fmt.Errorf("pipelines: Rotary: DimHead is %d, want an even number", c.DimHead)
	case c.HeadStride < c.DimHead:
		return nil, fmt.Errorf("pipelines: Rotary: HeadStride is %d, want at least DimHead %d", c.HeadStride, c.DimHead)
	case c.Stride < c.width() || c.Stride >= 1<<30: // the kernel counts the bytes of a row in 32 bits
		return nil, fmt.Errorf("pipelines: Rotary: Stride is %d, want %d (for all heads) to %d", c.Stride, c.width(), 1<<30-1)
	}
	if err := c.Precision.checkPrecision(op); err != nil {
		return nil, err
	}
	if c.Precision != F32 && (c.DimHead%8 != 0 || c.Stride%4 != 0 || c.HeadStride%4 != 0) {
		return nil, fmt.Errorf("pipelines: Rotary: DimHead is %d, Stride %d and HeadStride %d, want multiples of 8, 4 and 4 with Precision %v", c.DimHead, c.Stride, c.HeadStride, c.Precision)
	}
	r := &Rotary{c: c, vec4: c.DimHead%8 == 0 && c.Stride%4 == 0 && c.HeadStride%4 == 0}
	name, each := "rotary", uint32(1)
	if r.vec4 {
		name, each = "rotary_vec4", 4
	}
	pairs := uint32(c.DimHead/2) / each
	r.cols = pairs * uint32((c.Heads+rotaryHeads-1)/rotaryHeads)
	k, err := newKernel(dev, name, map[uint32]uint32{
		0: r.cols, 1: pairs, 2: uint32(c.Heads), 3: uint32(c.Stride) / each, 4: uint32(c.HeadStride) / each,
		5: uint32(c.Precision),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: Rotary: %w", err)
	}
	r.kernel = k
	return r, nil
}

// width is how many floats of a row the heads reach over.
func (c RotaryConfig) width() int { return (c.Heads-1)*c.HeadStride + c.DimHead }

// Record adds the dispatch to a tape.
func (r *Rotary) Record(t *vk.CommandList, a RotaryArgs) error {
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := r.check(a); err != nil {
		return err
	}
	rows := uint64(a.Lists) * uint64(a.Rows)
	each := uint64(max(256/r.cols, 1))
	groups, err := vk.Grid(t.Device().Caps(), (rows+each-1)/each)
	if err != nil {
		return fmt.Errorf("pipelines: Rotary: %w", err)
	}
	args := []vk.Access{vk.Read(a.X), vk.Write(a.Y), vk.Read(a.Table), vk.Read(a.Positions), vk.Read(a.Valid)}
	if a.Y.IsZero() || a.Y == a.X {
		args[0], args[1] = vk.ReadWrite(a.X), vk.ReadWrite(a.X)
	}
	moved := float64(r.c.Precision.Size()) * float64(rows) * float64(r.c.Heads) * float64(r.c.DimHead)
	return t.Dispatch(vk.Dispatch{
		Kernel: r.kernel,
		Groups: groups,
		Args:   args,
		Push: vk.Scalars(&rotaryPush{uint32(rows), uint32(a.Rows), uint32(a.Routes), uint32(a.Route), uint32(a.First),
			uint32(r.limit(a.Table))}),
		Flops: 3 * float64(rows) * float64(r.c.Heads) * float64(r.c.DimHead),
		Bytes: 2*moved + float64(a.Positions.Size()+a.Valid.Size())/float64(a.Routes),
	})
}

// limit is how many positions a table has; 0 or less: it is none.
func (r *Rotary) limit(table vk.Range) int64 {
	row := 4 * uint64(r.c.DimHead)
	if table.Size()%row != 0 {
		return 0
	}
	return (int64(table.Size()/row) - rotaryLow) * rotaryLow
}

func (r *Rotary) check(a RotaryArgs) error {
	const op = "Rotary"
	lists, rows, routes := dim{"Lists", a.Lists}, dim{"Rows", a.Rows}, dim{"Routes", a.Routes}
	if err := checkPositive(op, lists, rows, routes, dim{"Lists*Rows", a.Lists * a.Rows}); err != nil {
		return err
	}
	if err := checkPositive(op, dim{"Lists*Routes*Rows", a.Lists * a.Rows * a.Routes}); err != nil {
		return err
	}
	if a.Route < 0 || a.Route >= a.Routes {
		return fmt.Errorf("pipelines: %s: Route is %d, want 0 to %d", op, a.Route, a.Routes-1)
	}
	if err := firstError(
		r.rows("x", a.X, a),
		checkOptional(op, "positions", a.Positions, wordAlign, i32, lists, routes, rows),
		checkOptional(op, "filled", a.Valid, wordAlign, u32, lists, routes, rows),
	); err != nil {
		return err
	}
	if !a.Y.IsZero() {
		if err := r.rows("y", a.Y, a); err != nil {
			return err
		}
	}
	return r.table(a)
}

// rows checks x or y.
func (r *Rotary) rows(name string, x vk.Range, a RotaryArgs) error {
	p := r.c.Precision
	whole := uint64(p.Size()) * uint64(a.Lists) * uint64(a.Rows) * uint64(r.c.Stride)
	least := whole - uint64(p.Size()*(r.c.Stride-r.c.width()))
	want := shape(dim{"Lists", a.Lists}, dim{"Rows", a.Rows}, dim{"Stride", r.c.Stride}) + " " + p.String()
	size := x.Size()
	switch {
	case x.IsZero():
		size = whole
	case size < least || size > whole:
		return fmt.Errorf("pipelines: Rotary: %s has %d bytes, want %s, %d to %d bytes", name, size, want, least, whole)
	}
	start := uint64(wordAlign)
	if r.vec4 {
		start = vec4Align / 4 * uint64(p.Size()) // four numbers at once
	}
	return checkRange("Rotary", name, x, start, size, want)
}

// table checks the table, and that it has the positions that Record knows.
func (r *Rotary) table(a RotaryArgs) error {
	want := fmt.Sprintf("[%d and a row for %d positions, 2, %d] f32", rotaryLow, rotaryLow, r.c.DimHead/2)
	limit := r.limit(a.Table)
	if a.Table.IsZero() {
		return fmt.Errorf("pipelines: Rotary: table is missing, want %s", want)
	}
	if limit < 1 || limit > 1<<31 {
		return fmt.Errorf("pipelines: Rotary: table has %d bytes, want %s", a.Table.Size(), want)
	}
	if !a.Positions.IsZero() {
		if a.First != 0 {
			return fmt.Errorf("pipelines: Rotary: First is %d, want 0 where positions are given", a.First)
		}
	} else if a.First < 0 || int64(a.First)+int64(a.Rows) > limit {
		return fmt.Errorf("pipelines: Rotary: First is %d, want 0 to %d: the table has %d positions, a list has %d rows",
			a.First, limit-int64(a.Rows), limit, a.Rows)
	}
	return checkRange("Rotary", "table", a.Table, rowAlign(r.c.DimHead), a.Table.Size(), want)
}

// Close frees the kernel.
func (r *Rotary) Close() error {
	if r == nil {
		return nil
	}
	return r.kernel.Close()
}
