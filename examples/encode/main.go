// Encode computes a vector for every byte of a document, and prints which bytes the routers selected.
package main

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

func main() {
	if err := encode(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func encode(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{}) // prefers a discrete GPU; Options.Device or COLT5_DEVICE selects another device
	if err != nil {
		return err
	}
	defer dev.Close()

	config := colt5.Default[colt5.EncoderConfig]()
	config.Depth, config.Dim, config.NumTokens = 2, 64, 256 // 256 tokens: the input is bytes
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 128, 128, 128
	// The initial weights are random; encoder.Load reads a PyTorch state dict in safetensors format.
	encoder, err := colt5.NewEncoder(ctx, dev, config)
	if err != nil {
		return err
	}
	defer encoder.Close()

	var text []byte
	for n := range 80 {
		text = fmt.Appendf(text, "%d squared is %d.\n", n, n*n)
	}
	x, err := colt5.FromSlice(ctx, dev, text, 1, len(text)) // [batch, tokens]
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, len(text), config.Dim) // [batch, tokens, dim]
	if err != nil {
		return err
	}
	defer y.Close()

	// The first call compiles and records the kernels. A second call of the same shape is one submit and allocates nothing.
	var routing []colt5.RoutingRecord
	if err := encoder.Forward(ctx, y, x, colt5.BlockOptions{Routing: &routing}); err != nil {
		return err
	}
	vectors, err := y.Float32(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d bytes, %d floats\n", len(text), len(vectors))
	for _, r := range routing {
		slices.Sort(r.Indices)
		fmt.Printf("%s selected %d of %d bytes, the first at %v\n", r.Router, len(r.Indices), r.N, r.Indices[:5])
	}
	return nil
}
