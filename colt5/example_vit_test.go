package colt5_test

import (
	"context"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// A vision transformer classifies an image of 64 by 64 pixels. Routers select 64 of its 256 patches for the heavy
// branches.
func ExampleConditionalRoutedViT() {
	if err := classify(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// class 9 with probability 0.32, before any training
}

func classify(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()

	const side = 64
	config := colt5.Default[colt5.ConditionalRoutedViTConfig]()
	config.ImageSize, config.PatchSize = colt5.Size{Height: side, Width: side}, colt5.Size{Height: 4, Width: 4}
	config.NumClasses, config.Dim, config.Depth = 10, 32, 2
	config.AttnNumHeavyTokensQ, config.AttnNumHeavyTokensKV, config.FFNumHeavyTokens = 64, 64, 64
	config.AttnHeavyHeads, config.AttnHeavyDimHead, config.AttnLightHeads, config.AttnLightDimHead = 4, 16, 2, 16
	config.AttnLightWindowSize, config.FFHeavyMult, config.FFLightMult = 4, 4, 2
	vit, err := colt5.NewConditionalRoutedViT(ctx, dev, config) // vit.Load reads trained weights
	if err != nil {
		return err
	}
	defer vit.Close()

	image, err := colt5.FromSlice(ctx, dev, disc(side), 1, 3, side, side)
	if err != nil {
		return err
	}
	defer image.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, config.NumClasses)
	if err != nil {
		return err
	}
	defer y.Close()

	if err := vit.Forward(ctx, y, image, colt5.ViTOptions{}); err != nil {
		return err
	}
	logits, err := y.Float32(ctx)
	if err != nil {
		return err
	}
	best, sum := 0, 0.0
	for class, l := range logits {
		if l > logits[best] {
			best = class
		}
		sum += math.Exp(float64(l))
	}
	fmt.Printf("class %d with probability %.2f, before any training\n", best, math.Exp(float64(logits[best]))/sum)
	return nil
}

// disc returns an image [3, side, side] of a red disc on black ground.
func disc(side int) []float32 {
	image := make([]float32, 3*side*side)
	for i := range side * side {
		if math.Hypot(float64(i/side-side/2), float64(i%side-side/2)) < float64(side)/3 {
			image[i] = 1
		}
	}
	return image
}
