package cases

import (
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/examples"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
)

// Lengths returns the cases of growing sequence length, which is their second dimension.
func Lengths() []Case {
	dense := []string{"batch", "tokens", "heads", "dim head"}
	return []Case{
		{results.BlockLength, []string{"batch", "tokens", "dim", "heavy attention tokens"}, [][]int{{1, 131072, 512, 1024}}, [][]int{{1, 512, 64, 32}}, setupBlockLength},
		{results.DenseAttention, dense, [][]int{{1, 8192, 8, 64}}, [][]int{{1, 256, 4, 64}}, setupDenseAttention},
	}
}

// setupBlockLength is a block that routes a fixed number of tokens to its heavy attention, and one token in 32 to its heavy
// feedforward.
func setupBlockLength(b *Builder, size []int) (*Workload, error) {
	n := size[1]
	config := examples.Block().Config(size, b.Precision)
	config.NumHeavyFFTokens = max(n/32, 1)
	c, err := examples.Block().Call(b.Context(), b.Dev, config, size)
	if err != nil {
		return nil, err
	}
	return b.call(c)
}

// setupDenseAttention is routed attention with all tokens, without projections.
func setupDenseAttention(b *Builder, size []int) (*Workload, error) {
	batch, n, h, d := size[0], size[1], size[2], size[3]
	return setupRoutedAttention(b, []int{batch, n, n, h, d})
}
