package pipelines

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Rotary applies the rotary position embedding: it rotates pairs of elements of a head by an angle proportional to the
// position of the row, in place or from one tensor to another.
//
//	x [Lists, Rows, Stride] in    y [Lists, Rows, Stride] out, optional: if absent, x is rotated in place; both in the Precision
//	positions [Lists, Routes, Rows] i32 in, optional    valid [Lists, Routes, Rows] u32 in, optional
//	table f32 in: see RotaryTable
//	y[d]       = x[d] cos - x[d + D/2] sin    for each of Heads heads of D elements, HeadStride apart,
//	y[d + D/2] = x[d + D/2] cos + x[d] sin    d in 0 .. D/2-1 and the angle position * 10000^(-2d/D)
//
// Strides select a part of longer rows: the keys of [Rows, H, 2, D] have Stride 2HD and HeadStride 2D. The other
// elements of x and y are not accessed. The last row may end after its last head, so that x and y may be slices of such
// a part. A slot is empty, and its row unchanged, if its valid word is 0 or if its position is not in the table.
//
// Shader: shaders/src/rotary.comp. CPU reference: internal/ref.Rotary. Source: arXiv 2104.09864.
type Rotary struct {
	config RotaryConfig
	vec4   bool   // loads and stores have 4 elements
	cols   uint32 // invocations per row
	kernel *vk.Kernel
}

// RotaryConfig is fixed when the kernel is compiled.
type RotaryConfig struct {
	Heads      int
	DimHead    int // even
	Stride     int // elements from row to row; 0: Heads * HeadStride
	HeadStride int // elements from head to head; 0: DimHead

	Precision DType // of x and y; with F16 and BF16, DimHead is a multiple of 8, and the strides are multiples of 4
}

// RotaryArgs is one dispatch. It reads all ranges but Y. It writes Y, or X if Y is absent.
type RotaryArgs struct {
	X         vk.Range // [Lists, Rows, Stride]; the last row may end after its last head
	Y         vk.Range // like X; absent: X
	Positions vk.Range // [Lists, Routes, Rows]; absent: row r of a list has position First + r
	Valid     vk.Range // [Lists, Routes, Rows] 0: an empty slot; absent: all slots are valid
	Table     vk.Range // RotaryTable of this DimHead

	Lists, Rows int
	Routes      int // routes in Positions and Valid; 0: 1
	Route       int // the route of X
	First       int // position of row 0 of a list; 0 with Positions
}

// RotaryTable returns the table of a Rotary: cosines and sines for the positions 0 .. positions-1, rounded up to a
// multiple of 256.
//
//	[256 + ceil(positions / 256), 2, dimHead / 2] f32
//
// Row lo < 256 has the cosines, then the sines, of position lo; row 256 + hi has those of position 256 * hi. The kernel
// adds the two angles of a position. The table is computed in float64; the error of a sum is at most 2e-7 at any
// position. It has 1.1 MB for a million positions and heads of 64. RotaryTable returns nil if positions is less than 1,
// or dimHead is not a positive even number.
func RotaryTable(positions, dimHead int) []float32 {
	length := RotaryTableLen(positions, dimHead)
	if length == 0 {
		return nil
	}
	half, table := dimHead/2, make([]float32, length)
	frequencies := make([]float64, half)
	for d := range frequencies {
		frequencies[d] = math.Pow(10000, -2*float64(d)/float64(dimHead))
	}
	for row := range length / dimHead {
		position := row
		if row >= rotaryLow {
			position = (row - rotaryLow) * rotaryLow
		}
		for d, frequency := range frequencies {
			sin, cos := math.Sincos(float64(position) * frequency)
			table[row*dimHead+d], table[row*dimHead+half+d] = float32(cos), float32(sin)
		}
	}
	return table
}

// RotaryTableLen is the number of elements of a RotaryTable, 0 if it is nil.
func RotaryTableLen(positions, dimHead int) int {
	if positions < 1 || dimHead < 2 || dimHead%2 != 0 {
		return 0
	}
	return (rotaryLow + (positions-1)/rotaryLow + 1) * dimHead
}

const (
	rotaryLow   = 256 // rows of the table for the low part of a position
	rotaryHeads = 4   // heads per invocation, as in the shader
)

type rotaryPush struct{ slots, rows, routes, route, first, limit uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(rotaryPush{})-24]

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
		return nil, fmt.Errorf("pipelines: %s: DimHead is %d, want an even number", op, c.DimHead)
	case c.HeadStride < c.DimHead:
		return nil, fmt.Errorf("pipelines: %s: HeadStride is %d, want at least DimHead %d", op, c.HeadStride, c.DimHead)
	case c.Stride < c.width() || c.Stride >= 1<<30: // the kernel counts the bytes of a row in 32 bits
		return nil, fmt.Errorf("pipelines: %s: Stride is %d, want %d (for all heads) to %d", op, c.Stride, c.width(), 1<<30-1)
	}
	if err := c.Precision.checkPrecision(op); err != nil {
		return nil, err
	}
	if c.Precision != F32 && (c.DimHead%8 != 0 || c.Stride%4 != 0 || c.HeadStride%4 != 0) {
		return nil, fmt.Errorf("pipelines: %s: DimHead is %d, Stride %d and HeadStride %d, want multiples of 8, 4 and 4 with Precision %v", op, c.DimHead, c.Stride, c.HeadStride, c.Precision)
	}
	r := &Rotary{config: c, vec4: c.DimHead%8 == 0 && c.Stride%4 == 0 && c.HeadStride%4 == 0}
	name, vector := "rotary", uint32(1)
	if r.vec4 {
		name, vector = "rotary_vec4", 4
	}
	pairs := uint32(c.DimHead/2) / vector
	r.cols = pairs * uint32((c.Heads+rotaryHeads-1)/rotaryHeads)
	k, err := newKernel(dev, name, map[uint32]uint32{
		shaders.RowwiseColumns:   r.cols,
		shaders.RotaryPairs:      pairs,
		shaders.RotaryHeads:      uint32(c.Heads),
		shaders.RotaryRowStride:  uint32(c.Stride) / vector,
		shaders.RotaryHeadStride: uint32(c.HeadStride) / vector,
		shaders.RotaryDType:      uint32(c.Precision),
	})
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	r.kernel = k
	return r, nil
}

// width is the distance from the first element of the first head to the end of the last head.
func (c RotaryConfig) width() int { return (c.Heads-1)*c.HeadStride + c.DimHead }

// Record appends the dispatch to a command list.
func (r *Rotary) Record(list *vk.CommandList, a RotaryArgs) error {
	const op = "Rotary"
	if a.Routes == 0 {
		a.Routes = 1
	}
	if err := r.check(op, a); err != nil {
		return err
	}
	rows := uint64(a.Lists) * uint64(a.Rows)
	rowsPerGroup := uint64(max(256/r.cols, 1))
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(rows, rowsPerGroup))
	if err != nil {
		return err
	}
	args := []vk.Access{vk.Read(a.X), vk.Write(a.Y), vk.Read(a.Table), vk.Read(a.Positions), vk.Read(a.Valid)}
	if a.Y.IsZero() || a.Y == a.X {
		args[0], args[1] = vk.ReadWrite(a.X), vk.ReadWrite(a.X)
	}
	bytes := float64(r.config.Precision.Size()) * float64(rows) * float64(r.config.Heads) * float64(r.config.DimHead)
	return list.Dispatch(vk.Dispatch{
		Kernel: r.kernel,
		Groups: groups,
		Args:   args,
		Push: vk.Scalars(&rotaryPush{uint32(rows), uint32(a.Rows), uint32(a.Routes), uint32(a.Route), uint32(a.First),
			uint32(r.limit(a.Table))}),
		Flops: 3 * float64(rows) * float64(r.config.Heads) * float64(r.config.DimHead),
		Bytes: 2*bytes + float64(a.Positions.Size()+a.Valid.Size())/float64(a.Routes),
	})
}

// limit returns how many positions a table has. It is 0 or less if the size is not that of a table.
func (r *Rotary) limit(table vk.Range) int64 {
	row := 4 * uint64(r.config.DimHead)
	if table.Size()%row != 0 {
		return 0
	}
	return (int64(table.Size()/row) - rotaryLow) * rotaryLow
}

func (r *Rotary) check(op string, a RotaryArgs) error {
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
		r.checkRows(op, "x", a.X, a),
		checkOptional(op, "positions", a.Positions, wordAlign, i32, lists, routes, rows),
		checkOptional(op, "valid", a.Valid, wordAlign, u32, lists, routes, rows),
	); err != nil {
		return err
	}
	if !a.Y.IsZero() {
		if err := r.checkRows(op, "y", a.Y, a); err != nil {
			return err
		}
	}
	return r.checkTable(op, a)
}

// checkRows checks x or y.
func (r *Rotary) checkRows(op, name string, x vk.Range, a RotaryArgs) error {
	p := r.config.Precision
	whole := uint64(p.Size()) * uint64(a.Lists) * uint64(a.Rows) * uint64(r.config.Stride)
	least := whole - uint64(p.Size()*(r.config.Stride-r.config.width()))
	want := shape(dim{"Lists", a.Lists}, dim{"Rows", a.Rows}, dim{"Stride", r.config.Stride}) + " " + p.String()
	size := x.Size()
	switch {
	case x.IsZero():
		size = whole
	case size < least || size > whole:
		return fmt.Errorf("pipelines: %s: %s has %d bytes, want %s, %d to %d bytes", op, name, size, want, least, whole)
	}
	align := uint64(wordAlign)
	if r.vec4 {
		align = 4 * uint64(p.Size())
	}
	return checkRange(op, name, x, align, size, want)
}

// checkTable checks the table, and that it has the positions of all rows unless these are in memory.
func (r *Rotary) checkTable(op string, a RotaryArgs) error {
	want := fmt.Sprintf("[%d + ceil(positions / %d), 2, %d] f32", rotaryLow, rotaryLow, r.config.DimHead/2)
	limit := r.limit(a.Table)
	if a.Table.IsZero() {
		return fmt.Errorf("pipelines: %s: table is missing, want %s", op, want)
	}
	if limit < 1 || limit > 1<<31 {
		return fmt.Errorf("pipelines: %s: table has %d bytes, want %s", op, a.Table.Size(), want)
	}
	if !a.Positions.IsZero() {
		if a.First != 0 {
			return fmt.Errorf("pipelines: %s: First is %d, want 0 with positions", op, a.First)
		}
	} else if a.First < 0 || int64(a.First)+int64(a.Rows) > limit {
		return fmt.Errorf("pipelines: %s: First is %d, want 0 to %d: the table has %d positions, a list has %d rows",
			op, a.First, limit-int64(a.Rows), limit, a.Rows)
	}
	return checkRange(op, "table", a.Table, rowAlign(r.config.DimHead), a.Table.Size(), want)
}

// Close frees the kernel.
func (r *Rotary) Close() error {
	if r == nil {
		return nil
	}
	return r.kernel.Close()
}
