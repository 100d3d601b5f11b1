package pipelines

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Scatter writes rows back to their positions, and says what the other rows become.
//
//	value [B, K, C] f32 in    indices [B, K] i32 in    score [B, K] f32 in, optional    filled [B, K] u32 in, optional
//	base [B, N, C] f32 in, optional, may be y    row [C] f32 in, optional    y [B, N, C] f32 out
//	y[b, i] = value[b, k] * score[b, k]    where slot k names row i; with Add: + base[b, i]
//	y[b, i] = base[b, i] + row             where no slot does; what is absent counts as 0
//
// A slot is empty, and writes nothing, if its filled word or its score is 0, or if its index is not one of 0..N-1. No two other
// slots of a batch item may name the same row: which of them wins would be chance.
//
// One dispatch if y is updated in place without a row, two otherwise.
//
// Shader: shaders/scatter.comp. Reference: internal/ref.Scatter.
type Scatter struct {
	c              ScatterConfig
	initial, place *vk.Kernel
}

// ScatterConfig is what is baked into the kernels.
type ScatterConfig struct {
	C   int  // floats of a row
	Add bool // add to the rows of base that are named; false: replace them
}

// ScatterArgs is one run. It reads all ranges but Y, which it writes: whole, or, where Base is Y and Row absent, the named rows.
type ScatterArgs struct {
	Value   vk.Range // [B, K, C]
	Indices vk.Range // [B, K] row of y in the same batch item
	Score   vk.Range // [B, K]; absent: 1
	Filled  vk.Range // [B, K] 0 or 1; absent: every slot is filled
	Base    vk.Range // [B, N, C]; absent: zeros. The same range as Y: y is updated in place
	Row     vk.Range // [C]; absent: zeros. With Add, Base may not be Y then: a named row's base would be lost
	Y       vk.Range // [B, N, C]
	B, N, K int
}

type scatterPush struct{ n, k, rows uint32 }

const (
	_ = uint(12 - unsafe.Sizeof(scatterPush{}))
	_ = uint(unsafe.Sizeof(scatterPush{}) - 12)
)

// NewScatter compiles the kernels for rows of c.C floats.
func NewScatter(dev *vk.Device, c ScatterConfig) (*Scatter, error) {
	if err := rowLength("Scatter", c.C); err != nil {
		return nil, err
	}
	variant, cols := rowVariant("scatter", c.C)
	code, err := shaders.SPV(variant)
	if err != nil {
		return nil, fmt.Errorf("pipelines: Scatter: %w", err)
	}
	s := &Scatter{c: c}
	for _, k := range []struct {
		kernel **vk.Kernel
		name   string
		spec   map[uint32]uint32
	}{
		{&s.initial, variant + "_initial", map[uint32]uint32{0: cols, 1: 1}},
		{&s.place, variant, map[uint32]uint32{0: cols, 1: 0, 2: flag(c.Add)}},
	} {
		if *k.kernel, err = dev.NewKernel(vk.KernelConfig{Name: k.name, Code: code, Spec: k.spec}); err != nil {
			return nil, errors.Join(fmt.Errorf("pipelines: Scatter: %w", err), s.Close())
		}
	}
	return s, nil
}

// Record adds the dispatches to a tape.
func (s *Scatter) Record(t *vk.Tape, a ScatterArgs) error {
	if err := s.check(a); err != nil {
		return err
	}
	// In place without a row there is nothing to prepare.
	if a.Base != a.Y || !a.Row.IsZero() {
		if err := s.dispatch(t, s.initial, a, a.B*a.N); err != nil {
			return err
		}
	}
	return s.dispatch(t, s.place, a, a.B*a.K)
}

func (s *Scatter) check(a ScatterArgs) error {
	const op = "Scatter"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", s.c.C}
	if err := positive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	slots, row := uint64(b.n)*uint64(k.n), 4*uint64(c.n)
	y := uint64(b.n) * uint64(n.n) * row
	if err := firstError(
		need(op, "value", a.Value, slots*row, shape(b, k, c)+" f32"),
		need(op, "indices", a.Indices, 4*slots, shape(b, k)+" i32"),
		optional(op, "score", a.Score, 4*slots, shape(b, k)+" f32"),
		optional(op, "filled", a.Filled, 4*slots, shape(b, k)+" u32"),
		optional(op, "base", a.Base, y, shape(b, n, c)+" f32"),
		optional(op, "row", a.Row, row, shape(c)+" f32"),
		need(op, "y", a.Y, y, shape(b, n, c)+" f32"),
	); err != nil {
		return err
	}
	if s.c.Add && a.Base == a.Y && !a.Row.IsZero() {
		return fmt.Errorf("pipelines: %s: base is y, row is given and Add is set, want a base of its own", op)
	}
	return nil
}

func (s *Scatter) dispatch(t *vk.Tape, k *vk.Kernel, a ScatterArgs, rows int) error {
	groups, err := rowGroups(t, s.c.C, uint64(rows))
	if err != nil {
		return fmt.Errorf("pipelines: Scatter: %w", err)
	}
	moved := float64(rows) * float64(s.c.C) * 4
	d := vk.Dispatch{Kernel: k, Groups: groups, Push: vk.Scalars(&scatterPush{n: uint32(a.N), k: uint32(a.K), rows: uint32(rows)})}
	if k == s.initial {
		d.Args = []vk.Access{{}, {}, {}, {}, vk.Read(a.Base), vk.Read(a.Row), vk.Write(a.Y)}
		d.Bytes = moved + float64(a.Base.Size()+a.Row.Size())
	} else {
		d.Args = []vk.Access{vk.Read(a.Value), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Filled), {}, {}, vk.ReadWrite(a.Y)}
		d.Bytes = 2*moved + float64(a.Indices.Size()+a.Score.Size()+a.Filled.Size())
		if s.c.Add && !a.Base.IsZero() {
			d.Args[4] = vk.Read(a.Base)
			d.Bytes += moved
		}
	}
	return t.Dispatch(d)
}

// Close frees the kernels.
func (s *Scatter) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.initial.Close(), s.place.Close())
}
