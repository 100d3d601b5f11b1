package cases

import (
	"context"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// moduleCase is a case of a module, of which there are two: its call, and its call with the backward pass.
type moduleCase struct {
	name          string
	dims          []string
	sizes         [][]int // on a GPU
	smallSizes    [][]int // of the call, on a CPU driver
	smallBackward [][]int // with the backward pass, on a CPU driver
	call          func(ctx context.Context, dev *vk.Device, p pipelines.DType, size []int) (*examples.Call, error)
}

// Routed returns the modules with routers, by default at the sizes of package examples.
func Routed() []Case { return forward(routed()) }

func routed() []moduleCase {
	one := func(size ...int) [][]int { return [][]int{size} }
	return []moduleCase{
		example(examples.FeedForward(), one(2, 32768, 512, 1024), one(1, 4096, 256, 128), one(1, 256, 64, 32)),
		example(examples.Attention(), one(2, 32768, 512, 1024), one(1, 512, 64, 32), one(1, 128, 16, 8)),
		example(examples.Block(), one(2, 32768, 512, 1024), one(1, 512, 64, 32), one(1, 128, 16, 8)),
		// 4,194,304 memories are 8 GiB: -size cross=1x1024x4194304x512x2x131072.
		example(examples.Cross(),
			[][]int{{1, 1024, 1048576, 512, 2, 131072}, {1, 1024, 1048576, 512, 2, 0}, {1, 1024, 1048576, 512, 1, 0}},
			[][]int{{1, 128, 16384, 64, 2, 2048}, {1, 128, 16384, 64, 2, 0}, {1, 128, 16384, 64, 1, 0}}, one(1, 32, 1024, 16, 2, 128)),
		example(examples.Autoregressive(), one(2, 8192, 512, 1024), one(1, 512, 64, 64), one(1, 256, 16, 16)),
		example(examples.Image(), one(1, 32, 256, 256, 32, 1024), one(1, 32, 32, 32, 8, 64), one(1, 16, 16, 8, 4, 10)),
		example(examples.ViT(), one(1, 256, 32, 1024, 6), one(1, 64, 8, 64, 2), one(1, 32, 8, 32, 1)),
		example(examples.Encoder(), one(2, 32768, 512, 1024, 6), one(1, 256, 64, 16, 2), one(1, 128, 16, 8, 1)),
		example(examples.AutoregressiveTransformer(), one(2, 8192, 512, 1024, 6), one(1, 256, 64, 32, 2), one(1, 256, 16, 16, 1)),
	}
}

// example is the case of an example.
func example[C any](m examples.Module[C], sizes, smallSizes, smallBackward [][]int) moduleCase {
	return moduleCase{m.Name, m.Names(), sizes, smallSizes, smallBackward,
		func(ctx context.Context, dev *vk.Device, p pipelines.DType, size []int) (*examples.Call, error) {
			return m.Call(ctx, dev, m.Config(size, p), size)
		}}
}

// forward returns the cases of the modules' calls.
func forward(list []moduleCase) (cases []Case) {
	for _, m := range list {
		cases = append(cases, Case{m.name, m.dims, m.sizes, m.smallSizes, func(b *Builder, size []int) (*Workload, error) {
			c, err := m.call(b.Context(), b.Dev, b.Precision, size)
			if err != nil {
				return nil, err
			}
			return b.call(c)
		}})
	}
	return cases
}

// call returns the workload of a module's call.
func (b *Builder) call(c *examples.Call) (*Workload, error) {
	scope.Keep(b.Scope, c.Module, nil)
	t, outputs := b.tensors(c)
	return b.module(func(ctx context.Context, stats *colt5.CallStats) error { return c.Forward(ctx, t, stats) }, outputs...)
}

// tensors creates the tensors of a call, and returns its outputs.
func (b *Builder) tensors(c *examples.Call) (map[string]*colt5.Tensor, []Output) {
	t := map[string]*colt5.Tensor{}
	for _, in := range c.Inputs {
		switch {
		case in.DType == colt5.F32:
			t[in.Name] = b.input(in.Shape...)
		case in.Name == "ids":
			t[in.Name] = b.text(in.Shape[0], in.Shape[1])
		default:
			t[in.Name] = b.ones(in.Shape[0], in.Shape[1])
		}
	}
	var outputs []Output
	for _, out := range c.Outputs {
		t[out.Name] = b.Tensor(out.DType, out.Shape...)
		if b.Err() != nil {
			break
		}
		o := FloatOutput(out.Name, t[out.Name])
		if out.DType == colt5.I32 {
			o = IndexOutput(out.Name, t[out.Name], out.Limit)
		}
		o.constant = out.Constant
		outputs = append(outputs, o)
	}
	return t, outputs
}
