package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Builder creates what a workload needs on a device, in a scope.
type Builder struct {
	*scope.Scope
	Profile   bool            // time every step
	Precision pipelines.DType // of cases with 16-bit variants
	Recompute int             // colt5.Backward.Recompute of backward passes

	scratch uint64 // bytes of scratch memory
	seed    uint64 // the last one used
}

// nextSeed returns a new seed, so that the operands of a case differ.
func (b *Builder) nextSeed() uint64 {
	b.seed++
	return b.seed
}

// alloc allocates a buffer of so many bytes.
func (b *Builder) alloc(bytes uint64) vk.Range {
	buffer, err := b.Dev.NewBuffer("bench", bytes)
	if buffer = scope.Keep(b.Scope, buffer, err); buffer == nil {
		return vk.Range{}
	}
	return buffer.Range()
}

// alloc32 allocates count elements of 4 bytes.
func (b *Builder) alloc32(count int) vk.Range { return b.alloc(4 * uint64(count)) }

// scratchMemory allocates a kernel's scratch memory. The range is empty if it needs none.
func (b *Builder) scratchMemory(bytes uint64) vk.Range {
	b.scratch += bytes
	if bytes == 0 {
		return vk.Range{}
	}
	return b.alloc(bytes)
}

// upload allocates memory and fills it. The data is created after the allocation: a size that the device has no memory
// for must not exhaust the host's memory.
func (b *Builder) upload(bytes uint64, data func() []byte) vk.Range {
	r := b.alloc(bytes)
	if b.Err() == nil {
		b.Fail(b.Dev.Upload(b.Context(), vk.Transfer{Range: r, Data: data()}))
	}
	return r
}

// normal allocates count normally distributed float32 values.
func (b *Builder) normal(count int) vk.Range {
	return b.upload(4*uint64(count), func() []byte { return vk.Bytes(normals(b.nextSeed(), count)) })
}

// matrix16 allocates rows of normally distributed 16-bit values, each padded with zeros to a length of stride.
func (b *Builder) matrix16(rows, columns, stride int) vk.Range {
	return b.upload(2*uint64(rows)*uint64(stride), func() []byte {
		list := make([]uint16, rows*stride)
		for i, x := range normals(b.nextSeed(), rows*columns) {
			list[i/columns*stride+i%columns] = to16(b.Precision, x)
		}
		return vk.Bytes(list)
	})
}

// operand allocates count normally distributed values in the precision.
func (b *Builder) operand(count int) vk.Range {
	if b.Precision == pipelines.F32 {
		return b.normal(count)
	}
	return b.matrix16(1, count, count)
}

// output allocates count elements in the precision.
func (b *Builder) output(count int) vk.Range {
	return b.alloc(uint64(count) * uint64(b.Precision.Size()))
}

// indices allocates k evenly spaced indices below n for each of the batch items.
func (b *Builder) indices(batch, n, k int) vk.Range {
	return b.upload(4*uint64(batch)*uint64(k), func() []byte {
		list := make([]int32, batch*k)
		for i := range list {
			list[i] = int32(i % k * n / k)
		}
		return vk.Bytes(list)
	})
}

// kernel returns a workload that runs the command list that record fills.
func (b *Builder) kernel(name string, record func(*vk.CommandList) error, outputs ...Output) (*Workload, error) {
	if b.Err() != nil {
		return nil, b.Err()
	}
	list, err := b.Dev.NewCommandList(vk.CommandListConfig{Name: name, Profile: b.Profile})
	if list = scope.Keep(b.Scope, list, err); list == nil {
		return nil, b.Err()
	}
	if err := record(list); err != nil {
		return nil, err
	}
	return &Workload{Run: list.Run, Outputs: outputs, Stats: func() (colt5.CallStats, error) {
		stats := colt5.CallStats{Workspace: b.scratch, StepNames: list.StepNames()}
		stats.Flops, stats.Bytes = list.Work()
		var err, stepErr error
		stats.Time, err = list.Elapsed()
		if b.Profile {
			stats.StepTimes, stepErr = list.StepTimes()
		}
		return stats, errors.Join(err, stepErr)
	}}, nil
}

// module returns the workload of a module's call, which fills in stats. Call it last, after all tensors were created.
func (b *Builder) module(call func(ctx context.Context, stats *colt5.CallStats) error, outputs ...Output) (*Workload, error) {
	if b.Err() != nil {
		return nil, b.Err()
	}
	stats := &colt5.CallStats{Profile: b.Profile}
	return &Workload{
		Run: func(ctx context.Context) error { return call(ctx, stats) },
		Stats: func() (colt5.CallStats, error) {
			if b.Dev.Caps().TimestampNanoseconds == 0 {
				return *stats, fmt.Errorf("GPU times: %w: the device has no timestamps on the compute queue", vk.ErrUnsupported)
			}
			return *stats, nil
		},
		Outputs: outputs,
	}, nil
}

// tensorOf creates a tensor with data. As in upload, the data is created last.
func (b *Builder) tensorOf(dtype colt5.DType, data func() any, shape ...int) *colt5.Tensor {
	t := b.Tensor(dtype, shape...)
	if t != nil {
		b.Fail(t.Write(b.Context(), data()))
	}
	return t
}

// input creates a tensor of normally distributed values.
func (b *Builder) input(shape ...int) *colt5.Tensor {
	count := 1
	for _, n := range shape {
		count *= n
	}
	return b.tensorOf(colt5.F32, func() any { return normals(b.nextSeed(), count) }, shape...)
}

// ones creates a mask in which all tokens are valid.
func (b *Builder) ones(batch, n int) *colt5.Tensor {
	return b.tensorOf(colt5.U8, func() any { return bytes.Repeat([]byte{1}, batch*n) }, batch, n)
}

// text creates a tensor of token ids: random bytes.
func (b *Builder) text(batch, n int) *colt5.Tensor {
	return b.tensorOf(colt5.U8, func() any { return randomText(b.nextSeed(), batch*n) }, batch, n)
}
