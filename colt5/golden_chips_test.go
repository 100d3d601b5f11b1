package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/pretend"
)

// The golden cases with the kernels that GPUs would get, by their registers: Intel's and Apple's have 128 per invocation,
// Apple's fewer in large workgroups; AMD's and NVIDIA's get the large tiles. CPU drivers can run them all.
func TestGoldenChips(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s for each chip")
	}
	for _, chip := range []string{"tgl", "apple", "navi31"} {
		t.Run(chip, func(t *testing.T) {
			t.Cleanup(pretend.Chip(pretend.Chips()[chip]))
			t.Run("CoordinateDescent", TestGoldenCoordinateDescent)
			t.Run("TopK", TestGoldenTopK)
			t.Run("Router", TestGoldenRouter)
			t.Run("FeedForward", TestGoldenFeedForward)
			t.Run("Attention", TestGoldenAttention)
			t.Run("Block", TestGoldenBlock)
			t.Run("CrossAttention", TestGoldenCrossAttention)
			t.Run("AutoregressiveAttention", TestGoldenAutoregressiveAttention)
			t.Run("ImageAttention", TestGoldenImageAttention)
			t.Run("ViT", TestGoldenViT)
		})
	}
}
