package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/vk"
)

// Gather reads rows by index. With several routes K counts the slots of all of them; with C = 1 it reads single values.
//
//	x [B, N, C] f32 in    indices [B, K] i32 in    y [B, K, C] f32 out
//	score [B, K] f32 in, optional    filled [B, K] u32 in, optional
//	y[b, k] = x[b, indices[b, k]] * score[b, k]; an empty slot gives zeros
//
// A slot is empty if its filled word or its score is 0, or if its index is not one of 0..N-1: nothing outside x is read.
//
// Shader: shaders/gather.comp. Reference: internal/ref.Gather.
type Gather struct {
	c       GatherConfig
	kernels kernels
}

// GatherConfig is what is baked into the kernel.
type GatherConfig struct {
	C int // floats of a row
}

// GatherArgs is one dispatch. It reads all ranges but Y, which it writes whole.
type GatherArgs struct {
	X       vk.Range // [B, N, C]
	Indices vk.Range // [B, K] row of x in the same batch item
	Score   vk.Range // [B, K]; absent: 1
	Valid   vk.Range // [B, K] 0 or 1; absent: every slot is filled
	Y       vk.Range // [B, K, C]
	B, N, K int
}

type gatherPush struct{ n, k, slots uint32 }

const (
	_ = uint(12 - unsafe.Sizeof(gatherPush{}))
	_ = uint(unsafe.Sizeof(gatherPush{}) - 12)
)

// NewGather makes a gather of rows of c.C floats. Its kernel is compiled when it is first recorded.
func NewGather(dev *vk.Device, c GatherConfig) (*Gather, error) {
	if err := rowLength("Gather", c.C); err != nil {
		return nil, err
	}
	return &Gather{c: c, kernels: kernels{dev: dev}}, nil
}

func (g *Gather) kernel() (*vk.Kernel, error) {
	name, cols := rowVariant("gather", g.c.C)
	return g.kernels.get(name, name, false, map[uint32]uint32{0: cols})
}

// Record adds the dispatch to a tape.
func (g *Gather) Record(t *vk.CommandList, a GatherArgs) error {
	const op = "Gather"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", g.c.C}
	if err := positive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	slots, row := uint64(b.n)*uint64(k.n), 4*uint64(c.n)
	if err := firstError(
		needAt(rowsOf(c.n), op, "x", a.X, uint64(b.n)*uint64(n.n)*row, shape(b, n, c)+" f32"),
		needAt(words, op, "indices", a.Indices, 4*slots, shape(b, k)+" i32"),
		optionalAt(words, op, "score", a.Score, 4*slots, shape(b, k)+" f32"),
		optionalAt(words, op, "filled", a.Valid, 4*slots, shape(b, k)+" u32"),
		needAt(rowsOf(c.n), op, "y", a.Y, slots*row, shape(b, k, c)+" f32"),
	); err != nil {
		return err
	}
	groups, err := rowGroups(t, op, g.c.C, slots)
	if err != nil {
		return err
	}
	kernel, err := g.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	push := gatherPush{n: uint32(a.N), k: uint32(a.K), slots: uint32(slots)}
	return t.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Valid), vk.Write(a.Y)},
		Push:   vk.Scalars(&push),
		Bytes:  float64(2*slots*row + a.Indices.Size() + a.Score.Size() + a.Valid.Size()),
	})
}

// Close frees the kernel.
func (g *Gather) Close() error {
	if g == nil {
		return nil
	}
	return g.kernels.close()
}

// rowLength checks the length of a row, whose bytes the shaders count in 32 bits.
func rowLength(op string, c int) error {
	if c < 1 || c >= 1<<30 {
		return fmt.Errorf("pipelines: %s: C is %d, want 1 to %d", op, c, 1<<30-1)
	}
	return nil
}

// rowVariant is the variant of a kernel for rows of c floats, and how many of its elements a row has. Four floats are loaded at
// once where every row starts at a multiple of 16 bytes.
func rowVariant(stem string, c int) (name string, cols uint32) {
	if c%4 == 0 {
		return stem + "_vec4", uint32(c / 4)
	}
	return stem, uint32(c)
}

// rowGroups is the grid of a kernel that includes slots.glsl, for some number of rows.
func rowGroups(t *vk.CommandList, op string, c int, rows uint64) ([3]uint32, error) {
	_, cols := rowVariant("", c)
	caps := t.Device().Caps()
	if err := turns(caps, op, fmt.Sprintf("a row of %d floats", c), int(cols/256)); err != nil {
		return [3]uint32{}, err
	}
	each := uint64(max(256/cols, 1))
	groups, err := vk.Grid(caps, (rows+each-1)/each)
	if err != nil {
		return groups, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return groups, nil
}

// firstError is the first error, nil if there is none.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
