package colt5_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// An autoregressive transformer predicts the next byte at every position of a text. With CausalQueryRouting no
// prediction depends on later bytes, so that one call scores the whole text.
func ExampleAutoregressiveTransformer() {
	if err := scoreText(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 7.9 bits per byte, before any training
	// an edit of byte 300 does not change the logits of the first 300 positions
}

func scoreText(ctx context.Context) error {
	dev, err := vk.Open(vk.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()

	config := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	config.Depth, config.Dim, config.CausalQueryRouting = 2, 32, true
	config.LightHeads, config.LightDimHead, config.HeavyHeads, config.HeavyDimHead = 2, 16, 4, 16
	config.LightWindowSize, config.NumHeavyTokensQ, config.NumHeavyTokensKV = 32, 8, 32
	model, err := colt5.NewAutoregressiveTransformer(ctx, dev, config) // model.Load reads trained weights
	if err != nil {
		return err
	}
	defer model.Close()

	text := bytes.Repeat([]byte("to be or not to be, "), 20)
	x, err := colt5.FromSlice(ctx, dev, text, 1, len(text))
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := colt5.NewTensor(dev, colt5.F32, 1, len(text), config.NumTokens)
	if err != nil {
		return err
	}
	defer y.Close()
	predict := func() ([]float32, error) {
		if err := model.Forward(ctx, y, x, colt5.AutoregressiveOptions{}); err != nil {
			return nil, err
		}
		return y.Float32(ctx)
	}

	logits, err := predict()
	if err != nil {
		return err
	}
	bits := 0.0 // cross-entropy of each byte but the first
	for i := range len(text) - 1 {
		row, sum := logits[i*config.NumTokens:][:config.NumTokens], 0.0
		for _, l := range row {
			sum += math.Exp(float64(l))
		}
		bits += math.Log2(sum) - float64(row[text[i+1]])/math.Ln2
	}
	fmt.Printf("%.1f bits per byte, before any training\n", bits/float64(len(text)-1))

	text[300] = '!'
	if err := x.Write(ctx, text); err != nil {
		return err
	}
	edited, err := predict()
	if err != nil {
		return err
	}
	same := 0 // positions whose logits have the same bits
	for same < len(text) && slices.Equal(logits[same*config.NumTokens:][:config.NumTokens], edited[same*config.NumTokens:][:config.NumTokens]) {
		same++
	}
	fmt.Printf("an edit of byte 300 does not change the logits of the first %d positions\n", same)
	return nil
}
