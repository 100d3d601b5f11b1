package pipelines

import (
	"fmt"
	"maps"
	"math"

	"github.com/colt5-vulkan/colt5/vk"
)

// What the rooms that include shaders/include/attention.glsl share.

const attentionThreads = 128 // of a workgroup, as in the shader

// attentionTile is how many queries a workgroup has, and how many keys it looks at at a time; with cooperative matrices, how many subgroups
// have its queries.
type attentionTile struct{ queries, keys, subgroups int }

// attentionCPU is the tile of the kernel for CPU drivers, as in the shader.
var attentionCPU = attentionTile{8, 8, 0}

// Lists of tiles, in the order of preference. With cooperative matrices those of a list that suit one head and device have the same number of keys,
// so that bits do not depend on the number of queries.
var (
	attentionTiles       = []attentionTile{{64, 64, 0}, {64, 32, 0}, {32, 32, 0}}
	attentionMatrixTiles = []attentionTile{{64, 64, 4}, {64, 32, 4}}  // few workgroups, or keys that must be looked up: large steps, for each costs time
	attentionMatrixShort = []attentionTile{{64, 32, 4}}               // few keys: many workgroups side by side, and little is looked at in vain
	attentionMatrixWide  = []attentionTile{{128, 32, 4}, {64, 32, 4}} // many queries and keys: a key that is read serves twice as many queries
	attentionMatrixCPU   = []attentionTile{{32, 16, 4}}               // for CPU drivers, whose compilers take a minute for the others
)

// dims is the largest dim of a head for whose queries, results, scores and next keys and values the tile, or what remains of it for few queries, has
// registers.
func (t attentionTile) dims() int {
	switch {
	case t.subgroups > 0 && t.queries/t.subgroups > 16:
		return 64
	case t.subgroups > 0 && t.keys > 32:
		return 96
	}
	return 128
}

// attentionShared is the shared memory that a tile may take: with more, too few workgroups run side by side.
const attentionShared = 48 << 10

// shared is the shared memory that the kernel takes, in bytes: the arrays of attention.glsl, or of attention_matrix.glsl.
func (t attentionTile) shared(dimHead int, factors bool) uint32 {
	factored := 2
	if factors {
		factored = 2 * t.keys
	}
	if t.subgroups > 0 {
		line, strip := (dimHead+15)/16*2+1, t.keys/8+1
		return uint32(16*(max(t.queries, 2*t.keys)*line+t.queries*strip) + 4*2*t.keys + 8*factored + 16)
	}
	d4 := (dimHead + 3) / 4
	nk := (d4 + 7) / 8
	dk := (d4 + nk - 1) / nk
	nv := nk
	if nk == 3 {
		nv = 4
	}
	quads := t.queries*(nk*dk|1) + max(t.keys*(dk|1), t.keys/nv*d4) + t.queries*(t.keys/4|1)
	return uint32(16*quads + 4*2*t.keys + 8*factored + 4*attentionThreads + 4*t.queries)
}

// chooseAttentionTile chooses from what the device has. The keys of a tile depend on the list, the device and the head alone, for the order of
// summation follows from them; the queries do not matter to it, and are 32 where a list has no more.
func chooseAttentionTile(caps vk.Caps, list []attentionTile, dimHead int, factors bool, queries int) (attentionTile, error) {
	for _, t := range list {
		if dimHead > t.dims() || t.shared(dimHead, factors) > min(caps.SharedBytes, attentionShared) || t.queries > 64 && queries <= 64 {
			continue
		}
		if queries <= 32 && t.queries > 32 {
			t.subgroups /= t.queries / 32
			t.queries = 32
		}
		return t, nil
	}
	least := list[len(list)-1].shared(dimHead, factors)
	return attentionTile{}, fmt.Errorf("pipelines: %w: %d bytes of shared memory, heads of dim %d take %d", vk.ErrUnsupported, caps.SharedBytes, dimHead, least)
}

// attentionHeads checks the heads of a config.
func attentionHeads(op string, heads, dimHead int, p DType) error {
	if err := firstError(checkPositive(op, dim{"Heads", heads}), p.checkPrecision(op)); err != nil {
		return err
	}
	if dimHead < 1 || dimHead > 128 {
		return fmt.Errorf("pipelines: %s: DimHead is %d, want 1 to 128", op, dimHead)
	}
	if p != F32 && dimHead%2 != 0 {
		return fmt.Errorf("pipelines: %s: DimHead is %d, want an even number with %v", op, dimHead, p)
	}
	return nil
}

// attentionRows checks that the rows of single heads, counted through a tensor, have 32-bit numbers.
func attentionRows(op string, dims ...dim) error {
	n := 1.0
	for _, d := range dims {
		n *= float64(d.n)
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: %s makes %.0f, want %d at most", op, shape(dims...), n, uint32(math.MaxUint32))
	}
	return nil
}

// attentionKernels are the variants of an attention kernel, compiled when they are first needed.
type attentionKernels struct {
	kernelCache
	attentionConfig
	limit  float64 // of the work of a dispatch; attentionFlops but in tests
	tiled  bool    // for tests: the kernel of GPUs also on a CPU driver
	direct bool    // false for tests: weights go through shared memory on all devices
	matrix vk.MatrixShape
}

// attentionConfig is what a room says of its kernels.
type attentionConfig struct {
	name      string
	dimHead   int
	factors   bool
	precision DType
	spec      map[uint32]uint32 // of the room's own constants, 8 and up
	matrices  []attentionTile   // for 16 bits
}

// attentionFlops is the work of one dispatch at most. Slow devices do 0.2 TFLOP/s, and some systems stop work that takes two seconds.
const attentionFlops = 1e11

func newAttentionKernels(dev *vk.Device, op string, c attentionConfig) (*attentionKernels, error) {
	matrix, err := c.precision.matrixShape(dev.Caps())
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &attentionKernels{kernelCache: kernelCache{dev: dev}, attentionConfig: c, limit: attentionFlops, direct: true, matrix: matrix}, nil
}

// get is the kernel of a tile.
func (k *attentionKernels) get(t attentionTile) (*vk.Kernel, error) {
	spec := maps.Clone(k.spec)
	spec[0], spec[3], spec[4] = uint32(k.dimHead), math.Float32bits(float32(math.Log2E/math.Sqrt(float64(k.dimHead)))), specBool(k.factors)
	if t == attentionCPU {
		return k.kernelCache.get(k.name+"_cpu", k.name+"_cpu", false, spec)
	}
	spec[1], spec[2] = uint32(t.queries), uint32(t.keys)
	if k.precision == F32 {
		return k.with(fmt.Sprintf("%s %dx%d", k.name, t.queries, t.keys), k.name, spec, vk.KernelConfig{})
	}
	lanes, m := k.dev.Caps().SubgroupSize, k.matrix
	for i, word := range []uint32{m.M, m.N, m.K, lanes, uint32(t.subgroups), uint32(t.subgroups) * lanes, specBool(k.direct), specBool(k.dev.Caps().CPU)} {
		spec[uint32(20+i)] = word
	}
	variant := k.name + "_" + k.precision.String()
	return k.with(fmt.Sprintf("%s %dx%d", variant, t.queries, t.keys), variant, spec, vk.KernelConfig{SubgroupSize: lanes, FullSubgroups: true})
}

// tile chooses the kernel.
func (k *attentionKernels) tile(op string, w attentionWork) (attentionTile, error) {
	caps, list := k.dev.Caps(), attentionTiles
	switch {
	case k.precision != F32 && caps.CPU && !k.tiled && max(k.matrix.M, k.matrix.N) <= 8: // a subgroup has 8 queries
		list = attentionMatrixCPU
	case k.precision != F32:
		list = k.matrices
	}
	own := (w.keys/attentionCPU.keys + 2) * (1 + (k.dimHead+3)/4*2)
	if k.precision == F32 && caps.CPU && !k.tiled && own <= maxCPUIterations {
		return attentionCPU, nil
	}
	t, err := chooseAttentionTile(caps, list, k.dimHead, k.factors, w.queries)
	if err != nil {
		return t, err
	}
	return t, checkIterations(caps, op, fmt.Sprintf("attention to %d keys of dim %d", w.keys, k.dimHead), t.turns(k.dimHead, w.keys))
}

// turns is about how often the loops of the kernel turn for so many keys: a turn a tile, and one for each chunk of its keys and values, or for
// each part of them that a small workgroup looks up; before that, empty slots are looked for, and queries fetched.
func (t attentionTile) turns(dimHead, keys int) int {
	chunks := ((dimHead+3)/4 + 7) / 8
	if t.subgroups > 0 {
		return (keys/t.keys+2)*(2+t.keys/(8*t.subgroups)) + keys/(8*t.subgroups) + 2000
	}
	return (keys/t.keys+2)*(1+2*chunks+1) + keys/attentionThreads + 200
}

// attentionWork is what an attention has to do.
type attentionWork struct {
	queries      int    // that have common keys: of a list, window or patch
	keys         int    // that a query looks at, at most
	units        uint64 // how many of these there are, heads counted apart
	flops, bytes float64
	args         []vk.Access
}

// record adds dispatches to a tape, of workgroups first to groups - 1 each.
func (k *attentionKernels) record(t *vk.CommandList, op string, w attentionWork, push func(first, groups uint32) []byte) error {
	tile, err := k.tile(op, w)
	if err != nil {
		return err
	}
	all := w.units * ceilDiv(uint64(w.queries), uint64(tile.queries))
	if all > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: %d units of %d queries make %d tiles, want %d at most", op, w.units, w.queries, all, uint32(math.MaxUint32))
	}
	kernel, err := k.get(tile)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	step := evenShare(all, max(uint64(float64(all)*min(1, k.limit/w.flops)), 1))
	for first := uint64(0); first < all; first += step {
		n := min(step, all-first)
		share := float64(n) / float64(all)
		groups, err := vk.Grid(t.Device().Caps(), n)
		if err != nil {
			return fmt.Errorf("pipelines: %s: %w", op, err)
		}
		err = t.Dispatch(vk.Dispatch{
			Kernel: kernel, Groups: groups, Args: w.args, Push: push(uint32(first), uint32(first+n)), Flops: share * w.flops, Bytes: share * w.bytes,
			IndependentOfPrevious: first > 0,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close frees the kernels. One that an open tape uses stays, and the next Close tries again.
func (k *attentionKernels) Close() error {
	if k == nil {
		return nil
	}
	return k.kernelCache.close()
}

// heads checks an argument whose rows are heads of the precision.
func (p DType) heads(op, arg string, r vk.Range, dims ...dim) error {
	return checkTensor(op, arg, r, p.rowAlign(dims[len(dims)-1].n), p.element(), dims...)
}
