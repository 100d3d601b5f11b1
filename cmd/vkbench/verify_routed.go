package main

import (
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/golden"
)

// inspected is a module that tells what its routers decide.
type inspected interface {
	Parameters() []colt5.Parameter
	Inspect(on bool)
	LastRouting() ([]colt5.RouterDecision, error)
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
			if err := results(c, got, found); err != nil || c.Behind() {
				return err
			}
			return found.routes(c, got.decisions)
		},
	}, nil
}

// heavyTokens are the call arguments of attentions over one sequence.
type heavyTokens struct {
	Q  int `json:"num_heavy_tokens_q"`
	KV int `json:"num_heavy_tokens_kv"`
}

func verifyFeedForward(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedFeedForwardConfig
	var call struct {
		Tokens int `json:"num_heavy_tokens"`
	}
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedFeedForward(s.dev, config)
	m = keep(s, m, err)
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, colt5.FeedForwardOptions{Mask: mask, NumHeavyTokens: call.Tokens})
	})
}

func verifyAttention(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedAttentionConfig
	var call heavyTokens
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedAttention(s.dev, config)
	m = keep(s, m, err)
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, colt5.AttentionOptions{Mask: mask, NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
	})
}

func verifyBlock(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedTransformerBlockConfig
	var call struct {
		Q  int `json:"num_heavy_attn_tokens_q"`
		KV int `json:"num_heavy_attn_tokens_kv"`
		FF int `json:"num_heavy_ff_tokens"`
	}
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedTransformerBlock(s.dev, config)
	m = keep(s, m, err)
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, colt5.BlockOptions{
			Mask: mask, NumHeavyAttnTokensQ: call.Q, NumHeavyAttnTokensKV: call.KV, NumHeavyFFTokens: call.FF,
		})
	})
}

func verifyCross(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedCrossAttentionConfig
	var call struct {
		Q  int `json:"num_tokens_q"`
		KV int `json:"num_tokens_kv"`
	}
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedCrossAttention(s.dev, config)
	m = keep(s, m, err)
	x, mask := s.need(c, "x", 3), s.input(c, "mask")
	context, contextMask := s.need(c, "context", 3), s.input(c, "context_mask")
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, context, colt5.CrossAttentionOptions{Mask: mask, ContextMask: contextMask, NumTokensQ: call.Q, NumTokensKV: call.KV})
	})
}

func verifyAutoregressive(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedAutoregressiveAttentionConfig
	var call heavyTokens
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedAutoregressiveAttention(s.dev, config)
	m = keep(s, m, err)
	x := s.need(c, "x", 3)
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, colt5.AutoregressiveOptions{NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
	})
}

func verifyImage(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedImageAttentionConfig
	var call heavyTokens
	if err := decode(c, &config, &call); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedImageAttention(s.dev, config)
	m = keep(s, m, err)
	x := s.need(c, "x", 4)
	y := s.like(x)
	return s.routed(c, m, y, func() error {
		return m.Forward(y, x, colt5.ImageOptions{NumHeavyTokensQ: call.Q, NumHeavyTokensKV: call.KV})
	})
}

func verifyViT(s *stage, c *golden.Case) (*subject, error) {
	var config colt5.ConditionalRoutedViTConfig
	if err := decode(c, &config, &struct{}{}); err != nil {
		return nil, err
	}
	m, err := colt5.NewConditionalRoutedViT(s.dev, config)
	m = keep(s, m, err)
	x := s.need(c, "x", 4)
	if s.err != nil {
		return nil, nil
	}
	y := s.tensor(colt5.F32, x.Shape()[0], config.NumClasses)
	return s.routed(c, m, y, func() error { return m.Forward(y, x) })
}
