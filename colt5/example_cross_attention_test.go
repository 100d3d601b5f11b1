package colt5_test

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Cross-attention from a few queries to many memories: of 32 rows a router selects 8 as queries, which attend to the 64
// memories that another router selects from 4,096. Only the first 3,000 memories are real.
func ExampleConditionalRoutedCrossAttention() {
	if err := readMemories(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// q_router selects 8 of 32, the last one is 25
	// kv_router selects 64 of 4096, the last one is 2992
	// rows with an attention output: [2 3 12 13 14 23 24 25]
}

func readMemories(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()

	const rows, memories, real = 32, 4096, 3000
	config := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
	config.Dim, config.Heads, config.DimHead, config.NumTokensQ, config.NumTokensKV = 32, 4, 16, 8, 64
	attention, err := colt5.NewConditionalRoutedCrossAttention(ctx, dev, config)
	if err != nil {
		return err
	}
	defer attention.Close()

	x, err := colt5.FromSlice(ctx, dev, sineWave(rows*config.Dim), 1, rows, config.Dim)
	if err != nil {
		return err
	}
	defer x.Close()
	memory, err := colt5.FromSlice(ctx, dev, sineWave(memories*config.Dim), 1, memories, config.Dim)
	if err != nil {
		return err
	}
	defer memory.Close()
	valid := make([]uint8, memories)
	for i := range real {
		valid[i] = 1
	}
	mask, err := colt5.FromSlice(ctx, dev, valid, 1, memories)
	if err != nil {
		return err
	}
	defer mask.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, rows, config.Dim)
	if err != nil {
		return err
	}
	defer y.Close()

	var routing []colt5.RoutingRecord
	err = attention.Forward(ctx, y, x, memory, colt5.CrossAttentionOptions{ContextMask: mask, Routing: &routing})
	if err != nil {
		return err
	}
	for _, r := range routing {
		fmt.Printf("%s selects %d of %d, the last one is %d\n", r.Router, r.K, r.N, slices.Max(r.Indices))
	}
	queries := routing[0].Indices
	slices.Sort(queries)
	fmt.Println("rows with an attention output:", queries)
	return nil
}

// sineWave returns n samples of a sine.
func sineWave(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	return x
}
