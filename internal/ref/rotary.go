package ref

import (
	"cmp"
	"math"
	"slices"
)

// RotaryArgs are the arguments of [Rotary].
type RotaryArgs = RotaryArgsOf[float32]

// RotaryArgsOf is [RotaryArgs] with tensors of one precision.
type RotaryArgsOf[T Float] struct {
	X          []T     // rows with a stride of Stride elements; the last row may end with its last head
	Positions  []int32 // [Lists, Routes, Rows]; nil: row r of a list has position First + r
	Valid      []uint8 // [Lists, Routes, Rows] 0 = empty slot; nil: all valid
	Heads      int
	DimHead    int // even
	Stride     int // elements between rows; 0: Heads * HeadStride
	HeadStride int // elements between heads; 0: DimHead
	Lists      int
	Rows       int
	Routes     int // routes of Positions and Valid; 0: 1
	Route      int // the route of X
	First      int
	Limit      int // slots with a position < 0 or >= Limit are empty; 0: no upper limit
}

// Rotary is the rotary position embedding. It rotates pairs of elements of a head by an angle proportional to the row's
// position, and returns the rotated copy of x.
//
//	x [Lists, Rows, Heads, D]    for d in 0 .. D/2-1: angle = position * 10000^(-2d/D)
//	out[d]       = x[d] cos - x[d + D/2] sin
//	out[d + D/2] = x[d + D/2] cos + x[d] sin
//
// Empty slots are not changed.
func Rotary(a RotaryArgs) []float64 { return rotary(convertRotary[float64](a), 1) }

// Rotary32 is [Rotary] in plain float32. Angles, sines and cosines are computed in float64, because the GPU path reads
// them from a table that is computed in float64.
func Rotary32(a RotaryArgs) []float32 { return rotary(a, 1) }

// convertRotary returns the arguments in precision T.
func convertRotary[T Float](a RotaryArgs) RotaryArgsOf[T] {
	return RotaryArgsOf[T]{
		X: convert[T](a.X), Positions: a.Positions, Valid: a.Valid, Heads: a.Heads, DimHead: a.DimHead, Stride: a.Stride,
		HeadStride: a.HeadStride, Lists: a.Lists, Rows: a.Rows, Routes: a.Routes, Route: a.Route, First: a.First, Limit: a.Limit,
	}
}

// rotary multiplies the angles by direction: 1, or -1 for the inverse.
func rotary[T Float](a RotaryArgsOf[T], direction float64) []T {
	const op = "Rotary"
	routes, headStride := max(a.Routes, 1), cmp.Or(a.HeadStride, a.DimHead)
	stride := cmp.Or(a.Stride, a.Heads*headStride)
	if len(a.X) != a.Lists*a.Rows*stride {
		checkLen(op, "x", len(a.X), (a.Lists*a.Rows-1)*stride+(a.Heads-1)*headStride+a.DimHead)
	}
	checkOptional(op, "positions", a.Positions, a.Lists*routes*a.Rows)
	checkOptional(op, "valid", a.Valid, a.Lists*routes*a.Rows)
	y := slices.Clone(a.X)
	for row := range a.Lists * a.Rows {
		slot := (row/a.Rows*routes+a.Route)*a.Rows + row%a.Rows
		position := a.First + row%a.Rows
		if a.Positions != nil {
			position = int(a.Positions[slot])
		}
		if !isValid(a.Valid, slot) || position < 0 || a.Limit != 0 && position >= a.Limit {
			continue
		}
		for d := range a.DimHead / 2 {
			angle := direction * float64(position) * math.Pow(10000, -2*float64(d)/float64(a.DimHead))
			sin, cos := T(math.Sin(angle)), T(math.Cos(angle))
			for h := range a.Heads {
				i := row*stride + h*headStride + d
				j := i + a.DimHead/2
				y[i], y[j] = y[i]*cos-y[j]*sin, y[j]*cos+y[i]*sin
			}
		}
	}
	return y
}
