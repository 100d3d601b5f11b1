package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Scatter writes the rows of value to the rows of y that indices name, and base plus a constant row to all other rows.
//
//	value [B, K, C] f32 in    indices [B, K] i32 in    score [B, K] f32 in, optional    valid [B, K] u32 in, optional
//	base [B, N, C] f32 in, optional, may be y    row [C] f32 in, optional    y [B, N, C] f32 out
//	y[b, i] = value[b, k] * score[b, k]    where slot k names row i; with Add: + base[b, i]
//	y[b, i] = base[b, i] + row             where no slot does; an absent base or row is 0
//
// A slot writes nothing if its valid word is 0, its score is 0, or its index is not in 0..N-1. No two other slots of a
// batch item may name the same row: the result of such a race is undefined.
//
// Without value there are no slots, and y = base + row everywhere. Record makes up to two dispatches: one initialises y
// with base and row, unless y is updated in place without a row; one scatters, if there are slots.
//
// Shader: shaders/src/scatter.comp. CPU reference: internal/ref.Scatter.
type Scatter struct {
	config  ScatterConfig
	kernels kernelCache
}

// ScatterConfig is fixed when the kernel is compiled.
type ScatterConfig struct {
	C   int  // elements of a row
	Add bool // add value to the named rows of base; false: replace them
}

// ScatterArgs names the memory and the sizes of one scatter. It writes all of Y, or only the named rows where Base is Y
// and Row is absent.
type ScatterArgs struct {
	Value   vk.Range // [B, K, C]; absent, with K 0: there are no slots
	Indices vk.Range // [B, K] row of y in the same batch item
	Score   vk.Range // [B, K]; absent: 1
	Valid   vk.Range // [B, K]; absent: every slot is valid
	Base    vk.Range // [B, N, C]; absent: zeros. Base may be Y: an update in place
	Row     vk.Range // [C]; absent: zeros. With Row, Add and at least one slot, Base must not be Y: adding Row would change Base first
	Y       vk.Range // [B, N, C]
	B, N, K int
}

type scatterPush struct{ n, k, rows uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(scatterPush{})-12]

// NewScatter checks the config. Record compiles the kernels when it first needs them.
func NewScatter(dev *vk.Device, c ScatterConfig) (*Scatter, error) {
	if err := checkRowLength("Scatter", c.C); err != nil {
		return nil, err
	}
	return &Scatter{config: c, kernels: kernelCache{dev: dev}}, nil
}

// Record appends the dispatches to a command list.
func (s *Scatter) Record(list *vk.CommandList, a ScatterArgs) error {
	if err := s.check(a); err != nil {
		return err
	}
	if a.Base != a.Y || !a.Row.IsZero() {
		if err := s.dispatch(list, true, a, a.B*a.N); err != nil {
			return err
		}
	}
	if a.K == 0 {
		return nil
	}
	return s.dispatch(list, false, a, a.B*a.K)
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
		return fmt.Errorf("pipelines: %s: base is y, row is given and Add is set, want a base other than y", op)
	}
	return nil
}

// checkSlots checks the arguments of slots: all required ones are present, or none is.
func (s *Scatter) checkSlots(a ScatterArgs, b, k, c dim) error {
	const op = "Scatter"
	if k.n == 0 && a.Value.IsZero() {
		if !a.Indices.IsZero() || !a.Score.IsZero() || !a.Valid.IsZero() {
			return fmt.Errorf("pipelines: %s: indices has %d bytes, score %d and valid %d, want none: K is 0 and value is absent",
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
		checkOptional(op, "valid", a.Valid, wordAlign, u32, b, k),
	)
}

// kernel returns the kernel that initialises y, or the one that scatters.
func (s *Scatter) kernel(init bool) (*vk.Kernel, error) {
	variant, cols := rowVariant("scatter", s.config.C)
	spec := map[uint32]uint32{shaders.RowwiseColumns: cols, shaders.ScatterInitPass: specBool(init)}
	if init {
		return s.kernels.get(variant+"_initial", variant, false, spec)
	}
	spec[shaders.ScatterAdd] = specBool(s.config.Add)
	return s.kernels.get(variant, variant, false, spec)
}

// dispatch records one of the two kernels.
func (s *Scatter) dispatch(list *vk.CommandList, init bool, a ScatterArgs, rows int) error {
	const op = "Scatter"
	groups, err := rowGroups(list, op, s.config.C, uint64(rows))
	if err != nil {
		return err
	}
	kernel, err := s.kernel(init)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	bytes := float64(rows) * float64(s.config.C) * 4
	d := vk.Dispatch{Kernel: kernel, Groups: groups, Push: vk.Scalars(&scatterPush{n: uint32(a.N), k: uint32(a.K), rows: uint32(rows)})}
	if init {
		d.Args = []vk.Access{{}, {}, {}, {}, vk.Read(a.Base), vk.Read(a.Row), vk.Write(a.Y)}
		d.Bytes = bytes + float64(a.Base.Size()+a.Row.Size())
	} else {
		d.Args = []vk.Access{vk.Read(a.Value), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Valid), {}, {}, vk.ReadWrite(a.Y)}
		d.Bytes = 2*bytes + float64(a.Indices.Size()+a.Score.Size()+a.Valid.Size())
		if s.config.Add && !a.Base.IsZero() {
			d.Args[4] = vk.Read(a.Base)
			d.Bytes += bytes
		}
	}
	return list.Dispatch(d)
}

// Close frees the kernels. It may be called again, and on nil.
func (s *Scatter) Close() error {
	if s == nil {
		return nil
	}
	return s.kernels.close()
}
