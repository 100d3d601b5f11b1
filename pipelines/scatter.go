package pipelines

import (
	"fmt"
	"unsafe"

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
// Without value there are no slots, and y = base + row everywhere. A dispatch each for what is to be prepared (nothing if y is updated in
// place without a row) and for slots.
//
// Shader: shaders/scatter.comp. Reference: internal/ref.Scatter.
type Scatter struct {
	config  ScatterConfig
	kernels kernelCache
}

// ScatterConfig is what is baked into the kernels.
type ScatterConfig struct {
	C   int  // floats of a row
	Add bool // add to the rows of base that are named; false: replace them
}

// ScatterArgs is one run. It reads all ranges but Y, which it writes: whole, or, where Base is Y and Row absent, the named rows.
type ScatterArgs struct {
	Value   vk.Range // [B, K, C]; absent, with K 0: there are no slots
	Indices vk.Range // [B, K] row of y in the same batch item
	Score   vk.Range // [B, K]; absent: 1
	Valid   vk.Range // [B, K] 0 or 1; absent: every slot is filled
	Base    vk.Range // [B, N, C]; absent: zeros. The same range as Y: y is updated in place
	Row     vk.Range // [C]; absent: zeros. With Add and slots, Base may not be Y then: a named row's base would be lost
	Y       vk.Range // [B, N, C]
	B, N, K int
}

type scatterPush struct{ n, k, rows uint32 }

const (
	_ = uint(12 - unsafe.Sizeof(scatterPush{}))
	_ = uint(unsafe.Sizeof(scatterPush{}) - 12)
)

// NewScatter makes a scatter of rows of c.C floats. Its kernels are compiled when they are first recorded.
func NewScatter(dev *vk.Device, c ScatterConfig) (*Scatter, error) {
	if err := checkRowLength("Scatter", c.C); err != nil {
		return nil, err
	}
	return &Scatter{config: c, kernels: kernelCache{dev: dev}}, nil
}

// Record adds the dispatches to a tape.
func (s *Scatter) Record(t *vk.CommandList, a ScatterArgs) error {
	if err := s.check(a); err != nil {
		return err
	}
	// In place without a row there is nothing to prepare.
	if a.Base != a.Y || !a.Row.IsZero() {
		if err := s.dispatch(t, true, a, a.B*a.N); err != nil {
			return err
		}
	}
	if a.K == 0 {
		return nil
	}
	return s.dispatch(t, false, a, a.B*a.K)
}

func (s *Scatter) check(a ScatterArgs) error {
	const op = "Scatter"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", s.config.C}
	if err := checkPositive(op, b, n, dim{"B*N", b.n * n.n}); err != nil {
		return err
	}
	if err := firstError(
		s.checkSlots(a, b, k, c),
		checkOptional(op, "base", a.Base, rowAlign(c.n), f32, b, n, c),
		checkOptional(op, "row", a.Row, rowAlign(c.n), f32, c),
		checkTensor(op, "y", a.Y, rowAlign(c.n), f32, b, n, c),
	); err != nil {
		return err
	}
	if s.config.Add && a.Base == a.Y && !a.Row.IsZero() && a.K > 0 {
		return fmt.Errorf("pipelines: %s: base is y, row is given and Add is set, want a base of its own", op)
	}
	return nil
}

// checkSlots checks what belongs to slots: all of it, or nothing.
func (s *Scatter) checkSlots(a ScatterArgs, b, k, c dim) error {
	const op = "Scatter"
	if k.n == 0 && a.Value.IsZero() {
		if !a.Indices.IsZero() || !a.Score.IsZero() || !a.Valid.IsZero() {
			return fmt.Errorf("pipelines: %s: indices has %d bytes, score %d and filled %d, want none: K is 0 and value absent",
				op, a.Indices.Size(), a.Score.Size(), a.Valid.Size())
		}
		return nil
	}
	if err := checkPositive(op, k, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	return firstError(
		checkTensor(op, "value", a.Value, rowAlign(c.n), f32, b, k, c),
		checkTensor(op, "indices", a.Indices, wordAlign, i32, b, k),
		checkOptional(op, "score", a.Score, wordAlign, f32, b, k),
		checkOptional(op, "filled", a.Valid, wordAlign, u32, b, k),
	)
}

func (s *Scatter) kernel(initial bool) (*vk.Kernel, error) {
	variant, cols := rowVariant("scatter", s.config.C)
	if initial {
		return s.kernels.get(variant+"_initial", variant, false, map[uint32]uint32{0: cols, 1: 1})
	}
	return s.kernels.get(variant, variant, false, map[uint32]uint32{0: cols, 1: 0, 2: specBool(s.config.Add)})
}

// dispatch records one of the two kernels, over so many rows.
func (s *Scatter) dispatch(t *vk.CommandList, initial bool, a ScatterArgs, rows int) error {
	groups, err := rowGroups(t, "Scatter", s.config.C, uint64(rows))
	if err != nil {
		return err
	}
	kernel, err := s.kernel(initial)
	if err != nil {
		return fmt.Errorf("pipelines: Scatter: %w", err)
	}
	moved := float64(rows) * float64(s.config.C) * 4
	d := vk.Dispatch{Kernel: kernel, Groups: groups, Push: vk.Scalars(&scatterPush{n: uint32(a.N), k: uint32(a.K), rows: uint32(rows)})}
	if initial {
		d.Args = []vk.Access{{}, {}, {}, {}, vk.Read(a.Base), vk.Read(a.Row), vk.Write(a.Y)}
		d.Bytes = moved + float64(a.Base.Size()+a.Row.Size())
	} else {
		d.Args = []vk.Access{vk.Read(a.Value), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Valid), {}, {}, vk.ReadWrite(a.Y)}
		d.Bytes = 2*moved + float64(a.Indices.Size()+a.Score.Size()+a.Valid.Size())
		if s.config.Add && !a.Base.IsZero() {
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
	return s.kernels.close()
}
