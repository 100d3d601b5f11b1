package cases

import (
	"context"
	"fmt"
	"io"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Modules returns the modules: those with routers, the parts of a router, and plain layers.
func Modules() []Case { return forward(modules()) }

func modules() []moduleCase {
	rows, tokens := []string{"rows", "entries", "k"}, []string{"batch", "tokens", "dim", "heavy tokens"}
	long, short, few := [][]int{{1, 1048576, 1024}, {2, 32768, 1024}}, [][]int{{2, 32768, 1024}}, [][]int{{2, 4096, 128}}
	many := append([][]int{{8, 131072, 128}, {252, 8192, 1024}, {1024, 512, 10}}, long...)
	return append(routed(), []moduleCase{
		{"router", tokens, [][]int{{2, 32768, 512, 1024}}, [][]int{{2, 4096, 512, 128}}, [][]int{{1, 1024, 64, 32}}, router},
		{"topk", rows, many, long, few, topK(true)},
		{"topk_differentiable", rows, long, short, few, topK(false)},
		{
			"coordinate_descent", []string{"rows", "entries", "k", "iterations", "1000 eps"},
			[][]int{{2, 32768, 2048, 20, 0}, {2, 32768, 2048, 50, 100}, {16, 8192, 512, 20, 0}, {8, 131072, 8192, 20, 0}, {1024, 512, 32, 20, 100},
				{252, 8192, 512, 20, 0}, {64, 4096, 256, 50, 100}},
			[][]int{{2, 32768, 1024, 20, 0}}, [][]int{{2, 32768, 1024, 20, 0}}, coordinateDescent,
		},
		{"local_mha", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 512, 64}}, [][]int{{1, 128, 16}}, localMHA},
		{"plain_feedforward", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 512, 64}}, [][]int{{1, 128, 64}}, plainFeedForward},
		{"rmsnorm_module", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 4096, 256}}, [][]int{{1, 1024, 256}}, rmsNormModule},
	}...)
}

// router is straight-through inference that also outputs the selected tokens.
func router(ctx context.Context, dev *vk.Device, _ pipelines.DType, size []int) (*examples.Call, error) {
	batch, n, c, k := size[0], size[1], size[2], size[3]
	if k >= n {
		return nil, fmt.Errorf("%d heavy tokens of %d, want fewer: otherwise nothing is routed", k, n)
	}
	config := colt5.Default[colt5.RouterConfig]()
	config.Dim = c
	r, err := colt5.NewCoordinateDescentRouter(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	slots := r.Slots(n, k)
	scores := examples.Floats("scores", batch, 1, slots)
	scores.Constant = true // they are 1
	return &examples.Call{
		Module: r, Parameters: r.Parameters(), Inputs: []examples.Tensor{examples.Floats("x", batch, n, c)},
		Outputs: []examples.Tensor{{Name: "indices", DType: colt5.I32, Shape: []int{batch, 1, slots}, Limit: n}, scores, examples.Floats("tokens", batch, 1, slots, c)},
		Forward: func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
			return r.Forward(ctx, colt5.RouterResult{Indices: t["indices"], Scores: t["scores"], Tokens: t["tokens"]}, t["x"], k, colt5.RouterOptions{Stats: stats})
		},
	}, nil
}

// topK selects values and indices, and computes the soft scores of the selected entries unless hard is set.
func topK(hard bool) func(context.Context, *vk.Device, pipelines.DType, []int) (*examples.Call, error) {
	return func(_ context.Context, dev *vk.Device, _ pipelines.DType, size []int) (*examples.Call, error) {
		rows, n, k := size[0], size[1], size[2]
		config := colt5.Default[colt5.TopKConfig]()
		config.K, config.NonDifferentiable = k, hard
		m, err := colt5.NewTopK(dev, config)
		if err != nil {
			return nil, err
		}
		c := &examples.Call{
			Module: m, Inputs: []examples.Tensor{examples.Floats("x", rows, n)},
			Outputs: []examples.Tensor{examples.Floats("values", rows, k), {Name: "indices", DType: colt5.I32, Shape: []int{rows, k}, Limit: n}},
			Forward: func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
				return m.Forward(ctx, colt5.TopKResult{Values: t["values"], Indices: t["indices"], CoorDescentValues: t["soft values"]}, t["x"],
					colt5.TopKOptions{Stats: stats})
			},
		}
		if !hard {
			soft := examples.Floats("soft values", rows, k)
			soft.Constant = true // all may be 1
			c.Outputs = append(c.Outputs, soft)
		}
		return c, nil
	}
}

// sameShape is a call with an input x and a result y of its shape.
func sameShape(m io.Closer, parameters []colt5.Parameter, shape []int, forward func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error) *examples.Call {
	return &examples.Call{
		Module: m, Parameters: parameters, Forward: forward,
		Inputs: []examples.Tensor{examples.Floats("x", shape...)}, Outputs: []examples.Tensor{examples.Floats("y", shape...)},
	}
}

func coordinateDescent(_ context.Context, dev *vk.Device, _ pipelines.DType, size []int) (*examples.Call, error) {
	config := colt5.Default[colt5.CoordinateDescentConfig]()
	config.K, config.NIters = float64(size[2]), size[3]
	if size[4] > 0 {
		config.Eps, config.EpsInit, config.EpsDecay = float64(size[4])/1000, 0, 1
	}
	d, err := colt5.NewCoordinateDescent(dev, config)
	if err != nil {
		return nil, err
	}
	return sameShape(d, nil, size[:2], func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return d.Forward(ctx, t["y"], t["x"], colt5.CoordinateDescentOptions{Stats: stats})
	}), nil
}

func localMHA(ctx context.Context, dev *vk.Device, p pipelines.DType, size []int) (*examples.Call, error) {
	config := examples.LocalMHA(size[2])
	config.Precision = p
	m, err := colt5.NewLocalMHA(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	c := sameShape(m, m.Parameters(), size, func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.LocalMHAOptions{Mask: t["mask"], Stats: stats})
	})
	c.Inputs = append(c.Inputs, examples.Tensor{Name: "mask", DType: colt5.U8, Shape: size[:2]})
	return c, nil
}

func plainFeedForward(ctx context.Context, dev *vk.Device, p pipelines.DType, size []int) (*examples.Call, error) {
	config := examples.PlainFeedForward(size[2])
	config.Precision = p
	m, err := colt5.NewFeedForward(ctx, dev, config)
	if err != nil {
		return nil, err
	}
	return sameShape(m, m.Parameters(), size, func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.CallOptions{Stats: stats})
	}), nil
}

func rmsNormModule(ctx context.Context, dev *vk.Device, _ pipelines.DType, size []int) (*examples.Call, error) {
	m, err := colt5.NewRMSNorm(ctx, dev, colt5.RMSNormConfig{Dim: size[2]})
	if err != nil {
		return nil, err
	}
	return sameShape(m, m.Parameters(), size, func(ctx context.Context, t map[string]*colt5.Tensor, stats *colt5.CallStats) error {
		return m.Forward(ctx, t["y"], t["x"], colt5.CallOptions{Stats: stats})
	}), nil
}
