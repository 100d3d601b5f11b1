package verify

import (
	"context"
	"fmt"
	"maps"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
)

// decode reads a case's config and call arguments.
func decode(c *golden.Case, config, call any) error {
	if err := c.DecodeConfig(config); err != nil {
		return err
	}
	return c.DecodeCall(call)
}

// like creates a float32 tensor of the shape of x.
func like(s *scope.Scope, x *colt5.Tensor) *colt5.Tensor {
	if x == nil {
		return nil // requiredInput recorded an error
	}
	return s.Tensor(colt5.F32, x.Shape()...)
}

// routedInstance returns the instance of a module with routers, whose output is y. Call it last, after all tensors were
// created.
func routedInstance(s *scope.Scope, c *golden.Case, parameters func() []colt5.Parameter, in map[string]*colt5.Tensor, y *colt5.Tensor,
	forward forwardFunc) (*instance, error) {
	if s.Err() != nil {
		return nil, nil
	}
	if err := load(s.Context(), parameters(), c); err != nil {
		return nil, err
	}
	return &instance{
		tensors: tensors{inputs(in), map[string]*colt5.Tensor{"y": y}}, forward: forward, parameters: parameters(), routers: true,
		compare: func(got values, found *comparison) error {
			if err := compareOutputs(c, got, found); err != nil || c.RoutingMayDiffer() {
				return err
			}
			return found.routings(c, got.records)
		},
	}, nil
}

// inputs removes the inputs that a case does not have.
func inputs(all map[string]*colt5.Tensor) map[string]*colt5.Tensor {
	maps.DeleteFunc(all, func(_ string, t *colt5.Tensor) bool { return t == nil })
	return all
}

// routedInputs are the tensors of a case. Missing ones are nil.
type routedInputs struct{ x, mask, context, contextMask *colt5.Tensor }

// routedCall is a call of a module with routers. A holds the call arguments.
type routedCall[A any] struct {
	y       *colt5.Tensor
	in      routedInputs
	args    A
	records *[]colt5.RoutingRecord
}

// routedModule is a module with routers.
type routedModule interface {
	Parameters() []colt5.Parameter
	Close() error
}

// setupRouted is the setup of modules whose y has the shape of x, which has rank dimensions. C is the module's
// configuration.
func setupRouted[C, A any, M routedModule](rank int, create func(context.Context, *vk.Device, C) (M, error),
	forward func(context.Context, M, routedCall[A]) error) setupFunc {
	return func(s *scope.Scope, c *golden.Case) (*instance, error) {
		var config C
		var args A
		if err := decode(c, &config, &args); err != nil {
			return nil, err
		}
		m, err := create(s.Context(), s.Dev, config)
		m = scope.Keep(s, m, err)
		x := requiredInput(s, c, "x", rank)
		in := map[string]*colt5.Tensor{
			"x": x, "mask": optionalInput(s, c, "mask"), "context": optionalInput(s, c, "context"), "context_mask": optionalInput(s, c, "context_mask"),
		}
		return routedInstance(s, c, func() []colt5.Parameter { return m.Parameters() }, in, like(s, x),
			func(ctx context.Context, t tensors, records *[]colt5.RoutingRecord) error {
				in := routedInputs{t.inputs["x"], t.inputs["mask"], t.inputs["context"], t.inputs["context_mask"]}
				return forward(ctx, m, routedCall[A]{t.outputs["y"], in, args, records})
			})
	}
}

// Call arguments, as golden cases name them.
type (
	heavyTokens struct {
		Q  int `json:"num_heavy_tokens_q"`
		KV int `json:"num_heavy_tokens_kv"`
	}
	feedForwardTokens struct {
		Tokens int `json:"num_heavy_tokens"`
	}
	blockTokens struct {
		Q  int `json:"num_heavy_attn_tokens_q"`
		KV int `json:"num_heavy_attn_tokens_kv"`
		FF int `json:"num_heavy_ff_tokens"`
	}
	crossTokens struct {
		Q  int `json:"num_tokens_q"`
		KV int `json:"num_tokens_kv"`
	}
)

func forwardFeedForward(ctx context.Context, m *colt5.ConditionalRoutedFeedForward, c routedCall[feedForwardTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, colt5.FeedForwardOptions{Mask: c.in.mask, NumHeavyTokens: c.args.Tokens, Routing: c.records})
}

func forwardAttention(ctx context.Context, m *colt5.ConditionalRoutedAttention, c routedCall[heavyTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, colt5.AttentionOptions{
		Mask: c.in.mask, NumHeavyTokensQ: c.args.Q, NumHeavyTokensKV: c.args.KV, Routing: c.records,
	})
}

func forwardBlock(ctx context.Context, m *colt5.ConditionalRoutedTransformerBlock, c routedCall[blockTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, colt5.BlockOptions{
		Mask: c.in.mask, NumHeavyAttnTokensQ: c.args.Q, NumHeavyAttnTokensKV: c.args.KV, NumHeavyFFTokens: c.args.FF, Routing: c.records,
	})
}

func forwardCross(ctx context.Context, m *colt5.ConditionalRoutedCrossAttention, c routedCall[crossTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, c.in.context, colt5.CrossAttentionOptions{
		Mask: c.in.mask, ContextMask: c.in.contextMask, NumTokensQ: c.args.Q, NumTokensKV: c.args.KV, Routing: c.records,
	})
}

func forwardAutoregressive(ctx context.Context, m *colt5.ConditionalRoutedAutoregressiveAttention, c routedCall[heavyTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, colt5.AutoregressiveOptions{NumHeavyTokensQ: c.args.Q, NumHeavyTokensKV: c.args.KV, Routing: c.records})
}

func forwardImage(ctx context.Context, m *colt5.ConditionalRoutedImageAttention, c routedCall[heavyTokens]) error {
	return m.Forward(ctx, c.y, c.in.x, colt5.ImageOptions{Mask: c.in.mask, NumHeavyTokensQ: c.args.Q, NumHeavyTokensKV: c.args.KV, Routing: c.records})
}

// setupEncoder creates an Encoder, whose x are floats, or token ids if it has an embedding.
func setupEncoder(s *scope.Scope, c *golden.Case) (*instance, error) {
	var config colt5.EncoderConfig
	var args blockTokens
	if err := decode(c, &config, &args); err != nil {
		return nil, err
	}
	m, err := colt5.NewEncoder(s.Context(), s.Dev, config)
	m = scope.Keep(s, m, err)
	x, mask := optionalInput(s, c, "x"), optionalInput(s, c, "mask")
	if s.Err() != nil {
		return nil, nil
	}
	if x == nil || len(x.Shape()) < 2 {
		return nil, fmt.Errorf("in.x has shape %v, want [B N] or [B N C]", c.Inputs["x"].Shape)
	}
	y := s.Tensor(colt5.F32, x.Shape()[0], x.Shape()[1], config.Dim)
	in := map[string]*colt5.Tensor{"x": x, "mask": mask}
	return routedInstance(s, c, m.Parameters, in, y, func(ctx context.Context, t tensors, records *[]colt5.RoutingRecord) error {
		return m.Forward(ctx, t.outputs["y"], t.inputs["x"], colt5.BlockOptions{
			Mask: t.inputs["mask"], NumHeavyAttnTokensQ: args.Q, NumHeavyAttnTokensKV: args.KV, NumHeavyFFTokens: args.FF, Routing: records,
		})
	})
}

func setupViT(s *scope.Scope, c *golden.Case) (*instance, error) {
	var config colt5.ConditionalRoutedViTConfig
	if err := decode(c, &config, &struct{}{}); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedViT(s.Context(), s.Dev, config)
	m = scope.Keep(s, m, err)
	x := requiredInput(s, c, "x", 4)
	if s.Err() != nil {
		return nil, nil
	}
	y := s.Tensor(colt5.F32, x.Shape()[0], config.NumClasses)
	in := map[string]*colt5.Tensor{"x": x}
	return routedInstance(s, c, m.Parameters, in, y, func(ctx context.Context, t tensors, records *[]colt5.RoutingRecord) error {
		return m.Forward(ctx, t.outputs["y"], t.inputs["x"], colt5.ViTOptions{Routing: records})
	})
}
