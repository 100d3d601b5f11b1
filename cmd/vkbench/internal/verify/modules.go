package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
)

// module is a module of golden cases.
type module struct {
	class string // in the cases: the name in PyTorch and Go
	name  string // of the case in bench
	setup setupFunc
}

// modules returns all modules.
func modules() []module {
	return []module{
		{"CoordinateDescent", "coordinate_descent", setupCoordinateDescent},
		{"TopK", "topk", setupTopK},
		{"CoordinateDescentRouter", "router", setupRouter},
		{"ConditionalRoutedFeedForward", "feedforward", setupRouted(3, colt5.NewConditionalRoutedFeedForward, forwardFeedForward)},
		{"ConditionalRoutedAttention", "attention", setupRouted(3, colt5.NewConditionalRoutedAttention, forwardAttention)},
		{"ConditionalRoutedTransformerBlock", "block", setupRouted(3, colt5.NewConditionalRoutedTransformerBlock, forwardBlock)},
		{"ConditionalRoutedCrossAttention", "cross", setupRouted(3, colt5.NewConditionalRoutedCrossAttention, forwardCross)},
		{"ConditionalRoutedAutoregressiveAttention", "autoregressive", setupRouted(3, colt5.NewConditionalRoutedAutoregressiveAttention, forwardAutoregressive)},
		{"ConditionalRoutedImageAttention", "image", setupRouted(4, colt5.NewConditionalRoutedImageAttention, forwardImage)},
		{"ConditionalRoutedViT", "vit", setupViT},
		{"Encoder", "encoder", setupEncoder},
		{"LocalMHA", "local_mha", setupPlain(colt5.NewLocalMHA, forwardLocalMHA)},
		{"FeedForward", "plain_feedforward", setupPlain(colt5.NewFeedForward, forwardPlainFeedForward)},
		{"RMSNorm", "rmsnorm_module", setupPlain(colt5.NewRMSNorm, forwardRMSNorm)},
	}
}

// moduleOf returns the module with a class, or with a name.
func moduleOf(name string) (module, bool) {
	for _, m := range modules() {
		if m.class == name || m.name == name {
			return m, true
		}
	}
	return module{}, false
}

// optionalInput creates an input of a case. It is nil if the case has none of that name.
func optionalInput(s *scope.Scope, c *golden.Case, name string) *colt5.Tensor {
	g, ok := c.Inputs[name]
	switch {
	case !ok:
		return nil
	case g.U8 != nil:
		return s.Uint8(g.U8, g.Shape...)
	case g.I32 != nil:
		return s.Int32(g.I32, g.Shape...)
	}
	return s.Float32(g.F32, g.Shape...)
}

// requiredInput creates an input of rank dimensions. It records an error if the case has none.
func requiredInput(s *scope.Scope, c *golden.Case, name string, rank int) *colt5.Tensor {
	g, ok := c.Inputs[name]
	if !ok || g.F32 == nil || len(g.Shape) != rank {
		s.Fail(fmt.Errorf("in.%s has shape %v, want one of %d dimensions", name, g.Shape, rank))
		return nil
	}
	return optionalInput(s, c, name)
}

// load writes the weights of a case to parameters, and requires that they are complete.
func load(ctx context.Context, list []colt5.Parameter, c *golden.Case) error {
	if len(list) != len(c.Weights) {
		return fmt.Errorf("the case has %d weights, the module %d", len(c.Weights), len(list))
	}
	for _, p := range list {
		w, ok := c.Weights[p.Name]
		if !ok || !slices.Equal(w.Shape, p.Tensor.Shape()) {
			return fmt.Errorf("param.%s has shape %v, want %v", p.Name, w.Shape, p.Tensor.Shape())
		}
		if err := p.Tensor.Write(ctx, w.F32); err != nil {
			return err
		}
	}
	return nil
}

// compareOutputs compares all outputs of a case.
func compareOutputs(c *golden.Case, got values, found *comparison) error {
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		want := c.Outputs[name]
		switch {
		case got.floats[name] != nil && want.F32 != nil:
			found.outputWithinBound(name, golden.Compared(c, got.floats[name]), golden.Compared(c, want.Float64s()), c.OutputBound(name))
		case got.ints[name] != nil && want.I32 != nil:
			found.equalInts(name, got.ints[name], want.I32)
		default:
			return fmt.Errorf("the case has out.%s, which the module does not compute", name)
		}
	}
	return nil
}

func setupCoordinateDescent(s *scope.Scope, c *golden.Case) (*instance, error) {
	var config colt5.CoordinateDescentConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	d, err := colt5.NewCoordinateDescent(s.Dev, config)
	d = scope.Keep(s, d, err)
	x, mask := requiredInput(s, c, "s", 2), optionalInput(s, c, "mask")
	if s.Err() != nil {
		return nil, nil
	}
	y := s.Tensor(colt5.F32, x.Shape()...)
	return &instance{
		tensors: tensors{inputs(map[string]*colt5.Tensor{"s": x, "mask": mask}), map[string]*colt5.Tensor{"y": y}},
		forward: func(ctx context.Context, t tensors, _ *[]colt5.RoutingRecord) error {
			return d.Forward(ctx, t.outputs["y"], t.inputs["s"], colt5.CoordinateDescentOptions{Mask: t.inputs["mask"]})
		},
		compare: func(got values, found *comparison) error { return compareOutputs(c, got, found) },
	}, nil
}

func setupTopK(s *scope.Scope, c *golden.Case) (*instance, error) {
	var config colt5.TopKConfig
	if err := c.DecodeConfig(&config); err != nil {
		return nil, err
	}
	t, err := colt5.NewTopK(s.Dev, config)
	t = scope.Keep(s, t, err)
	x, mask := optionalInput(s, c, "x"), optionalInput(s, c, "mask")
	if s.Err() != nil {
		return nil, nil
	}
	if x == nil {
		return nil, fmt.Errorf("in.x is missing")
	}
	shape := x.Shape()
	shape[len(shape)-1] = config.K
	outputs := map[string]*colt5.Tensor{
		"values": s.Tensor(colt5.F32, shape...), "indices": s.Tensor(colt5.I32, shape...), "gates": s.Tensor(colt5.F32, shape...),
	}
	if !config.NonDifferentiable {
		outputs["coor_descent_values"] = s.Tensor(colt5.F32, shape...)
	}
	return &instance{
		tensors: tensors{inputs(map[string]*colt5.Tensor{"x": x, "mask": mask}), outputs},
		forward: func(ctx context.Context, of tensors, _ *[]colt5.RoutingRecord) error {
			out := colt5.TopKResult{
				Values: of.outputs["values"], Indices: of.outputs["indices"], Gates: of.outputs["gates"], CoorDescentValues: of.outputs["coor_descent_values"],
			}
			return t.Forward(ctx, out, of.inputs["x"], colt5.TopKOptions{Mask: of.inputs["mask"]})
		},
		compare: func(got values, found *comparison) error { return compareOutputs(c, got, found) },
	}, nil
}

func setupRouter(s *scope.Scope, c *golden.Case) (*instance, error) {
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
	x, mask := requiredInput(s, c, "x", 3), optionalInput(s, c, "mask")
	r, err := colt5.NewCoordinateDescentRouter(s.Context(), s.Dev, config)
	r = scope.Keep(s, r, err)
	if s.Err() != nil {
		return nil, nil
	}
	if err := load(s.Context(), r.Parameters(), c); err != nil {
		return nil, err
	}
	if call.NumTokens < 1 {
		return nil, fmt.Errorf("call num_tokens is %d, want at least 1", call.NumTokens)
	}
	y, ok := c.Outputs["y"]
	if !ok {
		return nil, fmt.Errorf("out.y is missing")
	}
	b, n, routes, k := x.Shape()[0], x.Shape()[1], config.NumRoutingTokens, r.Slots(x.Shape()[1], call.NumTokens)
	outputs := map[string]*colt5.Tensor{
		"indices": s.Tensor(colt5.I32, b, routes, k), "scores": s.Tensor(colt5.F32, b, routes, k), "tokens": s.Tensor(colt5.F32, b, routes, k, config.Dim),
		"logits": s.Tensor(colt5.F32, b, routes, n), "scores_all": s.Tensor(colt5.F32, b, routes, n),
	}
	block := n
	if size := config.RouteBlockSize; size > 0 {
		block = min(size, n)
	}
	record := func(got values) colt5.RoutingRecord {
		return colt5.RoutingRecord{
			Lists: b * routes, K: k, Routes: routes, Block: block, Indices: got.ints["indices"], Scores: got.floats["scores"],
			Logits: got.floats["logits"], SoftScores: got.floats["scores_all"],
		}
	}
	return &instance{
		tensors:    tensors{inputs(map[string]*colt5.Tensor{"x": x, "mask": mask, "routing_tokens": optionalInput(s, c, "routing_tokens")}), outputs},
		parameters: r.Parameters(),
		forward: func(ctx context.Context, t tensors, _ *[]colt5.RoutingRecord) error {
			out := colt5.RouterResult{
				Indices: t.outputs["indices"], Scores: t.outputs["scores"], Tokens: t.outputs["tokens"], Logits: t.outputs["logits"],
				SoftScores: t.outputs["scores_all"],
			}
			options := colt5.RouterOptions{Mask: t.inputs["mask"], RoutingTokens: t.inputs["routing_tokens"]}
			return r.Forward(ctx, out, t.inputs["x"], call.NumTokens, options)
		},
		compare: func(got values, found *comparison) error {
			return found.selected(c, record(got), got.floats["tokens"], y)
		},
		upstream: func(got values) (map[string][]float32, error) { return upstreamOfTokens(c, record(got)) },
	}, nil
}

// selected compares the routing record of a lone router, and the selected tokens times their scores.
func (c *comparison) selected(of *golden.Case, r colt5.RoutingRecord, tokens []float32, y golden.Tensor) error {
	if _, ok := of.Routings[r.Router]; !ok {
		return fmt.Errorf("the case has no routing record of router %q", r.Router)
	}
	if len(y.F32) != len(tokens) {
		return fmt.Errorf("out.y has %d elements, want %d", len(y.F32), len(tokens))
	}
	pairs, err := c.record(of, r, maskOf(of, r.Router))
	if err != nil || pairs == nil || len(pairs.recorded) == 0 {
		return err
	}
	dim := len(tokens) / len(r.Indices)
	c.outputWithinBound("y", pickRows(tokens, pairs.recorded, dim), float64s(pickRows(y.F32, pairs.golden, dim)), of.OutputBound("y"))
	return nil
}
