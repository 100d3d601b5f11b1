package pipelines

import (
	"fmt"
	"unsafe"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// GatherBackward is the gradient of the scores of [Gather]: products of rows, by index. That of x is Scatter with Add.
//
//	x [B, N, C] f32 in    indices [B, K] i32 in, optional    score [B, K] f32 in, optional    valid [B, K] u32 in, optional
//	dy [B, K, C] f32 in    dscore [B, K] f32 out; with the config's Add in and out
//	dscore[b, k] (+)= x[b, indices[b, k]] . dy[b, k]; without indices x[b, k] . dy[b, k]
//
// The gradient of a slot is 0, and neither row is read, if its valid word is 0, its score is 0, or its index is not in
// 0..N-1. The order of summation depends on C alone. Ranges start at multiples of 4 bytes.
//
// Shader: shaders/src/gather_backward.comp. CPU reference: internal/ref.GatherBackward.
type GatherBackward struct {
	config            GatherBackwardConfig
	invocationsPerRow uint32
	rowsPerGroup      uint32
	kernels           kernelCache
}

// GatherBackwardConfig is fixed when the kernel is compiled.
type GatherBackwardConfig struct {
	C   int  // elements of a row
	Add bool // add to dscore
}

// GatherBackwardArgs names the memory and the sizes of one dispatch.
type GatherBackwardArgs struct {
	X       vk.Range // [B, N, C]
	Indices vk.Range // [B, K] row of x in the same batch item; absent, with N = K: row k
	Score   vk.Range // [B, K]; absent: no score is 0
	Valid   vk.Range // [B, K]; absent: every slot is valid
	DY      vk.Range // [B, K, C]
	DScore  vk.Range // [B, K]
	B, N, K int
}

type gatherBackwardPush struct{ n, k, slots uint32 } // after six addresses

var _ = [1]struct{}{}[unsafe.Sizeof(gatherBackwardPush{})-12]

// NewGatherBackward checks the config. Record compiles the kernel when it first needs it.
func NewGatherBackward(dev *vk.Device, c GatherBackwardConfig) (*GatherBackward, error) {
	const op = "GatherBackward"
	if err := checkRowLength(op, c.C); err != nil {
		return nil, err
	}
	invocationsPerRow, rows := normInvocationsPerRow(c.C, 64)
	if err := checkIterations(dev.Caps(), op, fmt.Sprintf("a row of %d floats", c.C), c.C/int(invocationsPerRow)+1); err != nil {
		return nil, err
	}
	return &GatherBackward{c, invocationsPerRow, rows, kernelCache{dev: dev}}, nil
}

func (g *GatherBackward) kernel() (*vk.Kernel, error) {
	return g.kernels.get("gather_backward", "gather_backward", false, map[uint32]uint32{
		shaders.RowNormInvocationsPerRow: g.invocationsPerRow,
		shaders.RowNormRowsPerWorkgroup:  g.rowsPerGroup,
		shaders.GatherBackwardChannels:   uint32(g.config.C),
		shaders.GatherBackwardAdd:        specBool(g.config.Add),
	})
}

// Record appends one dispatch to a command list.
func (g *GatherBackward) Record(list *vk.CommandList, a GatherBackwardArgs) error {
	const op = "GatherBackward"
	b, n, k, c := dim{"B", a.B}, dim{"N", a.N}, dim{"K", a.K}, dim{"C", g.config.C}
	if err := checkPositive(op, b, n, k, dim{"B*N", b.n * n.n}, dim{"B*K", b.n * k.n}); err != nil {
		return err
	}
	if a.Indices.IsZero() && a.N != a.K {
		return fmt.Errorf("pipelines: %s: N is %d, want K, %d, without indices", op, a.N, a.K)
	}
	if err := firstError(
		checkTensor(op, "x", a.X, wordAlign, f32, b, n, c),
		checkOptional(op, "indices", a.Indices, wordAlign, i32, b, k),
		checkOptional(op, "score", a.Score, wordAlign, f32, b, k),
		checkOptional(op, "valid", a.Valid, wordAlign, u32, b, k),
		checkTensor(op, "dy", a.DY, wordAlign, f32, b, k, c),
		checkTensor(op, "dscore", a.DScore, wordAlign, f32, b, k),
	); err != nil {
		return err
	}
	slots := uint64(a.B) * uint64(a.K)
	groups, err := workgroups(list.Device().Caps(), op, ceilDiv(slots, uint64(g.rowsPerGroup)))
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
		Args: []vk.Access{vk.Read(a.X), vk.Read(a.Indices), vk.Read(a.Score), vk.Read(a.Valid), vk.Read(a.DY),
			writeAccess(a.DScore, g.config.Add)},
		Push:  vk.Scalars(&gatherBackwardPush{uint32(a.N), uint32(a.K), uint32(slots)}),
		Flops: 2 * float64(slots) * float64(g.config.C),
		Bytes: float64(2*a.DY.Size()+a.Indices.Size()+a.Score.Size()+a.Valid.Size()) + accesses(g.config.Add)*float64(a.DScore.Size()),
	})
}

// Close frees the kernel. It may be called again, and on nil.
func (g *GatherBackward) Close() error {
	if g == nil {
		return nil
	}
	return g.kernels.close()
}
