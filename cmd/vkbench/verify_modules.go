package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
)

// verifiers are the modules that golden cases may be of.
func verifiers() map[string]verifier {
	return map[string]verifier{
		"CoordinateDescent":                        verifyCoordinateDescent,
		"TopK":                                     verifyTopK,
		"CoordinateDescentRouter":                  verifyRouter,
		"ConditionalRoutedFeedForward":             verifyRouted(3, colt5.NewConditionalRoutedFeedForward, forwardFeedForward),
		"ConditionalRoutedAttention":               verifyRouted(3, colt5.NewConditionalRoutedAttention, forwardAttention),
		"ConditionalRoutedTransformerBlock":        verifyRouted(3, colt5.NewConditionalRoutedTransformerBlock, forwardBlock),
		"ConditionalRoutedCrossAttention":          verifyRouted(3, colt5.NewConditionalRoutedCrossAttention, forwardCross),
		"ConditionalRoutedAutoregressiveAttention": verifyRouted(3, colt5.NewConditionalRoutedAutoregressiveAttention, forwardAutoregressive),
		"ConditionalRoutedImageAttention":          verifyRouted(4, colt5.NewConditionalRoutedImageAttention, forwardImage),
		"ConditionalRoutedViT":                     verifyViT,
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
		if err := p.Tensor.Write(context.TODO(), w.F32); err != nil {
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
		forward: func() error { return d.Forward(context.TODO(), y, x, mask) },
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
		forward: func() error { return t.Forward(context.TODO(), out, x, mask) },
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
	r, err := colt5.NewCoordinateDescentRouter(context.TODO(), s.dev, config)
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
	y, ok := c.Outputs["y"]
	if !ok {
		return nil, fmt.Errorf("out.y is missing")
	}
	options := colt5.RoutingOptions{Mask: mask, RoutingTokens: s.input(c, "routing_tokens")}
	b, n, routes, k := x.Shape()[0], x.Shape()[1], config.NumRoutingTokens, r.Slots(x.Shape()[1], call.NumTokens)
	out := colt5.Routing{
		Indices: s.tensor(colt5.I32, b, routes, k), Scores: s.tensor(colt5.F32, b, routes, k), Tokens: s.tensor(colt5.F32, b, routes, k, config.Dim),
		Logits: s.tensor(colt5.F32, b, routes, n), SoftScores: s.tensor(colt5.F32, b, routes, n),
	}
	block := n
	if size := int(config.RouteBlockSize); size > 0 {
		block = min(size, n)
	}
	return &subject{
		forward: func() error { return r.Forward(context.TODO(), out, x, call.NumTokens, options) },
		outputs: map[string]*colt5.Tensor{
			"indices": out.Indices, "scores": out.Scores, "logits": out.Logits, "scores_all": out.SoftScores, "tokens": out.Tokens,
		},
		compare: func(got values, found *comparison) error {
			decision := colt5.RoutingRecord{
				Lists: b * routes, K: k, Routes: routes, Block: block, Indices: got.ints["indices"], Scores: got.floats["scores"],
				Logits: got.floats["logits"], SoftScores: got.floats["scores_all"],
			}
			return found.chosen(c, decision, got.floats["tokens"], y)
		},
	}, nil
}

// chosen compares the decision of a router that stands alone, and the chosen tokens times their scores.
func (c *comparison) chosen(of *golden.Case, d colt5.RoutingRecord, tokens []float32, y golden.Tensor) error {
	if _, ok := of.Routes[d.Router]; !ok {
		return fmt.Errorf("the case has no route %q", d.Router)
	}
	if len(y.F32) != len(tokens) {
		return fmt.Errorf("out.y has %d elements, want %d", len(y.F32), len(tokens))
	}
	pairs, err := c.routed(of, d, maskOf(of, d.Router))
	if err != nil || pairs == nil || len(pairs.ours) == 0 {
		return err
	}
	dim := len(tokens) / len(d.Indices)
	c.near("y", pickRows(tokens, pairs.ours, dim), floats(pickRows(y.F32, pairs.theirs, dim)), of.OutputBound("y"))
	return nil
}
