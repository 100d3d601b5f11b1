package main

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/half"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// result is an output of a workload: floats, or indices.
type result struct {
	name  string
	spoil func() error // writes what no result is
	read  func() ([]float32, []int32, error)
	flat  bool                         // all floats may be the same
	width int                          // indices of a row
	below int                          // what indices are below
	exact func(floats []float32) error // what else floats must be; nil: anything
}

// check runs a workload once, and looks whether all of its results are written and look like results.
func (w *workload) check() error {
	for _, r := range w.results {
		if err := r.spoil(); err != nil {
			return err
		}
	}
	if err := w.run(); err != nil {
		return err
	}
	for _, r := range w.results {
		floats, ints, err := r.read()
		if err == nil && ints != nil {
			err = saneIndices(ints, r.width, r.below)
		} else if err == nil {
			err = saneFloats(floats, r.flat)
		}
		if err == nil && r.exact != nil {
			err = r.exact(floats)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// saneFloats wants finite numbers that are not all the same, unless they may be.
func saneFloats(data []float32, flat bool) error {
	for i, x := range data {
		if x-x != 0 {
			return fmt.Errorf("element %d is %v", i, x)
		}
	}
	if !flat && len(data) > 1 && !slices.ContainsFunc(data, func(x float32) bool { return x != data[0] }) {
		return fmt.Errorf("all %d elements are %v", len(data), data[0])
	}
	return nil
}

// saneIndices wants indices in range, and no two the same in a row of so many.
func saneIndices(data []int32, width, below int) error {
	seen := make([]bool, below)
	for i, x := range data {
		if i%width == 0 {
			clear(seen)
		}
		if x < 0 || int(x) >= below || seen[x] {
			return fmt.Errorf("element %d is %d, want a number below %d, and each at most once in a row of %d", i, x, below, width)
		}
		seen[x] = true
	}
	return nil
}

// junk is a slice of NaNs, or, as integers, of numbers that are no indices.
func junk[T float32 | int32](count int) []T {
	list := make([]T, count)
	raw := vk.Bytes(list)
	for i := range raw {
		raw[i] = 0xff
	}
	return list
}

// floatResult is an output of a room.
func (s *benchStage) floatResult(name string, r vk.Range) result {
	count := int(r.Size() / 4)
	return result{
		name: name,
		spoil: func() error {
			return s.dev.Upload(context.TODO(), vk.Transfer{Range: r, Data: vk.Bytes(junk[float32](count))})
		},
		read: func() ([]float32, []int32, error) {
			data := make([]float32, count)
			return data, nil, s.dev.Download(context.TODO(), vk.Transfer{Range: r, Data: vk.Bytes(data)})
		},
	}
}

// precisionResult is an output of a room in the precision.
func (s *benchStage) precisionResult(name string, r vk.Range) result {
	x := s.floatResult(name, r)
	x.read = func() ([]float32, []int32, error) {
		data, err := s.numbers(r)
		return data, nil, err
	}
	return x
}

// halves are the conversions to and from a precision of 16 bits.
func (s *benchStage) halves() (h struct {
	to   func(float32) uint16
	from func(uint16) float32
}) {
	h.to, h.from = half.ToBF16, half.FromBF16
	if s.precision == pipelines.F16 {
		h.to, h.from = half.ToF16, half.FromF16
	}
	return h
}

// numbers reads numbers of the precision.
func (s *benchStage) numbers(r vk.Range) ([]float32, error) {
	if s.precision == pipelines.F32 {
		data := make([]float32, r.Size()/4)
		return data, s.dev.Download(context.TODO(), vk.Transfer{Range: r, Data: vk.Bytes(data)})
	}
	raw := make([]uint16, r.Size()/2)
	err := s.dev.Download(context.TODO(), vk.Transfer{Range: r, Data: vk.Bytes(raw)})
	data, from := make([]float32, len(raw)), s.halves().from
	for i, word := range raw {
		data[i] = from(word)
	}
	return data, err
}

// productResult is the output of a product: 8 rows, spread from the first to the last, must be what the twin makes of them. Fast tiles are for sizes that
// no test has time for.
func (s *benchStage) productResult(a pipelines.LinearArgs, in, out int) result {
	const count = 8
	y := s.precisionResult("y", a.Y)
	y.exact = func(all []float32) error {
		wide, err := s.numbers(a.W)
		if err != nil {
			return err
		}
		w, columns := make([]float32, 0, in*out), len(wide)/out // zeros may follow a row of 16 bits
		for row := range out {
			w = append(w, wide[row*columns:][:in]...)
		}
		var x, got []float32
		bytes := uint64(in * s.precision.Size())
		for n := range count {
			row := n * (a.Rows - 1) / (count - 1)
			one, err := s.numbers(a.X.Slice(uint64(row)*bytes, bytes))
			if err != nil {
				return err
			}
			x, got = append(x, one...), append(got, all[row*out:][:out]...)
		}
		args := ref.LinearArgs{X: x, W: w, Rows: count, In: in, Out: out}
		want, naive := ref.Linear(args), ref.Linear32(args)
		for i, v := range naive {
			naive[i] = s.rounded(v)
		}
		return ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6))
	}
	return y
}

// rounded rounds to the precision.
func (s *benchStage) rounded(v float32) float32 {
	if s.precision == pipelines.F32 {
		return v
	}
	h := s.halves()
	return h.from(h.to(v))
}

// indexResult is an output of a room: indices below some number, in rows.
func (s *benchStage) indexResult(name string, r vk.Range, width, below int) result {
	x := s.floatResult(name, r)
	x.width, x.below = width, below
	x.read = func() ([]float32, []int32, error) {
		data := make([]int32, r.Size()/4)
		return nil, data, s.dev.Download(context.TODO(), vk.Transfer{Range: r, Data: vk.Bytes(data)})
	}
	return x
}

// tensorResult is an output of a module.
func tensorResult(name string, t *colt5.Tensor) result {
	return result{
		name:  name,
		spoil: func() error { return t.Write(context.TODO(), junk[float32](t.Len())) },
		read: func() ([]float32, []int32, error) {
			data, err := t.Float32(context.TODO())
			return data, nil, err
		},
	}
}

// tensorIndices is an output of a module: indices below some number, in rows of the last dimension.
func tensorIndices(name string, t *colt5.Tensor, below int) result {
	shape := t.Shape()
	return result{
		name: name, width: shape[len(shape)-1], below: below,
		spoil: func() error { return t.Write(context.TODO(), junk[int32](t.Len())) },
		read: func() ([]float32, []int32, error) {
			data, err := t.Int32(context.TODO())
			return nil, data, err
		},
	}
}

// normals are numbers of a normal distribution, the same for a seed.
func normals(seed uint64, count int) []float32 {
	list := make([]float32, count)
	state := 1 + seed*0x9e3779b97f4a7c15
	for i := range list {
		// Four uniform numbers of a 64-bit generator, added: near enough to normal, and fast enough for millions.
		state = state*6364136223846793005 + 1442695040888963407
		x := state ^ state>>29
		x *= 0x9e3779b97f4a7c15
		sum := x&0xffff + x>>16&0xffff + x>>32&0xffff + x>>48
		list[i] = float32((float64(sum) - 2*0xffff) / 0x10000 * math.Sqrt(3))
	}
	return list
}
