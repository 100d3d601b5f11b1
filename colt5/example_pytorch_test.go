package colt5_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Encode token ids with a PyTorch model. scripts/from_pytorch.py wrote its two files: see docs/pytorch.md.
func ExampleEncoder_Load() {
	ctx := context.Background()
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()

	data, err := os.ReadFile("testdata/pytorch/encoder_ids.json")
	if err != nil {
		log.Fatal(err)
	}
	var config colt5.EncoderConfig
	if err := json.Unmarshal(data, &config); err != nil {
		log.Fatal(err)
	}
	encoder, err := colt5.NewEncoder(ctx, dev, config)
	if err != nil {
		log.Fatal(err)
	}
	defer encoder.Close()
	if err := encoder.Load(ctx, "testdata/pytorch/encoder_ids.safetensors"); err != nil {
		log.Fatal(err)
	}

	x, err := colt5.FromSlice(ctx, dev, []int32{3, 14, 15, 9, 26, 5, 35, 8}, 1, 8) // [batch, tokens]
	if err != nil {
		log.Fatal(err)
	}
	defer x.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, 8, config.Dim) // [batch, tokens, dim]
	if err != nil {
		log.Fatal(err)
	}
	defer y.Close()
	if err := encoder.Forward(ctx, y, x, colt5.BlockOptions{}); err != nil {
		log.Fatal(err)
	}
	vectors, err := y.Float32(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("dim %d, depth %d, %d token ids\n", config.Dim, config.Depth, config.NumTokens)
	fmt.Printf("the first token, as in PyTorch: %.2f\n", vectors[:config.Dim])
	// Output:
	// dim 8, depth 1, 42 token ids
	// the first token, as in PyTorch: [0.48 -1.27 -0.20 -0.29 -0.83 2.18 0.50 0.25]
}
