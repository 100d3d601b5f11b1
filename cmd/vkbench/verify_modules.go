package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
)

// verifiers are the modules that golden cases may be of.
func verifiers() map[string]verifier {
	return map[string]verifier{
		"CoordinateDescent":            verifyCoordinateDescent,
		"TopK":                         verifyTopK,
		"CoordinateDescentRouter":      verifyRouter,
		"ConditionalRoutedFeedForward": verifyFeedForward,
	}
}

// input is an input of a case, nil if the case has none of that name.
func (s *stage) input(c *golden.Case, name string) *colt5.Tensor {
	g, ok := c.Inputs[name]
	switch {
	case !ok:
		return nil
	case g.U8 != nil:
		return s.bytes(g.U8, g.Shape...)
	}
	return s.floats(g.F32, g.Shape...)
}

// need is an input that the module cannot do without.
func (s *stage) need(c *golden.Case, name string, rank int) *colt5.Tensor {
	g, ok := c.Inputs[name]
	if !ok || g.F32 == nil || len(g.Shape) != rank {
		s.fail(fmt.Errorf("in.%s has shape %v, want one of %d dimensions", name, g.Shape, rank))
		return nil
	}
	return s.input(c, name)
}

// load gives parameters the weights of a case, all of them.
func load(list []colt5.Parameter, c *golden.Case) error {
	if len(list) != len(c.Weights) {
		return fmt.Errorf("the case has %d weights, the module %d", len(c.Weights), len(list))
	}
	for _, p := range list {
		w, ok := c.Weights[p.Name]
		if !ok || !slices.Equal(w.Shape, p.Tensor.Shape()) {
			return fmt.Errorf("param.%s has shape %v, want %v", p.Name, w.Shape, p.Tensor.Shape())
		}
		if err := p.Tensor.Write(w.F32); err != nil {
			return err
		}
	}
	return nil
}

// results compares the outputs of a case, all of them.
func results(c *golden.Case, got values, found *comparison) error {
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		want := c.Outputs[name]
		switch {
		case got.floats[name] != nil && want.F32 != nil:
			found.near(name, got.floats[name], want.Float64s(), c.OutputBound(name))
		case got.ints[name] != nil && want.I32 != nil:
			found.same(name, got.ints[name], want.I32)
		default:
			return fmt.Errorf("out.%s is no output of this module", name)
		}
	}
	return nil
}

func verifyCoordinateDescent(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.CoordinateDescentConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	d, err := colt5.NewCoordinateDescent(s.dev, config)
	d = keep(s, d, err)
	x, mask := s.need(c, "s", 2), s.input(c, "mask")
	if s.err != nil {
		return nil, nil
	}
	y := s.tensor(colt5.F32, x.Shape()...)
	return &subject{
		forward: func() error { return d.Forward(y, x, mask) },
		outputs: map[string]*colt5.Tensor{"y": y},
		compare: func(got values, found *comparison) error { return results(c, got, found) },
	}, nil
}

func verifyTopK(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.TopKConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	t, err := colt5.NewTopK(s.dev, config)
	t = keep(s, t, err)
	x, mask := s.input(c, "x"), s.input(c, "mask")
	if s.err != nil {
		return nil, nil
	}
	if x == nil {
		return nil, fmt.Errorf("in.x is missing")
	}
	shape := x.Shape()
	shape[len(shape)-1] = config.K
	out := colt5.TopKResult{
		Values: s.tensor(colt5.F32, shape...), Indices: s.tensor(colt5.I32, shape...), Gates: s.tensor(colt5.F32, shape...),
	}
	outputs := map[string]*colt5.Tensor{"values": out.Values, "indices": out.Indices, "gates": out.Gates}
	if !config.NonDifferentiable {
		out.CoorDescentValues = s.tensor(colt5.F32, shape...)
		outputs["coor_descent_values"] = out.CoorDescentValues
	}
	return &subject{
		forward: func() error { return t.Forward(out, x, mask) },
		outputs: outputs,
		compare: func(got values, found *comparison) error { return results(c, got, found) },
	}, nil
}

func verifyRouter(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.RouterConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	var call struct {
		NumTokens int `json:"num_tokens"`
	}
	if err := c.DecodeCall(&call); err != nil {
		return nil, err
	}
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	r, err := colt5.NewCoordinateDescentRouter(s.dev, config)
	r = keep(s, r, err)
	if s.err != nil {
		return nil, nil
	}
	if err := load(r.Parameters(), c); err != nil {
		return nil, err
	}
	if call.NumTokens < 1 {
		return nil, fmt.Errorf("call num_tokens is %d, want at least 1", call.NumTokens)
	}
	options := colt5.RoutingOptions{Mask: mask, RoutingTokens: s.input(c, "routing_tokens")}
	y, ok := c.Outputs["y"]
	if !ok {
		return nil, fmt.Errorf("out.y is missing")
	}
	return s.route(c, "", r, x, call.NumTokens, options, &y), nil
}

// route is the subject of a router. y, if there is one, are the chosen tokens.
func (s *stage) route(c *golden.Case, name string, r *colt5.CoordinateDescentRouter, x *colt5.Tensor, tokens int,
	o colt5.RoutingOptions, y *golden.Tensor) *subject {
	config, b, n := r.Config(), x.Shape()[0], x.Shape()[1]
	shape := routing{
		batch: b, n: n, routes: config.NumRoutingTokens, k: r.Slots(n, tokens), dim: config.Dim, block: n, mask: c.Inputs["mask"].U8,
	}
	if size := int(config.RouteBlockSize); size > 0 && size < n {
		shape.block = size
	}
	out := colt5.Routing{
		Indices: s.tensor(colt5.I32, b, shape.routes, shape.k), Scores: s.tensor(colt5.F32, b, shape.routes, shape.k),
		Logits: s.tensor(colt5.F32, b, shape.routes, n), SoftScores: s.tensor(colt5.F32, b, shape.routes, n),
		Tokens: s.tensor(colt5.F32, b, shape.routes, shape.k, shape.dim),
	}
	return &subject{
		forward: func() error { return r.Forward(out, x, tokens, o) },
		outputs: map[string]*colt5.Tensor{
			"indices": out.Indices, "scores": out.Scores, "logits": out.Logits, "scores_all": out.SoftScores, "tokens": out.Tokens,
		},
		compare: func(got values, found *comparison) error { return found.routed(c, name, shape, got, y) },
	}
}

// verifyFeedForward also runs a router of the same routing token on x: the module keeps its choice to itself.
func verifyFeedForward(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedFeedForwardConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	var call struct {
		NumHeavyTokens int `json:"num_heavy_tokens"`
	}
	if err := c.DecodeCall(&call); err != nil {
		return nil, err
	}
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	f, err := colt5.NewConditionalRoutedFeedForward(s.dev, config)
	f = keep(s, f, err)
	if s.err != nil {
		return nil, nil
	}
	if err := load(f.Parameters(), c); err != nil {
		return nil, err
	}
	y := s.tensor(colt5.F32, x.Shape()...)
	module := &subject{
		forward: func() error {
			return f.Forward(y, x, colt5.ForwardOptions{Mask: mask, NumHeavyTokens: call.NumHeavyTokens})
		},
		outputs: map[string]*colt5.Tensor{"y": y},
		compare: func(got values, found *comparison) error { return results(c, got, found) },
	}
	const name = "router"
	if _, routed := c.Routes[name]; !routed {
		return module, nil
	}
	r, err := routerOf(s.dev, f)
	r = keep(s, r, err)
	if s.err != nil {
		return nil, nil
	}
	tokens := config.NumHeavyTokens
	if call.NumHeavyTokens > 0 {
		tokens = call.NumHeavyTokens
	}
	return both(module, s.route(c, name, r, x, tokens, colt5.RoutingOptions{Mask: mask}, nil)), nil
}

// both runs and compares one after the other.
func both(a, b *subject) *subject {
	outputs := map[string]*colt5.Tensor{}
	for _, x := range []*subject{a, b} {
		for name, t := range x.outputs {
			outputs[name] = t
		}
	}
	return &subject{
		forward: func() error {
			if err := a.forward(); err != nil {
				return err
			}
			return b.forward()
		},
		outputs: outputs,
		compare: func(got values, found *comparison) error {
			if err := a.compare(got, found); err != nil {
				return err
			}
			return b.compare(got, found)
		},
	}
}
