package colt5_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
)

// must ends the program if there was an error.
func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}

// A long document, as bytes, to a vector for every byte: a light branch sees every byte, routers choose those that get
// more.
func ExampleEncoder() {
	ctx := context.Background()
	dev := must(vk.Open(vk.Options{}))
	defer dev.Close()

	config := colt5.Default[colt5.EncoderConfig]()
	config.Depth, config.NumTokens, config.Dim = 2, 256, 32
	config.LightHeads, config.LightDimHead, config.LightWindowSize, config.HeavyHeads, config.HeavyDimHead = 2, 16, 16, 4, 16
	config.NumHeavyAttnTokensQ, config.NumHeavyAttnTokensKV, config.NumHeavyFFTokens = 64, 128, 64
	encoder := must(colt5.NewEncoder(ctx, dev, config)) // encoder.Load reads trained weights
	defer encoder.Close()

	text := []byte(strings.Repeat("It was the best of times, it was the worst of times. ", 40))
	x := must(colt5.FromSlice(ctx, dev, text, 1, len(text)))
	defer x.Close()
	y := must(colt5.NewTensor(dev, colt5.F32, 1, len(text), config.Dim))
	defer y.Close()
	var routing []colt5.RoutingRecord
	if err := encoder.Forward(ctx, y, x, colt5.BlockOptions{Routing: &routing}); err != nil {
		log.Panic(err)
	}
	vectors := must(y.Float32(ctx))
	fmt.Println(len(text), "bytes,", len(vectors)/len(text), "floats each")
	for _, d := range routing {
		fmt.Printf("%s chose %d of %d\n", d.Router, d.K, len(text))
	}
}

// A few queries to many memories: of 32 rows the router chooses 8, which attend to 64 of 4,096 memories.
func ExampleConditionalRoutedCrossAttention() {
	ctx := context.Background()
	dev := must(vk.Open(vk.Options{}))
	defer dev.Close()

	config := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
	config.Dim, config.Heads, config.DimHead, config.NumTokensQ, config.NumTokensKV = 32, 4, 16, 8, 64
	attention := must(colt5.NewConditionalRoutedCrossAttention(ctx, dev, config))
	defer attention.Close()

	const rows, memories = 32, 4096
	x := must(colt5.FromSlice(ctx, dev, wave(rows*config.Dim), 1, rows, config.Dim))
	defer x.Close()
	memory := must(colt5.FromSlice(ctx, dev, wave(memories*config.Dim), 1, memories, config.Dim))
	defer memory.Close()
	real := make([]uint8, memories) // memories that there are so far
	for i := range 3000 {
		real[i] = 1
	}
	mask := must(colt5.FromSlice(ctx, dev, real, 1, memories))
	defer mask.Close()
	y := must(colt5.NewTensor(dev, colt5.F32, 1, rows, config.Dim))
	defer y.Close()
	var stats colt5.CallStats
	if err := attention.Forward(ctx, y, x, memory, colt5.CrossAttentionOptions{ContextMask: mask, Stats: &stats}); err != nil {
		log.Panic(err)
	}
	fmt.Println(y.Shape(), stats.Time, "on the GPU,", stats.Workspace, "bytes of workspace")
}

// The class of an image.
func ExampleConditionalRoutedViT() {
	ctx := context.Background()
	dev := must(vk.Open(vk.Options{}))
	defer dev.Close()

	config := colt5.Default[colt5.ConditionalRoutedViTConfig]()
	config.ImageSize, config.PatchSize, config.NumClasses, config.Dim, config.Depth = colt5.Size{64, 64}, colt5.Size{4, 4}, 10, 32, 2
	config.AttnNumHeavyTokensQ, config.AttnNumHeavyTokensKV, config.FFNumHeavyTokens = 64, 64, 64 // of 256 patches
	config.AttnHeavyHeads, config.AttnHeavyDimHead, config.AttnLightHeads, config.AttnLightDimHead = 4, 16, 2, 16
	config.AttnLightWindowSize, config.FFHeavyMult, config.FFLightMult = 4, 4, 2
	vit := must(colt5.NewConditionalRoutedViT(ctx, dev, config))
	defer vit.Close()

	image := must(colt5.FromSlice(ctx, dev, wave(3*64*64), 1, 3, 64, 64))
	defer image.Close()
	logits := must(colt5.NewTensor(dev, colt5.F32, 1, config.NumClasses))
	defer logits.Close()
	if err := vit.Forward(ctx, logits, image, colt5.ImageOptions{}); err != nil {
		log.Panic(err)
	}
	best, scores := 0, must(logits.Float32(ctx))
	for class, s := range scores {
		if s > scores[best] {
			best = class
		}
	}
	fmt.Println("class", best)
}

// Text goes on: the logits of the byte after each. Outputs never depend on later bytes, so that one call scores a whole
// text.
func ExampleAutoregressiveTransformer() {
	ctx := context.Background()
	dev := must(vk.Open(vk.Options{}))
	defer dev.Close()

	config := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	config.Depth, config.Dim, config.CausalQueryRouting = 2, 32, true
	config.LightHeads, config.LightDimHead, config.HeavyHeads, config.HeavyDimHead = 2, 16, 4, 16
	config.LightWindowSize, config.NumHeavyTokensQ, config.NumHeavyTokensKV = 32, 8, 32
	model := must(colt5.NewAutoregressiveTransformer(ctx, dev, config))
	defer model.Close()

	text := []byte(strings.Repeat("to be or not to be, ", 20))
	x := must(colt5.FromSlice(ctx, dev, text, 1, len(text)))
	defer x.Close()
	y := must(colt5.NewTensor(dev, colt5.F32, 1, len(text), config.NumTokens))
	defer y.Close()
	if err := model.Forward(ctx, y, x, colt5.AutoregressiveOptions{}); err != nil {
		log.Panic(err)
	}
	logits, bits := must(y.Float32(ctx)), 0.0
	for i := range len(text) - 1 {
		sum, row := 0.0, logits[i*256:][:256]
		for _, l := range row {
			sum += math.Exp(float64(l))
		}
		bits += math.Log2(sum) - float64(row[text[i+1]])/math.Ln2
	}
	fmt.Printf("%.2f bits a byte, untrained\n", bits/float64(len(text)-1))
}

// The largest entries of each row, and the soft scores that carry a gradient to all of them.
func ExampleTopK() {
	ctx := context.Background()
	dev := must(vk.Open(vk.Options{}))
	defer dev.Close()

	config := colt5.Default[colt5.TopKConfig]()
	config.K = 2
	topK := must(colt5.NewTopK(dev, config))
	defer topK.Close()

	x := must(colt5.FromSlice(ctx, dev, []float32{3, 9, 1, 7, 5, 2, 8, 4}, 2, 4))
	defer x.Close()
	out := colt5.TopKResult{
		Values: must(colt5.NewTensor(dev, colt5.F32, 2, 2)), Indices: must(colt5.NewTensor(dev, colt5.I32, 2, 2)),
		CoorDescentValues: must(colt5.NewTensor(dev, colt5.F32, 2, 2)),
	}
	defer out.Values.Close()
	defer out.Indices.Close()
	defer out.CoorDescentValues.Close()
	if err := topK.Forward(ctx, out, x, colt5.SelectOptions{}); err != nil {
		log.Panic(err)
	}
	fmt.Println(must(out.Values.Float32(ctx)), must(out.Indices.Int32(ctx)), must(out.CoorDescentValues.Float32(ctx)))
	// The values are [9 7 8 5], at [1 3 2 0].
}

// wave is some data.
func wave(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	return x
}

// The examples print times and such, so that there is no output to compare with; and they need a device. This runs them
// where there is one.
func TestExamples(t *testing.T) {
	gputest.Device(t) // skips without a device, or fails if one is required
	for name, run := range map[string]func(){
		"encoder": ExampleEncoder, "cross-attention": ExampleConditionalRoutedCrossAttention, "vit": ExampleConditionalRoutedViT,
		"autoregressive transformer": ExampleAutoregressiveTransformer, "topk": ExampleTopK,
	} {
		t.Run(name, func(t *testing.T) {
			gputest.CountCase()
			run()
		})
	}
}
