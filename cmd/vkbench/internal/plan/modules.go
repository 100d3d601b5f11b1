package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// overrides replace parts of a module's example configuration.
type overrides struct {
	config    []byte       // the whole configuration, JSON; nil: the example
	precision *colt5.DType // nil: that of the configuration
	recompute int          // colt5.Backward.Recompute of a training step
}

// planner computes the memory of a module's calls.
type planner struct {
	name     string
	numbers  []string // of a size, as in bench
	required int      // how many of them a size must have: those of a call
	memory   func(size []int, o overrides, caps vk.Caps) (memory, error)
	training func(size []int, o overrides, caps vk.Caps) (memory, error) // of a training step
}

// shape describes the sizes: numbers in brackets may be missing.
func (p planner) shape() string {
	text := strings.Join(p.numbers[:p.required], " x ")
	for _, name := range p.numbers[p.required:] {
		text += " [x " + name
	}
	return text + strings.Repeat("]", len(p.numbers)-p.required)
}

// planners returns a planner for each of cases.Routed.
func planners() []planner {
	return []planner{
		plannerOf(examples.FeedForward(), ofTokens[colt5.ConditionalRoutedFeedForwardConfig]),
		plannerOf(examples.Attention(), ofTokens[colt5.ConditionalRoutedAttentionConfig]),
		plannerOf(examples.Block(), ofTokens[colt5.ConditionalRoutedTransformerBlockConfig]),
		plannerOf(examples.Cross(), func(c colt5.ConditionalRoutedCrossAttentionConfig, caps vk.Caps, size []int) (colt5.Memory, error) {
			return c.Memory(caps, size[0], size[1], size[2])
		}),
		plannerOf(examples.Autoregressive(), ofTokens[colt5.ConditionalRoutedAutoregressiveAttentionConfig]),
		plannerOf(examples.Image(), func(c colt5.ConditionalRoutedImageAttentionConfig, caps vk.Caps, size []int) (colt5.Memory, error) {
			return c.Memory(caps, size[0], size[2], size[3])
		}),
		plannerOf(examples.ViT(), func(c colt5.ConditionalRoutedViTConfig, caps vk.Caps, size []int) (colt5.Memory, error) {
			return c.Memory(caps, size[0])
		}),
		plannerOf(examples.Encoder(), ofTokens[colt5.EncoderConfig]),
		plannerOf(examples.AutoregressiveTransformer(), ofTokens[colt5.AutoregressiveTransformerConfig]),
	}
}

// ofTokens is the memory of modules whose sizes start with batch and tokens.
func ofTokens[C interface {
	Memory(caps vk.Caps, batch, tokens int) (colt5.Memory, error)
}](c C, caps vk.Caps, size []int) (colt5.Memory, error) {
	return c.Memory(caps, size[0], size[1])
}

func plannerOf[C any](m examples.Module[C], of func(C, vk.Caps, []int) (colt5.Memory, error)) planner {
	p := planner{name: m.Name, numbers: m.Names()}
	for i, n := range m.Numbers(new(C)) {
		if len(n.Fields) == 0 {
			p.required = i + 1
		}
	}
	p.memory = func(size []int, o overrides, caps vk.Caps) (memory, error) {
		c, err := configured(m, size, o)
		if err != nil {
			return memory{}, err
		}
		call, err := of(c, caps, size)
		return memory{Memory: call}, err
	}
	p.training = func(size []int, o overrides, caps vk.Caps) (memory, error) {
		c, err := configured(m, size, o)
		if err != nil {
			return memory{}, err
		}
		if _, err := of(c, caps, size); err != nil { // in the words of the configuration
			return memory{}, err
		}
		call, err := m.Call(context.Background(), nil, c, size)
		if err != nil {
			return memory{}, err
		}
		return trainingMemory(call, caps, o.recompute)
	}
	return p
}

// configured returns the configuration of -config, or the example. A number of the size is what a configuration leaves
// out; if both have it, they must be equal.
func configured[C any](m examples.Module[C], size []int, o overrides) (C, error) {
	c := m.Config(size, colt5.F32)
	if o.config != nil {
		c = *new(C)
		if err := json.Unmarshal(o.config, &c); err != nil {
			return c, fmt.Errorf("-config: %w", err)
		}
		numbers := m.Numbers(&c)
		for i, n := range size {
			for _, f := range numbers[i].Fields {
				if *f == 0 {
					*f = n
				}
				if *f != n {
					return c, fmt.Errorf("%s is %d in the configuration and %d in the size, want the same", numbers[i].Name, *f, n)
				}
			}
		}
	}
	if o.precision != nil {
		*m.Precision(&c) = *o.precision
	}
	return c, nil
}

// h200 returns the capabilities of an NVIDIA H200 with driver 580 that affect memory.
func h200() vk.Caps {
	shape := func(operand uint32) vk.MatrixShape {
		return vk.MatrixShape{M: 16, N: 16, K: 16, A: operand, B: operand, C: vk.ComponentF32, Result: vk.ComponentF32, Scope: vk.ScopeSubgroup}
	}
	return vk.Caps{
		VendorID: 0x10de, MemoryBytes: 143771 << 20, MaxAllocation: 1<<32 - 1, MaxSharedBytes: 48 << 10, MaxPushBytes: 256,
		MaxWorkgroupCount: [3]uint32{1<<31 - 1, 1<<16 - 1, 1<<16 - 1}, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, MaxWorkgroupInvocations: 1024,
		SubgroupSize: 32, SubgroupMin: 32, SubgroupMax: 32, SubgroupSizeControl: true, FullSubgroups: true, MaxWorkgroupSubgroups: 32, TimestampNanoseconds: 1,
		Float16: true, Float64: true, Int8: true, Int16: true, Int64: true, Storage8: true, Storage16: true, BFloat16: true,
		MemoryModel: true, SubgroupExtendedTypes: true, CooperativeMatrix: true, CooperativeMatrix2: true,
		MatrixShapes: []vk.MatrixShape{shape(vk.ComponentF16), shape(vk.ComponentBF16)},
	}
}
