package main

import (
	"context"
	"bytes"

	"github.com/colt5-vulkan/colt5/colt5"
)

// routedCases has the modules with routers, at the sizes of examples.go.
func routedCases() []benchCase {
	sequence := []string{"batch", "tokens", "dim", "heavy tokens"}
	cross := []string{"batch", "tokens", "memories", "dim", "routes", "block (0: none)"}
	image := []string{"batch", "dim", "height", "width", "window", "heavy tokens"}
	vit := []string{"batch", "image", "patch", "dim", "depth"}
	model := []string{"batch", "tokens", "dim", "heavy tokens", "depth"}
	one := func(size ...int) [][]int { return [][]int{size} }
	return []benchCase{
		{"feedforward", sequence, one(2, 32768, 512, 1024), one(1, 4096, 256, 128), setupFeedForward},
		{"attention", sequence, one(2, 32768, 512, 1024), one(1, 512, 64, 32), setupAttention},
		{"block", sequence, one(2, 32768, 512, 1024), one(1, 512, 64, 32), setupBlock},
		// 4,194,304 memories are 8 GiB: -size cross=1x1024x4194304x512x2x131072.
		{
			"cross", cross,
			[][]int{{1, 1024, 1048576, 512, 2, 131072}, {1, 1024, 1048576, 512, 2, 0}, {1, 1024, 1048576, 512, 1, 0}},
			[][]int{{1, 128, 16384, 64, 2, 2048}, {1, 128, 16384, 64, 2, 0}, {1, 128, 16384, 64, 1, 0}}, setupCross,
		},
		{"autoregressive", sequence, one(2, 8192, 512, 1024), one(1, 512, 64, 64), setupAutoregressive},
		{"image", image, one(1, 32, 256, 256, 32, 1024), one(1, 32, 32, 32, 8, 64), setupImage},
		{"vit", vit, one(1, 256, 32, 1024, 6), one(1, 64, 8, 64, 2), setupViT},
		{"encoder", model, one(2, 32768, 512, 1024, 6), one(1, 256, 64, 16, 2), setupEncoder},
		{"autoregressive_transformer", model, one(2, 8192, 512, 1024, 6), one(1, 256, 64, 32, 2), setupAutoregressiveTransformer},
	}
}

// ones is a mask in which all tokens are real.
func (s *benchStage) ones(b, n int) *colt5.Tensor {
	return s.tensorOf(colt5.U8, func() any { return bytes.Repeat([]byte{1}, b*n) }, b, n)
}

// text is a tensor of bytes.
func (s *benchStage) text(b, n int) *colt5.Tensor {
	return s.tensorOf(colt5.U8, func() any {
		data := make([]byte, b*n)
		for i, x := range normals(s.seed(), b*n) {
			data[i] = byte(64 + 16*x)
		}
		return data
	}, b, n)
}

func setupFeedForward(s *benchStage, size []int) (*workload, error) {
	b, n, c := size[0], size[1], size[2]
	config := feedForwardExample(c)
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyTokens = size[3]
	m, err := colt5.NewConditionalRoutedFeedForward(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y, mask := s.input(b, n, c), s.tensor(colt5.F32, b, n, c), s.ones(b, n)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.FeedForwardOptions{Mask: mask}) })
}

func setupAttention(s *benchStage, size []int) (*workload, error) {
	b, n, c := size[0], size[1], size[2]
	config := attentionExample(c)
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyTokensQ, config.NumHeavyTokensKV = size[3], size[3]
	m, err := colt5.NewConditionalRoutedAttention(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y, mask := s.input(b, n, c), s.tensor(colt5.F32, b, n, c), s.ones(b, n)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.AttentionOptions{Mask: mask}) })
}

func setupBlock(s *benchStage, size []int) (*workload, error) {
	config := blockExample(size[2])
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = size[3], size[3], size[3]
	return s.block(config, size[0], size[1])
}

func (s *benchStage) block(config colt5.ConditionalRoutedTransformerBlockConfig, b, n int) (*workload, error) {
	m, err := colt5.NewConditionalRoutedTransformerBlock(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y, mask := s.input(b, n, config.Dim), s.tensor(colt5.F32, b, n, config.Dim), s.ones(b, n)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.BlockOptions{Mask: mask}) })
}

// setupCross chooses the example's numbers of tokens, or fewer where that would leave none out.
func setupCross(s *benchStage, size []int) (*workload, error) {
	b, n, memories, c := size[0], size[1], size[2], size[3]
	config := crossExample(c)
	config.Precision = colt5.DType(s.precision)
	config.NumTokensQ, config.NumTokensKV = min(config.NumTokensQ, max(n/2, 1)), min(config.NumTokensKV, max(memories/64, 1))
	config.KVRoutingTokens, config.RouteBlockSize = size[4], colt5.OptionalInt(size[5])
	m, err := colt5.NewConditionalRoutedCrossAttention(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y, mask := s.input(b, n, c), s.tensor(colt5.F32, b, n, c), s.ones(b, n)
	context, contextMask := s.input(b, memories, c), s.ones(b, memories)
	return s.call(m, y, func() error {
		return m.Forward(context.TODO(), y, x, context, colt5.CrossAttentionOptions{Mask: mask, ContextMask: contextMask})
	})
}

func setupAutoregressive(s *benchStage, size []int) (*workload, error) {
	b, n, c := size[0], size[1], size[2]
	config := autoregressiveExample(c)
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyTokensKV = size[3]
	m, err := colt5.NewConditionalRoutedAutoregressiveAttention(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y := s.input(b, n, c), s.tensor(colt5.F32, b, n, c)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.AutoregressiveOptions{}) })
}

func setupImage(s *benchStage, size []int) (*workload, error) {
	config := imageExample(size[1])
	config.Precision = colt5.DType(s.precision)
	config.LightWindowSize, config.NumHeavyTokensQ, config.NumHeavyTokensKV = size[4], size[5], size[5]
	m, err := colt5.NewConditionalRoutedImageAttention(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y := s.input(size[:4]...), s.tensor(colt5.F32, size[:4]...)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.ImageOptions{}) })
}

func setupViT(s *benchStage, size []int) (*workload, error) {
	b, side := size[0], size[1]
	config := vitExample()
	config.Precision = colt5.DType(s.precision)
	config.ImageSize, config.PatchSize, config.Dim, config.Depth = colt5.Square(side), colt5.Square(size[2]), size[3], size[4]
	m, err := colt5.NewConditionalRoutedViT(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y := s.input(b, config.Channels, side, side), s.tensor(colt5.F32, b, config.NumClasses)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x) })
}

func setupEncoder(s *benchStage, size []int) (*workload, error) {
	b, n, c := size[0], size[1], size[2]
	config := encoderExample(c)
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = size[3], size[3], size[3]
	config.Depth = size[4]
	m, err := colt5.NewEncoder(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y, mask := s.text(b, n), s.tensor(colt5.F32, b, n, c), s.ones(b, n)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.BlockOptions{Mask: mask}) })
}

func setupAutoregressiveTransformer(s *benchStage, size []int) (*workload, error) {
	b, n := size[0], size[1]
	config := autoregressiveTransformerExample(size[2])
	config.Precision = colt5.DType(s.precision)
	config.NumHeavyTokensKV, config.Depth = size[3], size[4]
	m, err := colt5.NewAutoregressiveTransformer(context.TODO(), s.dev, config)
	m = keep(s.stage, m, err)
	x, y := s.text(b, n), s.tensor(colt5.F32, b, n, config.NumTokens)
	return s.call(m, y, func() error { return m.Forward(context.TODO(), y, x, colt5.AutoregressiveOptions{}) })
}

// call is the workload of a module's call whose output is y. Call it when all is on the stage.
func (s *benchStage) call(m timed, y *colt5.Tensor, run func() error) (*workload, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.module(m, run, tensorResult("y", y)), nil
}
