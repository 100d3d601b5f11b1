package colt5_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// An encoder maps a document of bytes to one vector for each byte. All bytes pass the light branches; routers select
// those that pass the heavy branches too.
func ExampleEncoder() {
	if err := encodeText(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// y is f32[1 2120 32]
	// layers.0.conditional_attn.q_router selects 256 of 2120 bytes
	// layers.0.conditional_attn.kv_router selects 128 of 2120 bytes
	// layers.0.conditional_ff.router selects 64 of 2120 bytes
	// layers.1.conditional_attn.q_router selects 256 of 2120 bytes
	// layers.1.conditional_attn.kv_router selects 128 of 2120 bytes
	// layers.1.conditional_ff.router selects 64 of 2120 bytes
	// bytes that the first one selects: " ow"
}

func encodeText(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()

	config := colt5.Default[colt5.EncoderConfig]()
	config.Depth, config.NumTokens, config.Dim = 2, 256, 32
	config.LightHeads, config.LightDimHead, config.LightWindowSize = 2, 16, 16
	config.HeavyHeads, config.HeavyDimHead = 4, 16
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 256, 128, 64
	encoder, err := colt5.NewEncoder(ctx, dev, config) // encoder.Load reads trained weights
	if err != nil {
		return err
	}
	defer encoder.Close()

	text := []byte(strings.Repeat("It was the best of times, it was the worst of times. ", 40))
	x, err := colt5.FromSlice(ctx, dev, text, 1, len(text))
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, len(text), config.Dim)
	if err != nil {
		return err
	}
	defer y.Close()

	var routing []colt5.RoutingRecord
	if err := encoder.Forward(ctx, y, x, colt5.BlockOptions{Routing: &routing}); err != nil {
		return err
	}
	fmt.Printf("y is %v\n", y)
	for _, r := range routing {
		fmt.Printf("%s selects %d of %d bytes\n", r.Router, r.K, r.N)
	}
	var selected []byte // by the first router, which reads the embeddings: equal bytes have equal logits
	for _, i := range routing[0].Indices {
		selected = append(selected, text[i])
	}
	slices.Sort(selected)
	fmt.Printf("bytes that the first one selects: %q\n", slices.Compact(selected))
	return nil
}
