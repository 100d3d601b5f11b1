package pipelines

import (
	"fmt"
	"maps"
	"math"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file holds what the kernels that include shaders/src/include/attention.glsl share; attention_tiles.go has their tile
// sizes.

// attentionConfig is what an attention passes to the kernels that it shares.
type attentionConfig struct {
	name        string // stem of the SPIR-V variants
	heads       int
	dimHead     int
	factors     bool // queries, keys or values are multiplied by scores
	precision   DType
	spec        map[uint32]uint32 // the specialisation constants of this attention
	matrixTiles []attentionTile   // for 16-bit operands
}

// addMatrixSpec adds the specialisation constants of all kernels on cooperative matrices.
func addMatrixSpec(spec map[uint32]uint32, m vk.MatrixShape, caps vk.Caps, subgroup uint32, subgroups int, weightsInRegisters bool) {
	spec[shaders.Attention16MatrixM], spec[shaders.Attention16MatrixN], spec[shaders.Attention16MatrixK] = m.M, m.N, m.K
	spec[shaders.Attention16SubgroupSize] = subgroup
	spec[shaders.Attention16Subgroups] = uint32(subgroups)
	spec[shaders.Attention16Threads] = uint32(subgroups) * subgroup
	spec[shaders.Attention16WeightsInRegisters] = specBool(weightsInRegisters)
	spec[shaders.Attention16Lockstep] = specBool(caps.CPU)
}

// attentionKernels are the kernels of an attention. Each is compiled when it is first recorded.
type attentionKernels struct {
	kernelCache
	attentionConfig
	matrix vk.MatrixShape // of the cooperative matrix; zero for F32

	maxFlops           float64 // maxAttentionFlops, except in tests
	gpuKernel          bool    // for tests: use the kernel for GPUs on CPU drivers too
	weightsInRegisters bool    // false for tests: weights always go through shared memory
	lowRegisters       bool    // 16-bit operands, on a device with few registers: use the kernel of attention_lowreg.go
}

// maxAttentionFlops bounds the work of one dispatch. Slow devices do 0.2 TFLOP/s, and some systems reset the device
// after two seconds.
const maxAttentionFlops = 5e10

// attentionWork describes one attention to record.
type attentionWork struct {
	queries      int    // of a set: the queries of a list, window or patch, which have the same keys
	keys         int    // largest number of keys of a query
	querySets    uint64 // sets of queries with common keys, times heads
	flops, bytes float64
	args         []vk.Access
}

func newAttentionKernels(dev *vk.Device, op string, c attentionConfig) (*attentionKernels, error) {
	matrix, err := c.precision.matrixShape(dev.Caps())
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &attentionKernels{
		kernelCache: kernelCache{dev: dev}, attentionConfig: c, matrix: matrix, maxFlops: maxAttentionFlops, weightsInRegisters: true,
		lowRegisters: c.precision != F32 && limitsOf(dev).lowRegisters(),
	}, nil
}

// kernel returns the kernel of a tile.
func (k *attentionKernels) kernel(t attentionTile) (*vk.Kernel, error) {
	return k.kernelCache.kernel(k.variant(t))
}

// attentionScale is the factor of q . k: kernels compute powers of 2.
func attentionScale(dimHead int) float32 { return float32(math.Log2E / math.Sqrt(float64(dimHead))) }

// variant returns what the kernel of a tile is compiled from.
func (k *attentionKernels) variant(t attentionTile) kernelVariant {
	spec := maps.Clone(k.spec)
	spec[shaders.AttentionHeads], spec[shaders.AttentionDimHead] = uint32(k.heads), uint32(k.dimHead)
	spec[shaders.AttentionScale], spec[shaders.AttentionRowFactors] = math.Float32bits(attentionScale(k.dimHead)), specBool(k.factors)
	if t == attentionCPUTile {
		return kernelVariant{name: k.name + "_cpu", spv: k.name + "_cpu", spec: spec}
	}
	spec[shaders.AttentionTileQueries], spec[shaders.AttentionTileKeys] = uint32(t.queries), uint32(t.keys)
	if k.precision == F32 {
		spv := k.name
		if t.lowRegisters {
			spv += "_lowreg"
		}
		return kernelVariant{name: fmt.Sprintf("%s %dx%d", spv, t.queries, t.keys), spv: spv, spec: spec}
	}
	caps, subgroup, spv := k.dev.Caps(), k.dev.Caps().SubgroupSize, k.name+"_"+k.precision.String()
	if k.lowRegisters {
		subgroup, spv = caps.SubgroupMin, k.name+"_lowreg_"+k.precision.String()
	}
	addMatrixSpec(spec, k.matrix, caps, subgroup, t.subgroups, k.weightsInRegisters)
	return kernelVariant{fmt.Sprintf("%s %dx%d", spv, t.queries, t.keys), spv, spec, subgroup, true}
}

// tile selects the tile of a kernel: the first candidate without spills. The error says what the device cannot do.
func (k *attentionKernels) tile(op string, w attentionWork) (attentionTile, error) {
	tiles, preset, err := k.tiles(w)
	if err != nil {
		return attentionTile{}, err
	}
	variants := make([]kernelVariant, len(tiles))
	for i, t := range tiles {
		variants[i] = k.variant(t)
	}
	i, err := k.choose(variants, preset)
	if err != nil {
		return attentionTile{}, err
	}
	return tiles[i], checkIterations(k.dev.Caps(), op, fmt.Sprintf("attention to %d keys of dim %d", w.keys, k.dimHead), tiles[i].iterations(k.dimHead, w.keys))
}

// tiles returns the candidates for the tile of a kernel, in order of preference, and the index of the one to use where
// the driver reports no spills.
func (k *attentionKernels) tiles(w attentionWork) (tiles []attentionTile, preset int, err error) {
	limits := limitsOf(k.dev)
	var t attentionTile
	switch {
	case k.precision == F32 && limits.CPU && !k.gpuKernel && attentionCPUTile.iterations(k.dimHead, w.keys) <= maxCPUIterations:
		t = attentionCPUTile
	case k.precision == F32:
		tiles, err = floatAttentionTiles(limits, k.dimHead, k.factors, w.queries)
		return tiles, len(tiles) - 1, err
	case k.lowRegisters:
		t, err = lowRegisterTile(limits, k.matrix, k.dimHead, k.factors, w.queries)
	case k.dev.Caps().CPU && !k.gpuKernel && max(k.matrix.M, k.matrix.N) <= 8: // a subgroup has 8 queries
		t, err = selectAttentionTile(limits.Caps, attentionMatrixCPU, k.dimHead, k.factors, w.queries)
	default:
		tiles, err = attentionMatrixCandidates(limits.Caps, k.matrixTiles, k.dimHead, k.factors, w.queries)
		return tiles, 0, err
	}
	return []attentionTile{t}, 0, err
}

// record appends the dispatches to a command list. push returns the push constants of a dispatch that computes workgroups
// first .. end - 1.
func (k *attentionKernels) record(list *vk.CommandList, op string, w attentionWork, push func(first, end uint32) []byte) error {
	tile, err := k.tile(op, w)
	if err != nil {
		return err
	}
	all := w.querySets * ceilDiv(uint64(w.queries), uint64(tile.queries))
	if all > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: the call has %d tiles of queries, want at most %d: fewer items, heads or queries", op, all, uint32(math.MaxUint32))
	}
	kernel, err := k.kernel(tile)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return dispatchShares(list, op, all, k.maxFlops, vk.Dispatch{Kernel: kernel, Args: w.args, Flops: w.flops, Bytes: w.bytes}, push)
}

// dispatchShares appends a dispatch of some workgroups, in equal shares of at most maxFlops that are independent of each
// other. push returns the push constants of the share with workgroups first .. end - 1.
func dispatchShares(list *vk.CommandList, op string, groups uint64, maxFlops float64, d vk.Dispatch, push func(first, end uint32) []byte) error {
	step := evenShare(groups, max(uint64(float64(groups)*min(1, maxFlops/d.Flops)), 1))
	for first := uint64(0); first < groups; first += step {
		n := min(step, groups-first)
		grid, err := workgroups(list.Device().Caps(), op, n)
		if err != nil {
			return err
		}
		part, share := d, float64(n)/float64(groups)
		part.Groups, part.Push = grid, push(uint32(first), uint32(first+n))
		part.Flops, part.Bytes, part.IndependentOfPrevious = share*d.Flops, share*d.Bytes, first > 0
		if err := list.Dispatch(part); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the kernels. A kernel that an open command list uses stays until the next Close.
func (k *attentionKernels) Close() error {
	if k == nil {
		return nil
	}
	return k.close()
}

// checkHeads checks the heads of a config.
func checkHeads(op string, heads, dimHead int, p DType) error {
	if err := firstError(checkPositive(op, dim{"Heads", heads}), p.checkPrecision(op)); err != nil {
		return err
	}
	if dimHead < 1 || dimHead > 128 {
		return fmt.Errorf("pipelines: %s: DimHead is %d, want 1 to 128", op, dimHead)
	}
	if p != F32 && dimHead%2 != 0 {
		return fmt.Errorf("pipelines: %s: DimHead is %d, want an even number with Precision %v", op, dimHead, p)
	}
	return nil
}

// checkRowCount checks that the rows of a tensor, one per head, can be counted in 32 bits.
func checkRowCount(op string, dims ...dim) error {
	n := 1.0
	for _, d := range dims {
		n *= float64(d.n)
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: %s makes %.0f rows, want %d at most", op, shape(dims...), n, uint32(math.MaxUint32))
	}
	return nil
}

// checkHeadTensor checks a tensor whose rows, the last dimension, are heads of the precision.
func (p DType) checkHeadTensor(op, arg string, r vk.Range, dims ...dim) error {
	return checkTensor(op, arg, r, p.rowAlign(dims[len(dims)-1].n), p.element(), dims...)
}
