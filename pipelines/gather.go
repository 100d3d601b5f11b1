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
	config  GatherConfig
	kernels kernelCache
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
	if err := checkRowLength("Gather", c.C); err != nil {
		return nil, err
	}
	return &Gather{config: c, kernels: kernelCache{dev: dev}}, nil
}

func (g *Gather) kernel() (*vk.Kernel, error) {
	name, cols := rowVariant("gather", g.config.C)
	return g.kernels.get(name, name, false, map[uint32]uint32{0: cols})
}

// Record adds the dispatch to a tape.
func (g *Gather) Record(t *vk.CommandList, a GatherArgs) error {
	const op = "Gather"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", g.config.C}
	if err := checkPositive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	slots, row := uint64(b.n)*uint64(k.n), 4*uint64(c.n)
	if err := firstError(
		checkTensor(op, "x", a.X, rowAlign(c.n), f32, b, n, c),
		checkTensor(op, "indices", a.Indices, wordAlign, i32, b, k),
		checkOptional(op, "score", a.Score, wordAlign, f32, b, k),
		checkOptional(op, "filled", a.Valid, wordAlign, u32, b, k),
		checkTensor(op, "y", a.Y, rowAlign(c.n), f32, b, k, c),
	); err != nil {
		return err
	}
	groups, err := rowGroups(t, op, g.config.C, slots)
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
