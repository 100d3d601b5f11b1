package colt5_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// A graph runs several modules as one call. This one classifies documents of different lengths: an encoder, the mean
// over the real tokens, a linear head. Nothing between the nodes leaves the device.
func ExampleGraph() {
	if err := classifyDocuments(context.Background(), []string{"It was the best of times.", "It was the worst."}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// logits are f32[2 3]
	// encoder selects 8 of 25 bytes with layers.0.conditional_ff.router
	// nodes: encoder Mean head
}

func classifyDocuments(ctx context.Context, documents []string) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	config := colt5.Default[colt5.EncoderConfig]()
	config.Depth, config.NumTokens, config.Dim = 1, 256, 32
	config.LightHeads, config.LightDimHead, config.LightWindowSize = 2, 16, 16
	config.HeavyHeads, config.HeavyDimHead = 4, 16
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 8, 8, 8
	encoder, err := colt5.NewEncoder(ctx, dev, config) // encoder.Load reads trained weights
	if err != nil {
		return err
	}
	defer encoder.Close()
	head, err := colt5.NewLinear(ctx, dev, colt5.LinearConfig{In: config.Dim, Out: 3, Bias: true})
	if err != nil {
		return err
	}
	defer head.Close()

	// The graph is built once. Its sizes are those of each run; 0 is any size.
	g := colt5.NewGraph(dev)
	defer g.Close()
	x, mask := g.Input("x", colt5.U8, 0, 0), g.Input("mask", colt5.U8, 0, 0)
	encoded, logits := g.Value("encoder"), g.Value("head")
	err = errors.Join(
		encoder.Forward(ctx, encoded, x, colt5.BlockOptions{Mask: mask}),
		head.Forward(ctx, logits, g.Mean(encoded, mask), colt5.CallOptions{}),
	)
	if err != nil {
		return err
	}
	g.Output("logits", logits)

	text, real, n := pad(documents)
	ids, err := colt5.FromSlice(ctx, dev, text, len(documents), n)
	if err != nil {
		return err
	}
	defer ids.Close()
	masks, err := colt5.FromSlice(ctx, dev, real, len(documents), n)
	if err != nil {
		return err
	}
	defer masks.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, len(documents), 3)
	if err != nil {
		return err
	}
	defer y.Close()
	stats, routing := colt5.CallStats{}, []colt5.RoutingRecord{}
	tensors := map[string]*colt5.Tensor{"x": ids, "mask": masks, "logits": y}
	if err := g.Run(ctx, tensors, colt5.GraphOptions{Stats: &stats, Routing: &routing}); err != nil {
		return err
	}
	fmt.Println("logits are", y)
	for _, r := range routing {
		if r.Router == "encoder.layers.0.conditional_ff.router" {
			fmt.Printf("encoder selects %d of %d bytes with layers.0.conditional_ff.router\n", r.K, r.N)
		}
	}
	fmt.Print("nodes:")
	for _, n := range stats.Nodes {
		fmt.Print(" ", n.Name)
	}
	fmt.Println()
	return nil
}

// pad puts documents into rows of the length of the longest, with a mask of the real bytes.
func pad(documents []string) (text, mask []uint8, n int) {
	for _, d := range documents {
		n = max(n, len(d))
	}
	text, mask = make([]uint8, len(documents)*n), make([]uint8, len(documents)*n)
	for i, d := range documents {
		copy(text[i*n:], d)
		for j := range d {
			mask[i*n+j] = 1
		}
	}
	return text, mask, n
}
