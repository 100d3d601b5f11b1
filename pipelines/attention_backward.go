package pipelines

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file holds what the kernels that include shaders/include/attention_backward.glsl share.

// Tiles of attention_backward.glsl: the rows that a workgroup computes, and those that it reads at a time.
const (
	attentionBackwardOwnRows   = 16
	attentionBackwardOtherRows = 32
)

// attentionStateBytes is the size of what the kernel of the queries leaves for that of the keys, per query and head.
const attentionStateBytes = 16

// attentionBackwardKernels are the kernels of an attention's backward pass. Each is compiled when it is first recorded.
type attentionBackwardKernels struct {
	kernelCache
	attentionConfig

	ofQueries []uint32 // constants of spec that the kernel of the keys does not have
	maxFlops  float64  // maxAttentionFlops, except in tests
}

func newAttentionBackwardKernels(dev *vk.Device, op string, c attentionConfig) (*attentionBackwardKernels, error) {
	if c.precision != F32 {
		return nil, fmt.Errorf("pipelines: %s: Precision is %v, want %v: there is no backward kernel for 16-bit operands", op, c.precision, F32)
	}
	return &attentionBackwardKernels{kernelCache: kernelCache{dev: dev}, attentionConfig: c, maxFlops: maxAttentionFlops}, nil
}

// kernel returns the kernel of a stage: "queries" or "keys".
func (k *attentionBackwardKernels) kernel(stage string) (*vk.Kernel, error) {
	spec := maps.Clone(k.spec)
	spec[shaders.AttentionBackwardHeads], spec[shaders.AttentionBackwardDimHead] = uint32(k.heads), uint32(k.dimHead)
	spec[shaders.AttentionBackwardScale] = math.Float32bits(attentionScale(k.dimHead))
	spec[shaders.AttentionBackwardRowFactors] = specBool(k.factors)
	for _, id := range k.ofQueries {
		if stage == "keys" {
			delete(spec, id)
		}
	}
	name := k.name + "_" + stage
	return k.get(name, name, false, spec)
}

// attentionBackwardWork describes one stage of a backward pass to record.
type attentionBackwardWork struct {
	stage  string  // "queries" or "keys"
	groups uint64  // workgroups
	others int     // most rows that a workgroup reads: keys of a tile of queries, or queries of a tile of keys
	pairs  float64 // of a query and a key that it sees, of all heads
	bytes  float64
	args   []vk.Access
}

// record appends the dispatches of a stage to a command list. push returns the push constants of a dispatch that computes
// workgroups first .. end - 1.
func (k *attentionBackwardKernels) record(list *vk.CommandList, op string, w attentionBackwardWork, push func(first, end uint32) []byte) error {
	if w.groups > math.MaxUint32 {
		return fmt.Errorf("pipelines: %s: the call has %d tiles of %s, want at most %d: fewer items, heads or rows", op, w.groups, w.stage, uint32(math.MaxUint32))
	}
	subject := fmt.Sprintf("attention between %d rows of dim %d and a tile of %s", w.others, k.dimHead, w.stage)
	if err := checkIterations(k.dev.Caps(), op, subject, attentionBackwardIterations(k.dimHead, w.stage, w.others)); err != nil {
		return err
	}
	kernel, err := k.kernel(w.stage)
	if err != nil {
		return fmt.Errorf("pipelines: %s: %w", op, err)
	}
	products := 5.0 // of a pair, each of dimHead multiplications and additions: two for its weight twice, and one for dq
	if w.stage == "keys" {
		products = 4 // two for the weight, one for dk and one for dv
	}
	return dispatchShares(list, op, w.groups, k.maxFlops, vk.Dispatch{
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

// attentionBackwardIterations estimates the loop iterations of an invocation: per tile one, one per slice of 4 vec4, and
// one per 4 rows that are added; the kernel of the queries has another pass without the latter, and 16 iterations that add
// the parts of a softmax.
func attentionBackwardIterations(dimHead int, stage string, others int) int {
	tiles, slices := int(ceilDiv(uint64(others), attentionBackwardOtherRows)), int(ceilDiv(uint64(dimHead), 16))
	n := tiles*(1+slices+attentionBackwardOtherRows/4) + 16
	if stage == "queries" {
		n += tiles * (1 + slices)
	}
	return n
}

// Close frees the kernels. A kernel that an open command list uses stays until the next Close.
func (k *attentionBackwardKernels) Close() error {
	if k == nil {
		return nil
	}
	return k.close()
}
