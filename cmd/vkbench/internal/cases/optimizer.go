package cases

import (
	"context"

	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// optimizerCases returns a case for every kernel of the optimiser, under the stem of the kernel's files.
func optimizerCases() []Case {
	return []Case{
		{"gradient_norm", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupGradientNorm},
		{"optimizer_state", []string{"records"}, [][]int{{1024}}, [][]int{{1024}}, setupOptimizerState},
		{"adamw", []string{"rows", "dim"}, [][]int{{65536, 512}}, [][]int{{4096, 512}}, setupAdamW},
	}
}

// updated is an output that a kernel updates in place. Before a run all its elements are 1.
func (b *Builder) updated(name string, r vk.Range) Output {
	o := b.floatOutput(name, r)
	o.poison = func(ctx context.Context) error {
		data := make([]float32, r.Size()/4)
		for i := range data {
			data[i] = 1
		}
		return b.Dev.Upload(ctx, vk.Transfer{Range: r, Data: vk.Bytes(data)})
	}
	return o
}

// optimizerState allocates an optimiser's state.
func (b *Builder) optimizerState(s pipelines.OptimizerStateWords) vk.Range {
	return b.upload(pipelines.OptimizerStateBytes, func() []byte { return vk.Scalars(&s) })
}

func setupGradientNorm(b *Builder, size []int) (*Workload, error) {
	n := size[0] * size[1]
	g, err := pipelines.NewGradientNorm(b.Dev, pipelines.GradientNormConfig{})
	g = scope.Keep(b.Scope, g, err)
	a := pipelines.GradientNormArgs{X: b.normal(n), Norm: b.alloc32(2), Scratch: b.scratchMemory(pipelines.GradientNormScratch(n)), N: n}
	return b.kernel("gradient_norm", func(list *vk.CommandList) error { return g.Record(list, a) }, b.floatOutput("norm", a.Norm))
}

func setupOptimizerState(b *Builder, size []int) (*Workload, error) {
	o, err := pipelines.NewOptimizerState(b.Dev, pipelines.OptimizerStateConfig{
		Beta1: 0.9, Beta2: 0.999, Clip: 1, Schedule: pipelines.ScheduleCosine, Peak: 1e-3, Warm: 100, Total: 10000, GrowthInterval: 2000,
	})
	o = scope.Keep(b.Scope, o, err)
	a := pipelines.OptimizerStateArgs{
		Norm: b.upload(8, func() []byte { return vk.Bytes([]float32{1, 0}) }), Loss: b.upload(8, func() []byte { return vk.Bytes([]float32{2, 3}) }),
		State: b.optimizerState(pipelines.OptimizerStateWords{Scale: 65536}), Records: b.alloc(uint64(size[0]) * pipelines.OptimizerRecordBytes), Capacity: size[0],
	}
	return b.kernel("optimizer_state", func(list *vk.CommandList) error { return o.Record(list, a) }, b.updated("state", a.State))
}

func setupAdamW(b *Builder, size []int) (*Workload, error) {
	n := size[0] * size[1]
	w, err := pipelines.NewAdamW(b.Dev, pipelines.AdamWConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01})
	w = scope.Keep(b.Scope, w, err)
	p := b.alloc32(n)
	parameters := []pipelines.AdamWParameter{{P: p, N: n, Decays: true}}
	a := pipelines.AdamWArgs{
		Parameters: parameters, Table: b.upload(pipelines.AdamWTableBytes(parameters), func() []byte { return vk.Bytes(pipelines.AdamWTable(parameters)) }),
		G: b.normal(n), M: b.alloc32(n), V: b.alloc32(n),
		State: b.optimizerState(pipelines.OptimizerStateWords{Factor: 1, Rate: 1e-3, StepSize: 1e-2, Inverse: 1000}),
	}
	return b.kernel("adamw", func(list *vk.CommandList) error { return w.Record(list, a) }, b.updated("p", p), b.updated("m", a.M), b.updated("v", a.V))
}
