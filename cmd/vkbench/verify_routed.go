package main

import (
	"context"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
)

// inspected is a module that tells what its routers decide.
type inspected interface {
	Parameters() []colt5.Parameter
	Inspect(on bool)
	LastRouting() ([]colt5.RoutingRecord, error)
}

// decode reads a case's config and call arguments.
func decode(c *golden.Case, config, call any) error {
	if err := c.DecodeConfig(config); err != nil {
		return err
	}
	return c.DecodeCall(call)
}

// like is a tensor of the shape of another.
func (s *stage) like(x *colt5.Tensor) *colt5.Tensor {
	if x == nil {
		return nil // need has failed
	}
	return s.tensor(colt5.F32, x.Shape()...)
}

// routed is the subject of a module with routers, whose output is y. Call it when all is on the stage.
func (s *stage) routed(c *golden.Case, m inspected, y *colt5.Tensor, forward func() error) (*subject, error) {
	if s.err != nil {
		return nil, nil
	}
	if err := load(m.Parameters(), c); err != nil {
		return nil, err
	}
	return &subject{
		forward: forward, outputs: map[string]*colt5.Tensor{"y": y}, routers: m,
		compare: func(got values, found *comparison) error {
			if err := results(c, got, found); err != nil || c.RoutingMayDiffer() {
				return err
			}
			return found.routes(c, got.decisions)
		},
	}, nil
}

// routedInputs are the tensors of a case; what it leaves out is nil.
type routedInputs struct{ x, mask, context, contextMask *colt5.Tensor }

// verifyRouted verifies the modules whose y has the shape of x, which has rank dimensions. C is a module's config, A holds call arguments.
func verifyRouted[C, A any, M interface {
	inspected
	Close() error
}](rank int, make func(*vk.Device, C) (M, error), forward func(m M, y *colt5.Tensor, in routedInputs, call A) error) verifier {
	return func(s *stage, c *golden.Case) (*subject, error) {
		var config C
		var call A
		if err := decode(c, &config, &call); err != nil {
			return nil, err
		}
		m, err := make(s.dev, config)
		m = keep(s, m, err)
		in := routedInputs{s.need(c, "x", rank), s.input(c, "mask"), s.input(c, "context"), s.input(c, "context_mask")}
		y := s.like(in.x)
		return s.routed(c, m, y, func() error { return forward(m, y, in, call) })
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

func forwardFeedForward(m *colt5.ConditionalRoutedFeedForward, y *colt5.Tensor, in routedInputs, call feedForwardTokens) error {
	return m.Forward(context.TODO(), y, in.x, colt5.FeedForwardOptions{Mask: in.mask, NumHeavyTokens: call.Tokens})
}

func forwardAttention(m *colt5.ConditionalRoutedAttention, y *colt5.Tensor, in routedInputs, call heavyTokens) error {
	return m.Forward(context.TODO(), y, in.x, colt5.AttentionOptions{Mask: in.mask, NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
}

func forwardBlock(m *colt5.ConditionalRoutedTransformerBlock, y *colt5.Tensor, in routedInputs, call blockTokens) error {
	return m.Forward(context.TODO(), y, in.x, colt5.BlockOptions{
		Mask: in.mask, NumHeavyAttnTokensQ: call.Q, NumHeavyAttnTokensKV: call.KV, NumHeavyFFTokens: call.FF,
	})
}

func forwardCross(m *colt5.ConditionalRoutedCrossAttention, y *colt5.Tensor, in routedInputs, call crossTokens) error {
	return m.Forward(context.TODO(), y, in.x, in.context, colt5.CrossAttentionOptions{
		Mask: in.mask, ContextMask: in.contextMask, NumTokensQ: call.Q, NumTokensKV: call.KV,
	})
}

func forwardAutoregressive(m *colt5.ConditionalRoutedAutoregressiveAttention, y *colt5.Tensor, in routedInputs, call heavyTokens) error {
	return m.Forward(context.TODO(), y, in.x, colt5.AutoregressiveOptions{NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
}

func forwardImage(m *colt5.ConditionalRoutedImageAttention, y *colt5.Tensor, in routedInputs, call heavyTokens) error {
	return m.Forward(context.TODO(), y, in.x, colt5.ImageOptions{NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
}

func verifyViT(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedViTConfig
	if err := decode(c, &config, &struct{}{}); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedViT(context.TODO(), s.dev, config)
	m = keep(s, m, err)
	x := s.need(c, "x", 4)
	if s.err != nil {
		return nil, nil
	}
	y := s.tensor(colt5.F32, x.Shape()[0], config.NumClasses)
	return s.routed(c, m, y, func() error { return m.Forward(context.TODO(), y, x) })
}
