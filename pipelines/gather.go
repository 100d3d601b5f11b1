package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// Gather copies rows of x by index, and multiplies them by scores. K counts the slots of all lists of a batch item.
// With C = 1 it gathers single elements.
//
//	x [B, N, C] f32 in    indices [B, K] i32 in    y [B, K, C] f32 out
//	score [B, K] f32 in, optional    valid [B, K] u32 in, optional
//	y[b, k] = x[b, indices[b, k]] * score[b, k]
//
// A slot gives zeros, and reads nothing of x, if its valid word is 0, its score is 0, or its index is not in 0..N-1.
//
// Shader: shaders/src/gather.comp. CPU reference: internal/ref.Gather.
type Gather struct {
	config  GatherConfig
	kernels kernelCache
}

// GatherConfig is fixed when the kernel is compiled.
type GatherConfig struct {
	C int // elements of a row
}

// GatherArgs names the memory and the sizes of one dispatch. It writes all of Y.
type GatherArgs struct {
	X       vk.Range // [B, N, C]
	Indices vk.Range // [B, K] row of x in the same batch item
	Score   vk.Range // [B, K]; absent: 1
	Valid   vk.Range // [B, K]; absent: every slot is valid
	Y       vk.Range // [B, K, C]
	B, N, K int
}

type gatherPush struct{ n, k, slots uint32 }

var _ = [1]struct{}{}[unsafe.Sizeof(gatherPush{})-12]

// NewGather checks the config. Record compiles the kernel when it first needs it.
func NewGather(dev *vk.Device, c GatherConfig) (*Gather, error) {
	if err := checkRowLength("Gather", c.C); err != nil {
		return nil, err
	}
	return &Gather{config: c, kernels: kernelCache{dev: dev}}, nil
}

func (g *Gather) kernel() (*vk.Kernel, error) {
	name, cols := rowVariant("gather", g.config.C)
	return g.kernels.get(name, name, false, map[uint32]uint32{shaders.RowwiseColumns: cols})
}

// Record appends one dispatch to a command list.
func (g *Gather) Record(list *vk.CommandList, a GatherArgs) error {
	const op = "Gather"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", g.config.C}
	if err := checkPositive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	if err := firstError(
		checkTensor(op, "x", a.X, rowAlign(c.n), f32, b, n, c),
		checkTensor(op, "indices", a.Indices, wordAlign, i32, b, k),
		checkOptional(op, "score", a.Score, wordAlign, f32, b, k),
		checkOptional(op, "valid", a.Valid, wordAlign, u32, b, k),
		checkTensor(op, "y", a.Y, rowAlign(c.n), f32, b, k, c),
	); err != nil {
		return err
	}
	slots := uint64(b.n) * uint64(k.n)
	groups, err := rowGroups(list, op, g.config.C, slots)
	if err != nil {
		return err
	}
	kernel, err := g.kernel()
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return list.Dispatch(vk.Dispatch{
		Kernel: kernel,
		Groups: groups,
		Args:   []vk.Access{vk.Read(a.X), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Valid), vk.Write(a.Y)},
		Push:   vk.Scalars(&gatherPush{n: uint32(a.N), k: uint32(a.K), slots: uint32(slots)}),
		Bytes:  float64(2*a.Y.Size() + a.Indices.Size() + a.Score.Size() + a.Valid.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (g *Gather) Close() error {
	if g == nil {
		return nil
	}
	return g.kernels.close()
}
