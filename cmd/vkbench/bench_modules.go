package main

import (
	"context"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
)

// moduleCases has the modules: those of bench_routed.go, then what they are made of.
func moduleCases() []benchCase {
	rows, tokens := []string{"rows", "entries", "k"}, []string{"batch", "tokens", "dim", "heavy tokens"}
	long, short := [][]int{{1, 1048576, 1024}, {2, 32768, 1024}}, [][]int{{2, 32768, 1024}}
	many := append([][]int{{8, 131072, 128}, {252, 8192, 1024}, {1024, 512, 10}}, long...)
	return append(routedCases(), []benchCase{
		{"router", tokens, [][]int{{2, 32768, 512, 1024}}, [][]int{{2, 4096, 512, 128}}, setupRouter},
		{"topk", rows, many, long, setupTopK},
		{"topk_differentiable", rows, long, short, setupDifferentiableTopK},
		{
			"coordinate_descent", []string{"rows", "entries", "k", "iterations", "a thousandth of a constant eps (0: the schedule of a router)"},
			[][]int{{2, 32768, 2048, 20, 0}, {2, 32768, 2048, 50, 100}, {16, 8192, 512, 20, 0}, {8, 131072, 8192, 20, 0}, {1024, 512, 32, 20, 100},
				{252, 8192, 512, 20, 0}, {64, 4096, 256, 50, 100}},
			[][]int{{2, 32768, 1024, 20, 0}}, setupCoordinateDescent,
		},
	}...)
}

// tensorOf is a tensor with data, which is made once there is memory for it, as in upload.
func (s *benchStage) tensorOf(dtype colt5.DType, data func() any, shape ...int) *colt5.Tensor {
	t := s.tensor(dtype, shape...)
	if t != nil {
		s.fail(t.Write(context.TODO(), data()))
	}
	return t
}

// input is a tensor of normal numbers.
func (s *benchStage) input(shape ...int) *colt5.Tensor {
	count := 1
	for _, n := range shape {
		count *= n
	}
	return s.tensorOf(colt5.F32, func() any { return normals(s.seed(), count) }, shape...)
}

// setupRouter is straight-through inference with the chosen tokens as a result.
func setupRouter(s *benchStage, size []int) (*workload, error) {
	b, n, c, k := size[0], size[1], size[2], size[3]
	if k >= n {
		return nil, fmt.Errorf("%d heavy tokens of %d, want fewer: else nothing is routed", k, n)
	}
	config := colt5.Default[colt5.RouterConfig]()
	config.Dim = c
	r, err := colt5.NewCoordinateDescentRouter(context.TODO(), s.dev, config)
	if r = keep(s.stage, r, err); r == nil {
		return nil, s.err
	}
	x, slots := s.input(b, n, c), r.Slots(n, k)
	out := colt5.Routing{
		Indices: s.tensor(colt5.I32, b, 1, slots), Scores: s.tensor(colt5.F32, b, 1, slots), Tokens: s.tensor(colt5.F32, b, 1, slots, c),
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.module(r, func() error { return r.Forward(context.TODO(), out, x, k, colt5.RoutingOptions{}) },
		tensorIndices("indices", out.Indices, n), tensorResult("tokens", out.Tokens)), nil
}

// setupTopK chooses values and indices, without soft scores.
func setupTopK(s *benchStage, size []int) (*workload, error) { return s.topK(size, true) }

func setupDifferentiableTopK(s *benchStage, size []int) (*workload, error) {
	return s.topK(size, false)
}

func (s *benchStage) topK(size []int, hard bool) (*workload, error) {
	rows, n, k := size[0], size[1], size[2]
	config := colt5.Default[colt5.TopKConfig]()
	config.K, config.NonDifferentiable = k, hard
	t, err := colt5.NewTopK(s.dev, config)
	t = keep(s.stage, t, err)
	x := s.input(rows, n)
	out := colt5.TopKResult{Values: s.tensor(colt5.F32, rows, k), Indices: s.tensor(colt5.I32, rows, k)}
	if !hard {
		out.CoorDescentValues = s.tensor(colt5.F32, rows, k)
	}
	if s.err != nil {
		return nil, s.err
	}
	results := []result{tensorResult("values", out.Values), tensorIndices("indices", out.Indices, n)}
	if !hard {
		soft := tensorResult("soft values", out.CoorDescentValues)
		soft.flat = true // all may be 1
		results = append(results, soft)
	}
	return s.module(t, func() error { return t.Forward(context.TODO(), out, x, nil) }, results...), nil
}

func setupCoordinateDescent(s *benchStage, size []int) (*workload, error) {
	rows, n, k := size[0], size[1], size[2]
	config := colt5.Default[colt5.CoordinateDescentConfig]()
	config.K, config.NIters = float64(k), size[3]
	if size[4] > 0 {
		config.Eps, config.EpsInit, config.EpsDecay = float64(size[4])/1000, 0, 1
	}
	d, err := colt5.NewCoordinateDescent(s.dev, config)
	d = keep(s.stage, d, err)
	x, y := s.input(rows, n), s.tensor(colt5.F32, rows, n)
	if s.err != nil {
		return nil, s.err
	}
	return s.module(d, func() error { return d.Forward(context.TODO(), y, x, nil) }, tensorResult("y", y)), nil
}
