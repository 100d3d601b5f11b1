package cases

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
)

// Modules returns the modules: those with routers, the parts of a router, and plain layers.
func Modules() []Case {
	rows, tokens := []string{"rows", "entries", "k"}, []string{"batch", "tokens", "dim", "heavy tokens"}
	long, short := [][]int{{1, 1048576, 1024}, {2, 32768, 1024}}, [][]int{{2, 32768, 1024}}
	many := append([][]int{{8, 131072, 128}, {252, 8192, 1024}, {1024, 512, 10}}, long...)
	return append(Routed(), []Case{
		{"router", tokens, [][]int{{2, 32768, 512, 1024}}, [][]int{{2, 4096, 512, 128}}, setupRouter},
		{"topk", rows, many, long, setupTopK},
		{"topk_differentiable", rows, long, short, setupDifferentiableTopK},
		{
			"coordinate_descent", []string{"rows", "entries", "k", "iterations", "1000 eps"},
			[][]int{{2, 32768, 2048, 20, 0}, {2, 32768, 2048, 50, 100}, {16, 8192, 512, 20, 0}, {8, 131072, 8192, 20, 0}, {1024, 512, 32, 20, 100},
				{252, 8192, 512, 20, 0}, {64, 4096, 256, 50, 100}},
			[][]int{{2, 32768, 1024, 20, 0}}, setupCoordinateDescent,
		},
		{"local_mha", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 512, 64}}, setupLocalMHA},
		{"plain_feedforward", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 512, 64}}, setupPlainFeedForward},
		{"rmsnorm_module", tokens[:3], [][]int{{2, 32768, 512}}, [][]int{{1, 4096, 256}}, setupRMSNormModule},
	}...)
}

// setupRouter is straight-through inference that also outputs the selected tokens.
func setupRouter(b *Builder, size []int) (*Workload, error) {
	batch, n, c, k := size[0], size[1], size[2], size[3]
	if k >= n {
		return nil, fmt.Errorf("%d heavy tokens of %d, want fewer: otherwise nothing is routed", k, n)
	}
	config := colt5.Default[colt5.RouterConfig]()
	config.Dim = c
	r, err := colt5.NewCoordinateDescentRouter(b.Context(), b.Dev, config)
	if r = scope.Keep(b.Scope, r, err); r == nil {
		return nil, b.Err()
	}
	x, slots := b.input(batch, n, c), r.Slots(n, k)
	out := colt5.RouterResult{
		Indices: b.Tensor(colt5.I32, batch, 1, slots), Scores: b.Tensor(colt5.F32, batch, 1, slots), Tokens: b.Tensor(colt5.F32, batch, 1, slots, c),
	}
	if b.Err() != nil {
		return nil, b.Err()
	}
	return b.module(func(ctx context.Context, stats *colt5.CallStats) error {
		return r.Forward(ctx, out, x, k, colt5.RouterOptions{Stats: stats})
	}, IndexOutput("indices", out.Indices, n), FloatOutput("tokens", out.Tokens))
}

// setupTopK selects values and indices, without soft scores.
func setupTopK(b *Builder, size []int) (*Workload, error) { return b.topK(size, true) }

// setupDifferentiableTopK computes the soft scores of the selected entries as well.
func setupDifferentiableTopK(b *Builder, size []int) (*Workload, error) { return b.topK(size, false) }

func (b *Builder) topK(size []int, hard bool) (*Workload, error) {
	rows, n, k := size[0], size[1], size[2]
	config := colt5.Default[colt5.TopKConfig]()
	config.K, config.NonDifferentiable = k, hard
	t, err := colt5.NewTopK(b.Dev, config)
	t = scope.Keep(b.Scope, t, err)
	x := b.input(rows, n)
	out := colt5.TopKResult{Values: b.Tensor(colt5.F32, rows, k), Indices: b.Tensor(colt5.I32, rows, k)}
	if !hard {
		out.CoorDescentValues = b.Tensor(colt5.F32, rows, k)
	}
	if b.Err() != nil {
		return nil, b.Err()
	}
	outputs := []Output{FloatOutput("values", out.Values), IndexOutput("indices", out.Indices, n)}
	if !hard {
		soft := FloatOutput("soft values", out.CoorDescentValues)
		soft.constant = true // all may be 1
		outputs = append(outputs, soft)
	}
	return b.module(func(ctx context.Context, stats *colt5.CallStats) error {
		return t.Forward(ctx, out, x, colt5.TopKOptions{Stats: stats})
	}, outputs...)
}

func setupCoordinateDescent(b *Builder, size []int) (*Workload, error) {
	rows, n, k := size[0], size[1], size[2]
	config := colt5.Default[colt5.CoordinateDescentConfig]()
	config.K, config.NIters = float64(k), size[3]
	if size[4] > 0 {
		config.Eps, config.EpsInit, config.EpsDecay = float64(size[4])/1000, 0, 1
	}
	d, err := colt5.NewCoordinateDescent(b.Dev, config)
	d = scope.Keep(b.Scope, d, err)
	x, y := b.input(rows, n), b.Tensor(colt5.F32, rows, n)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return d.Forward(ctx, y, x, colt5.CoordinateDescentOptions{Stats: stats})
	})
}

func setupLocalMHA(b *Builder, size []int) (*Workload, error) {
	config := examples.LocalMHA(size[2])
	config.Precision = b.Precision
	m, err := colt5.NewLocalMHA(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.input(size...), b.Tensor(colt5.F32, size...), b.ones(size[0], size[1])
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.LocalMHAOptions{Mask: mask, Stats: stats})
	})
}

func setupPlainFeedForward(b *Builder, size []int) (*Workload, error) {
	config := examples.PlainFeedForward(size[2])
	config.Precision = b.Precision
	m, err := colt5.NewFeedForward(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y := b.input(size...), b.Tensor(colt5.F32, size...)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.CallOptions{Stats: stats})
	})
}

func setupRMSNormModule(b *Builder, size []int) (*Workload, error) {
	m, err := colt5.NewRMSNorm(b.Context(), b.Dev, colt5.RMSNormConfig{Dim: size[2]})
	m = scope.Keep(b.Scope, m, err)
	x, y := b.input(size...), b.Tensor(colt5.F32, size...)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.CallOptions{Stats: stats})
	})
}
