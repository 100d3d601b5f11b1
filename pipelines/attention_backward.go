package pipelines

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file holds what the kernels that include shaders/src/include/attention_backward.glsl share;
// attention_backward_tiles.go and attention_backward_lowreg.go have their tile sizes.

// attentionStateBytes is the size of what the kernel of the queries leaves for that of the keys, per query and head.
const attentionStateBytes = 16

// attentionBackwardKernels are the kernels of an attention's backward pass. Each is compiled when it is first recorded.
type attentionBackwardKernels struct {
	kernelCache
	attentionConfig
	matrix vk.MatrixShape // of the cooperative matrix; zero for F32

	ofQueries          []uint32 // constants of spec that the kernel of the keys does not have
	ofKeys             []uint32 // constants of spec that the kernel of the queries does not have
	wideQueries        int      // queries of a set from which attentionBackwardWideTiles are used
	maxFlops           float64  // maxAttentionFlops, except in tests
	gpuKernel          bool     // for tests: use the float32 tiles for GPUs on CPU drivers too
	otherShared        uint32   // bytes of shared memory that are not those of attentionBackwardTile.shared
	weightsInRegisters bool     // false for tests: weights always go through shared memory
}

func newAttentionBackwardKernels(dev *vk.Device, op string, c attentionConfig) (*attentionBackwardKernels, error) {
	matrix, err := c.precision.matrixShape(dev.Caps())
	if err != nil {
		return nil, fmt.Errorf("pipelines: %s: %w", op, err)
	}
	return &attentionBackwardKernels{
		kernelCache: kernelCache{dev: dev}, attentionConfig: c, matrix: matrix, maxFlops: maxAttentionFlops, weightsInRegisters: true,
		wideQueries: 65,
	}, nil
}

// variant returns what the kernel of a stage, "queries" or "keys", is compiled from.
func (k *attentionBackwardKernels) variant(stage string, t attentionBackwardTile) kernelVariant {
	spec := maps.Clone(k.spec)
	spec[shaders.AttentionBackwardHeads], spec[shaders.AttentionBackwardDimHead] = uint32(k.heads), uint32(k.dimHead)
	spec[shaders.AttentionBackwardScale] = math.Float32bits(attentionScale(k.dimHead))
	spec[shaders.AttentionBackwardRowFactors] = specBool(k.factors)
	others := k.ofQueries
	if stage == "queries" {
		others = k.ofKeys
	}
	for _, id := range others {
		delete(spec, id)
	}
	spec[shaders.AttentionBackwardOwnRows], spec[shaders.AttentionBackwardOtherRows] = uint32(t.own), uint32(t.other)
	name := k.name + "_" + stage
	if k.precision == F32 {
		spec[shaders.AttentionBackwardThreads] = uint32(t.threads)
		return kernelVariant{name: name, spv: name, spec: spec}
	}
	caps, subgroup, spv := k.dev.Caps(), k.dev.Caps().SubgroupSize, name+"_"+k.precision.String()
	if t.lowRegisters {
		subgroup, spv = caps.SubgroupMin, name+"_lowreg_"+k.precision.String()
	}
	addMatrixSpec(spec, k.matrix, caps, subgroup, t.subgroups, k.weightsInRegisters)
	if !t.lowRegisters {
		spec[shaders.AttentionBackwardOwnInRegisters] = specBool(t.ownInRegisters)
	}
	return kernelVariant{fmt.Sprintf("%s %dx%d", spv, t.own, t.other), spv, spec, subgroup, true}
}

// tile selects the tile of a stage that computes sets of some rows from some others.
func (k *attentionBackwardKernels) tile(stage string, rows, others int) (attentionBackwardTile, error) {
	if k.precision == F32 {
		limits := limitsOf(k.dev)
		limits.CPU = limits.CPU && !k.gpuKernel
		return attentionBackwardFloatTile(limits, stage, k.dimHead, rows), nil
	}
	if limits := limitsOf(k.dev); limits.lowRegisters() {
		return lowRegisterBackwardTile(limits, k.matrix, stage, k.dimHead, k.factors)
	}
	limits := limitsOf(k.dev)
	limits.MaxSharedBytes -= k.otherShared
	tiles, err := attentionBackwardTiles(limits, k.matrix, k.dimHead, k.factors, rows, others,
		stage == "queries" && rows >= k.wideQueries && others >= wideKeys)
	if err != nil {
		return attentionBackwardTile{}, err
	}
	variants := make([]kernelVariant, len(tiles))
	for i, t := range tiles {
		variants[i] = k.variant(stage, t)
	}
	i, err := k.choose(variants, 0)
	return tiles[i], err
}

// attentionBackwardWork describes one stage of a backward pass to record.
type attentionBackwardWork struct {
	stage  string  // "queries" or "keys"
	sets   uint64  // sets of own rows, times heads
	rows   int     // own rows of a set
	extra  uint64  // workgroups besides those of the sets
	others int     // most rows that a workgroup reads: keys of a tile of queries, or queries of a tile of keys
	pairs  float64 // of a query and a key that it sees, of all heads
	bytes  float64
	args   []vk.Access
}

// record appends the dispatches of a stage to a command list. push returns the push constants of a dispatch that computes
// workgroups first .. end - 1.
func (k *attentionBackwardKernels) record(list *vk.CommandList, op string, w attentionBackwardWork, push func(first, end uint32) []byte) error {
	tile, err := k.tile(w.stage, w.rows, w.others)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	groups := w.sets*ceilDiv(uint64(w.rows), uint64(tile.own)) + w.extra
	if groups > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: the call has %d tiles of %s, want at most %d: fewer items, heads or rows", op, groups, w.stage, uint32(math.MaxUint32))
	}
	subject := fmt.Sprintf("attention between %d rows of dim %d and a tile of %s", w.others, k.dimHead, w.stage)
	if err := checkIterations(k.dev.Caps(), op, subject, tile.iterations(k.dimHead, w.stage, w.others)); err != nil {
		return err
	}
	kernel, err := k.kernel(k.variant(w.stage, tile))
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	products := 5.0 // of a pair, each of dimHead multiplications and additions: two for its weight twice, and one for dq
	switch {
	case w.stage == "keys":
		products = 4 // two for the weight, one for dk and one for dv
	case tile.subgroups > 0 && !tile.lowRegisters:
		products = 3 // the weight once
	}
	return dispatchShares(list, op, groups, k.maxFlops, vk.Dispatch{
		Kernel: kernel, Args: w.args, Flops: 2 * products * float64(k.dimHead) * w.pairs, Bytes: w.bytes,
	}, push)
}

// recordStages appends both stages of an attention whose queries, keys and values are parts of one tensor: dqkv has their
// gradients. w is the work of each stage without the bytes of dqkv, and its args are those before states and dqkv.
func (k *attentionBackwardKernels) recordStages(list *vk.CommandList, op string, w attentionBackwardWork, states, dqkv vk.Range, push func(first, end uint32) []byte) error {
	queries, keys, third := w, w, float64(dqkv.Size())/3
	queries.stage, queries.bytes = "queries", w.bytes+third
	queries.args = append(slices.Clip(w.args), vk.Write(states), vk.Write(dqkv))
	keys.stage, keys.bytes = "keys", w.bytes+2*third
	keys.args = append(slices.Clip(w.args), vk.Read(states), vk.ReadWrite(dqkv)) // dq stays
	return firstError(k.record(list, op, queries, push), k.record(list, op, keys, push))
}

// Close frees the kernels. A kernel that an open command list uses stays until the next Close.
func (k *attentionBackwardKernels) Close() error {
	if k == nil {
		return nil
	}
	return k.close()
}
