package plan

import (
	"encoding/json"
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// overrides replace parts of a module's example configuration.
type overrides struct {
	config    []byte       // the whole configuration, JSON; nil: the example
	precision *colt5.DType // nil: that of the configuration
}

// planner computes the memory of a module's calls.
type planner struct {
	name   string
	dims   []string // accepted shapes
	memory func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error)
}

// planners returns a planner for each of cases.Routed.
func planners() []planner {
	sequence, ids := []string{"B x tokens x dim"}, []string{"B x tokens", "B x tokens x dim"}
	return []planner{
		{"feedforward", sequence, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.FeedForward(size[2]), o)
			return o.apply(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"attention", sequence, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.Attention(size[2]), o)
			return o.apply(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"block", sequence, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.Block(size[2]), o)
			return o.apply(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"cross", []string{"B x tokens x memories x dim"}, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.Cross(size[3]), o)
			return o.apply(err, &c.Dim, &c.Precision, size[3], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1], size[2]) })
		}},
		{"autoregressive", sequence, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.Autoregressive(size[2]), o)
			return o.apply(err, &c.Dim, &c.Precision, size[2], func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"image", []string{"B x dim x height x width", "B x height x width x dim (without channel_first)"}, imageMemory},
		{"vit", []string{"B"}, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			c, err := configured(examples.ViT(), o)
			return o.apply(err, nil, &c.Precision, 0, func() (colt5.Memory, error) { return c.Memory(caps, size[0]) })
		}},
		{"encoder", ids, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			dim := modelDim(size)
			c, err := configured(examples.Encoder(exampleDim(dim)), o)
			return o.apply(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
		{"autoregressive_transformer", ids, func(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
			dim := modelDim(size)
			c, err := configured(examples.AutoregressiveTransformer(exampleDim(dim)), o)
			return o.apply(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], size[1]) })
		}},
	}
}

func imageMemory(size []int, o overrides, caps vk.Caps) (colt5.Memory, error) {
	c, err := configured(examples.Image(size[1]), o)
	dim, height, width := size[1], size[2], size[3]
	if !c.ChannelFirst {
		height, width, dim = size[1], size[2], size[3]
	}
	return o.apply(err, &c.Dim, &c.Precision, dim, func() (colt5.Memory, error) { return c.Memory(caps, size[0], height, width) })
}

// modelDim is the dim in the shape of a model's call, or 0 if the shape has none.
func modelDim(size []int) int {
	if len(size) > 2 {
		return size[2]
	}
	return 0
}

// exampleDim is the dim of a model's example if the shape has none.
func exampleDim(dim int) int {
	if dim == 0 {
		return 512
	}
	return dim
}

// configured returns the configuration of -config, or the example.
func configured[C any](example C, o overrides) (C, error) {
	if o.config == nil {
		return example, nil
	}
	var c C
	if err := json.Unmarshal(o.config, &c); err != nil {
		return c, fmt.Errorf("-config: %w", err)
	}
	return c, nil
}

// apply calls compute after it has set the configuration's dim to that of the shape (0: the shape has none) and its
// precision. A different dim in the configuration is an error.
func (o overrides) apply(err error, dim *int, precision *colt5.DType, shapeDim int, compute func() (colt5.Memory, error)) (colt5.Memory, error) {
	switch {
	case err != nil:
		return colt5.Memory{}, err
	case shapeDim > 0 && *dim == 0:
		*dim = shapeDim
	case shapeDim > 0 && *dim != shapeDim:
		return colt5.Memory{}, fmt.Errorf("the dim is %d in the configuration and %d in the shape, want the same", *dim, shapeDim)
	}
	if o.precision != nil {
		*precision = *o.precision
	}
	return compute()
}

// h200 returns the capabilities of an NVIDIA H200 with driver 580 that affect memory.
func h200() vk.Caps {
	return vk.Caps{
		VendorID: 0x10de, MemoryBytes: 143771 << 20, MaxAllocation: 1<<32 - 1, MaxSharedBytes: 48 << 10, MaxPushBytes: 256,
		MaxWorkgroupCount: [3]uint32{1<<31 - 1, 1<<16 - 1, 1<<16 - 1}, MaxWorkgroupSize: [3]uint32{1024, 1024, 64}, MaxWorkgroupInvocations: 1024,
		SubgroupSize: 32, SubgroupMin: 32, SubgroupMax: 32, SubgroupSizeControl: true, FullSubgroups: true, MaxWorkgroupSubgroups: 32, TimestampNanoseconds: 1,
		Float16: true, Float64: true, Int8: true, Int16: true, Int64: true, Storage8: true, Storage16: true, BFloat16: true,
		MemoryModel: true, SubgroupExtendedTypes: true, CooperativeMatrix: true, CooperativeMatrix2: true,
	}
}
