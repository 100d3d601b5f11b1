package cases

import (
	"context"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
)

// Routed returns the modules with routers, by default at the sizes of package examples.
func Routed() []Case {
	one := func(size ...int) [][]int { return [][]int{size} }
	return []Case{
		{"feedforward", examples.FeedForward().Names(), one(2, 32768, 512, 1024), one(1, 4096, 256, 128), setupFeedForward},
		{"attention", examples.Attention().Names(), one(2, 32768, 512, 1024), one(1, 512, 64, 32), setupAttention},
		{"block", examples.Block().Names(), one(2, 32768, 512, 1024), one(1, 512, 64, 32), setupBlock},
		// 4,194,304 memories are 8 GiB: -size cross=1x1024x4194304x512x2x131072.
		{
			"cross", examples.Cross().Names(),
			[][]int{{1, 1024, 1048576, 512, 2, 131072}, {1, 1024, 1048576, 512, 2, 0}, {1, 1024, 1048576, 512, 1, 0}},
			[][]int{{1, 128, 16384, 64, 2, 2048}, {1, 128, 16384, 64, 2, 0}, {1, 128, 16384, 64, 1, 0}}, setupCross,
		},
		{"autoregressive", examples.Autoregressive().Names(), one(2, 8192, 512, 1024), one(1, 512, 64, 64), setupAutoregressive},
		{"image", examples.Image().Names(), one(1, 32, 256, 256, 32, 1024), one(1, 32, 32, 32, 8, 64), setupImage},
		{"vit", examples.ViT().Names(), one(1, 256, 32, 1024, 6), one(1, 64, 8, 64, 2), setupViT},
		{"encoder", examples.Encoder().Names(), one(2, 32768, 512, 1024, 6), one(1, 256, 64, 16, 2), setupEncoder},
		{"autoregressive_transformer", examples.AutoregressiveTransformer().Names(), one(2, 8192, 512, 1024, 6), one(1, 256, 64, 32, 2), setupAutoregressiveTransformer},
	}
}

func setupFeedForward(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	config := examples.FeedForward().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedFeedForward(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.input(batch, n, c), b.Tensor(colt5.F32, batch, n, c), b.ones(batch, n)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.FeedForwardOptions{Mask: mask, Stats: stats})
	})
}

func setupAttention(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	config := examples.Attention().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedAttention(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.input(batch, n, c), b.Tensor(colt5.F32, batch, n, c), b.ones(batch, n)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.AttentionOptions{Mask: mask, Stats: stats})
	})
}

func setupBlock(b *Builder, size []int) (*Workload, error) {
	config := examples.Block().Config(size, b.Precision)
	return b.block(config, size[0], size[1])
}

// block returns the workload of a transformer block.
func (b *Builder) block(config colt5.ConditionalRoutedTransformerBlockConfig, batch, n int) (*Workload, error) {
	m, err := colt5.NewConditionalRoutedTransformerBlock(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.input(batch, n, config.Dim), b.Tensor(colt5.F32, batch, n, config.Dim), b.ones(batch, n)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.BlockOptions{Mask: mask, Stats: stats})
	})
}

func setupCross(b *Builder, size []int) (*Workload, error) {
	batch, n, memories, c := size[0], size[1], size[2], size[3]
	config := examples.Cross().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedCrossAttention(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.input(batch, n, c), b.Tensor(colt5.F32, batch, n, c), b.ones(batch, n)
	keys, keyMask := b.input(batch, memories, c), b.ones(batch, memories)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, keys, colt5.CrossAttentionOptions{Mask: mask, ContextMask: keyMask, Stats: stats})
	})
}

func setupAutoregressive(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	config := examples.Autoregressive().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedAutoregressiveAttention(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y := b.input(batch, n, c), b.Tensor(colt5.F32, batch, n, c)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.AutoregressiveOptions{Stats: stats})
	})
}

func setupImage(b *Builder, size []int) (*Workload, error) {
	config := examples.Image().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedImageAttention(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y := b.input(size[:4]...), b.Tensor(colt5.F32, size[:4]...)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.ImageOptions{Stats: stats})
	})
}

func setupViT(b *Builder, size []int) (*Workload, error) {
	batch, side := size[0], size[1]
	config := examples.ViT().Config(size, b.Precision)
	m, err := colt5.NewConditionalRoutedViT(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y := b.input(batch, config.Channels, side, side), b.Tensor(colt5.F32, batch, config.NumClasses)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.ViTOptions{Stats: stats})
	})
}

func setupEncoder(b *Builder, size []int) (*Workload, error) {
	batch, n, c := size[0], size[1], size[2]
	config := examples.Encoder().Config(size, b.Precision)
	m, err := colt5.NewEncoder(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y, mask := b.text(batch, n), b.Tensor(colt5.F32, batch, n, c), b.ones(batch, n)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.BlockOptions{Mask: mask, Stats: stats})
	})
}

func setupAutoregressiveTransformer(b *Builder, size []int) (*Workload, error) {
	batch, n := size[0], size[1]
	config := examples.AutoregressiveTransformer().Config(size, b.Precision)
	m, err := colt5.NewAutoregressiveTransformer(b.Context(), b.Dev, config)
	m = scope.Keep(b.Scope, m, err)
	x, y := b.text(batch, n), b.Tensor(colt5.F32, batch, n, config.NumTokens)
	return b.call(y, func(ctx context.Context, stats *colt5.CallStats) error {
		return m.Forward(ctx, y, x, colt5.AutoregressiveOptions{Stats: stats})
	})
}

// call returns the workload of a module's call whose output is y. Call it last, after all tensors were created.
func (b *Builder) call(y *colt5.Tensor, call func(ctx context.Context, stats *colt5.CallStats) error) (*Workload, error) {
	if b.Err() != nil {
		return nil, b.Err()
	}
	return b.module(call, FloatOutput("y", y))
}
